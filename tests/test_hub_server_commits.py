"""The Hub of the tests, written to by huggingface_hub itself: what clients did is read from the git repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hub_fixtures import run_client
from hub_server import Cut, HubServer
from hypothesis import given, settings
from hypothesis import strategies as st

LIFE = """
import json
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

api, told = HfApi(), {}
told["url"] = str(api.create_repo("steer/tiny"))
told["again"] = str(api.create_repo("steer/tiny", exist_ok=True))
first = [CommitOperationAdd("README.md", b"---\\nlicense: mit\\ntags: [steering]\\n---\\nHello\\n"),
         CommitOperationAdd("weights/w.safetensors", b"w" * 5000), CommitOperationAdd("notes/plain.txt", b"plain\\n"),
         CommitOperationAdd("zeros.dat", bytes(100)), CommitOperationAdd("empty.bin", b"")]
told["first"] = api.create_commit("steer/tiny", first, commit_message="First", commit_description="of all").oid
same = [CommitOperationAdd("notes/plain.txt", b"plain\\n"), CommitOperationAdd("weights/w.safetensors", b"w" * 5000)]
told["unchanged"] = api.create_commit("steer/tiny", same, commit_message="Nothing").oid
second = [CommitOperationDelete("notes/"), CommitOperationAdd("more.txt", b"more"),
          CommitOperationCopy("weights/w.safetensors", "copy.safetensors")]
told["second"] = api.create_commit("steer/tiny", second, commit_message="Second", parent_commit=told["first"]).oid

def refused(*operations, **options):
    try:
        api.create_commit("steer/tiny", operations, commit_message="Refused", **options)
    except HfHubHTTPError as error:
        return [error.response.status_code, error.server_message]

told["stale"] = refused(CommitOperationAdd("late.txt", b"late"), parent_commit=told["first"])
told["absent"] = refused(CommitOperationDelete("notes/plain.txt"), CommitOperationAdd("late.txt", b"late"))
told["clash"] = refused(CommitOperationAdd("more.txt/inside", b"late"))
told["unknown parent"] = refused(CommitOperationAdd("late.txt", b"late"), parent_commit="0" * 40)
api.create_branch("steer/tiny", branch="exp/one", revision=told["first"])
api.create_branch("steer/tiny", branch="exp/one", exist_ok=True)
operations = [CommitOperationAdd("branch.txt", b"branch")]
told["branch"] = api.create_commit("steer/tiny", operations, commit_message="On it", revision="exp/one").oid
api.create_tag("steer/tiny", tag="v1", revision=told["first"], tag_message="The first")
refs = api.list_repo_refs("steer/tiny")
told["refs"] = {ref.ref: ref.target_commit for ref in refs.branches + refs.tags}
told["titles"] = [(c.commit_id, c.title, c.message, c.authors) for c in api.list_repo_commits("steer/tiny")]
api.delete_branch("steer/tiny", branch="exp/one")
api.delete_tag("steer/tiny", tag="v1")
info = api.model_info("steer/tiny", files_metadata=True)
told["info"] = [info.sha, info.private, info.card_data.license, info.tags]
told["siblings"] = {s.rfilename: [s.size, s.lfs and s.lfs.sha256] for s in info.siblings}
told["tree"] = [r.path for r in api.list_repo_tree("steer/tiny", recursive=True, expand=True)]
told["exists"] = [api.file_exists("steer/tiny", "more.txt"), api.revision_exists("steer/tiny", told["first"]),
                  api.file_exists("steer/tiny", "less.txt"), api.revision_exists("steer/tiny", "v1")]
told["listed"] = [m.id for m in api.list_models(author="steer", filter="steering")]
api.update_repo_settings("steer/tiny", private=True, gated="manual")
api.move_repo("steer/tiny", "steer/moved")
api.super_squash_history("steer/moved", commit_message="All")
told["squashed"] = [c.title for c in api.list_repo_commits("steer/moved")]
api.create_repo("steer/other", repo_type="dataset", private=True)
api.delete_repo("steer/other", repo_type="dataset")
api.delete_repo("steer/other", repo_type="dataset", missing_ok=True)
told["left"] = [api.repo_exists("steer/other", repo_type="dataset"), api.repo_exists("steer/moved")]
print(json.dumps(told))
"""


def test_a_repository_lives_through_the_client(hub: HubServer, tmp_path: Path) -> None:
    told = run_client(LIFE, hub.environment(tmp_path))
    assert told["url"] == told["again"] == f"{hub.url}/steer/tiny"
    assert told["unchanged"] == told["first"]
    assert [row[:3] for row in told["titles"]] == [
        [told["second"], "Second", ""],
        [told["first"], "First", "of all"],
        [told["titles"][2][0], "initial commit", ""],
    ]
    assert {tuple(row[3]) for row in told["titles"]} == {("steer",)}
    assert told["stale"][0] == 412
    assert "was updated" in told["stale"][1]
    assert told["absent"][0] == 404
    assert told["clash"] == [400, "more.txt is a file, so more.txt/inside cannot be in it"]
    assert told["unknown parent"][0] == 404
    branches = {"refs/heads/exp/one": told["branch"], "refs/heads/main": told["second"]}
    assert told["refs"] == {**branches, "refs/tags/v1": told["first"]}
    assert told["info"] == [told["second"], False, "mit", ["steering", "license:mit"]]
    assert told["exists"] == [True, True, False, False]
    assert told["listed"] == ["steer/tiny"]
    assert told["squashed"] == ["All"]
    assert told["left"] == [False, True]

    # What the client was told is what git and the LFS storage hold.
    repo = hub.repository("steer/moved")
    assert repo.private
    assert repo.gated == "manual"
    files = hub.files("steer/moved")
    attributes = files.pop(".gitattributes").decode()
    weights = b"w" * 5000
    assert files == {
        "README.md": b"---\nlicense: mit\ntags: [steering]\n---\nHello\n",
        **{"copy.safetensors": weights, "weights/w.safetensors": weights},
        **{"empty.bin": b"", "more.txt": b"more", "zeros.dat": bytes(100)},
    }
    large = {path for path, (_, sha256) in told["siblings"].items() if sha256}
    assert large == {"copy.safetensors", "weights/w.safetensors", "zeros.dat"}
    assert told["siblings"]["zeros.dat"] == [100, hashlib.sha256(bytes(100)).hexdigest()]
    assert "\nzeros.dat filter=lfs" in attributes, "git-lfs would not find the file"
    assert told["tree"] == sorted([*files, ".gitattributes", "weights"])
    assert git(repo.git.path, "fsck", "--strict", "--no-dangling") == ""
    pointer = git(repo.git.path, "show", "main:zeros.dat")
    assert pointer == f"version https://git-lfs.github.com/spec/v1\noid sha256:{large_oid(told)}\nsize 100\n"


def large_oid(told: dict[str, Any]) -> str:
    return told["siblings"]["zeros.dat"][1]


def git(folder: Path, *arguments: str) -> str:
    process = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return process.stdout


PULL_REQUESTS = """
import json
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

api, told = HfApi(), {}
def add(path, content, **options):
    options = {"repo_type": "dataset", "commit_message": f"Add {path}", **options}
    return api.create_commit("lab/rows", [CommitOperationAdd(path, content)], **options)

first = add("a.txt", b"a2", create_pr=True, commit_description="Why")
told["number"], told["revision"] = first.pr_num, first.pr_revision
add("large.bin", b"0" * 300, revision=first.pr_revision)
details = api.get_discussion_details("lab/rows", first.pr_num, repo_type="dataset")
told["open"] = [details.status, details.is_pull_request, details.conflicting_files, "+a2" in details.diff]
told["said"] = details.events[0].content
api.comment_discussion("lab/rows", first.pr_num, "Please", repo_type="dataset")
draft = api.create_pull_request("lab/rows", "A draft", repo_type="dataset")
told["draft"] = [draft.num, draft.status, draft.git_reference]
api.rename_discussion("lab/rows", draft.num, "Another name", repo_type="dataset")
api.change_discussion_status("lab/rows", draft.num, "closed", repo_type="dataset")
told["listed"] = [(d.num, d.title, d.status) for d in api.get_repo_discussions("lab/rows", repo_type="dataset")]

def refused(call, *arguments, **options):
    try:
        call(*arguments, repo_type="dataset", **options)
    except HfHubHTTPError as error:
        return error.response.status_code

told["merging another's"] = refused(api.merge_pull_request, "lab/rows", first.pr_num)
told["pushing"] = refused(api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="lab/rows")
owner = HfApi(token="hf_owner")
owner.merge_pull_request("lab/rows", first.pr_num, repo_type="dataset", comment="Thanks")
merged = owner.get_discussion_details("lab/rows", first.pr_num, repo_type="dataset")
told["merged"] = [merged.status, merged.merge_commit_oid]
clash = [add("a.txt", content, create_pr=True).pr_num for content in (b"left", b"right")]
owner.merge_pull_request("lab/rows", clash[0], repo_type="dataset")
conflict = owner.get_discussion_details("lab/rows", clash[1], repo_type="dataset")
told["conflict"] = conflict.conflicting_files
try:
    owner.merge_pull_request("lab/rows", clash[1], repo_type="dataset")
except HfHubHTTPError as error:
    told["clash"] = error.response.status_code
print(json.dumps(told))
"""


def test_pull_requests_of_strangers_are_merged_by_owners(hub: HubServer, tmp_path: Path) -> None:
    hub.add_user("owner", "hf_owner", orgs=("lab",))
    before = hub.upload("lab/rows", "dataset", {"a.txt": b"a1", "b.txt": b"b"})
    told = run_client(PULL_REQUESTS, hub.environment(tmp_path))
    assert (told["number"], told["revision"]) == (1, "refs/pr/1")
    assert told["open"] == ["open", True, [], True]
    assert told["said"] == "Why"
    assert told["draft"] == [2, "draft", "refs/pr/2"]
    assert told["listed"] == [[2, "Another name", "closed"], [1, "Add a.txt", "open"]]
    assert (told["merging another's"], told["pushing"]) == (403, 403)
    assert told["merged"][0] == "merged"
    assert (told["conflict"], told["clash"]) == (["a.txt"], 409)
    assert hub.files("lab/rows", "dataset", told["merged"][1])["a.txt"] == b"a2"
    files = hub.files("lab/rows", "dataset")
    assert (files["a.txt"], files["b.txt"], files["large.bin"]) == (b"left", b"b", b"0" * 300)
    merges = [commit for commit in hub.commits("lab/rows", "dataset") if len(commit.parents) == 2]
    assert [commit.title for commit in merges] == ["Add a.txt (#3)", "Add a.txt (#1)"]
    assert merges[1].message == "Thanks"
    assert merges[1].parents[0] == before


WORKER = """
import base64, json, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

api = HfApi()
for line in sys.stdin:
    asked = json.loads(line)
    api.create_repo(asked["repo"], exist_ok=True)
    operations = [CommitOperationDelete(path) for path in asked["deleted"]]
    operations += [CommitOperationAdd(path, base64.b64decode(text)) for path, text in asked["added"].items()]
    try:
        api.create_commit(asked["repo"], operations, commit_message="Change")
        print("made", flush=True)
    except HfHubHTTPError as error:
        print(error.response.status_code, flush=True)
"""

PATHS = st.sampled_from(["a", "a/b", "a/b/c.txt", "m.bin", "d e/ü.txt", "d e/[x]*.safetensors", "-x", ".hidden/f"])
CONTENTS = st.sampled_from([b"", b"text\n", b"other text\n", b"\0\1", b"\xff\xfe", b"0" * 600])
CHANGES = st.fixed_dictionaries(
    {"added": st.dictionaries(PATHS, CONTENTS, max_size=4), "deleted": st.sets(PATHS, max_size=2)}
)


def clashes(paths: set[str]) -> bool:
    return any(other.startswith(f"{path}/") for path in paths for other in paths)


def test_any_sequence_of_commits_is_the_tree_of_git(hub: HubServer, tmp_path: Path) -> None:
    number = 0
    with worker(hub.environment(tmp_path)) as ask:

        @settings(max_examples=20, deadline=None)
        @given(st.lists(CHANGES, min_size=1, max_size=5))
        def check(commits: list[dict[str, Any]]) -> None:
            nonlocal number
            number += 1
            repo, expected, made = f"steer/r{number}", {}, 1
            for commit in commits:
                deleted = sorted(commit["deleted"] - commit["added"].keys())
                after = {path: content for path, content in expected.items() if path not in deleted} | commit["added"]
                if not set(deleted) <= expected.keys():
                    answer = "404"
                elif clashes(set(after)):
                    answer = "400"
                else:
                    answer = "made"
                    made += after != expected
                    expected = after
                added = {path: base64.b64encode(content).decode() for path, content in commit["added"].items()}
                assert ask({"repo": repo, "deleted": deleted, "added": added}) == answer
                files = hub.files(repo)
                del files[".gitattributes"]
                assert files == expected
                assert len(hub.commits(repo)) == made, "a refused or empty change leaves no commit"
            # All that is there once more, which is nothing new.
            added = {path: base64.b64encode(content).decode() for path, content in expected.items()}
            assert ask({"repo": repo, "deleted": [], "added": added}) == "made"
            assert len(hub.commits(repo)) == made
            assert git(hub.repository(repo).git.path, "fsck", "--strict", "--no-dangling") == ""

        check()


@contextmanager
def worker(env: dict[str, str]) -> Iterator[Callable[[Any], str]]:
    """A client that stays: importing it takes longer than its commits."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(value: Any) -> str:
        process.stdin.write(json.dumps(value) + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait(timeout=30)


RACE = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

api, parent = HfApi(), sys.argv[1] or None
def publish(number):
    try:
        operations = [CommitOperationAdd("a.txt", f"{number}".encode()), CommitOperationAdd(f"{number}.txt", b"1")]
        api.create_commit("steer/race", operations, commit_message=f"{number}", parent_commit=parent)
        return [number, 200]
    except HfHubHTTPError as error:
        return [number, error.response.status_code]

with ThreadPoolExecutor(4) as pool:
    print(json.dumps(list(pool.map(publish, range(4)))))
"""


@pytest.mark.parametrize("guarded", [True, False], ids=["parent_commit", "no parent"])
def test_racing_commits(hub: HubServer, tmp_path: Path, guarded: bool) -> None:
    parent = hub.upload("steer/race", "model", {"a.txt": b"start"})
    together = threading.Barrier(4)
    hub.before("POST", "/commit/", lambda _request: together.wait(30), times=4)
    outcomes = run_client(RACE, hub.environment(tmp_path), parent if guarded else "")
    winners = [number for number, status in outcomes if status == 200]
    assert len(winners) == (1 if guarded else 4)
    assert {status for _, status in outcomes} == ({200, 412} if guarded else {200})
    titles = [int(commit.title) for commit in hub.commits("steer/race")[:-2]]
    assert sorted(titles) == sorted(winners)
    files = hub.files("steer/race")
    assert files["a.txt"] == f"{titles[0]}".encode(), "the last commit's"
    assert {path for path in files if path[0].isdigit()} == {f"{number}.txt" for number in winners}


LARGE = """
import json, sys
from huggingface_hub import CommitOperationAdd, HfApi
content = bytes(range(256)) * 100
operations = [CommitOperationAdd("large.bin", content), CommitOperationAdd("small.bin", b"s")]
oid = HfApi().create_commit("steer/large", operations, commit_message="Large").oid
print(json.dumps(oid))
"""


@pytest.mark.parametrize("way", ["whole", "parts", "xet"])
def test_large_files_by_every_way_of_uploading(hub: HubServer, tmp_path: Path, way: str) -> None:
    hub.upload("steer/large", "model", {"README.md": b"Large"})
    hub.storage.chunk_size = 10_000 if way == "parts" else None
    oid = run_client(LARGE, hub.environment(tmp_path, HF_HUB_DISABLE_XET="0" if way == "xet" else "1"))
    assert hub.head("steer/large") == oid
    files = hub.files("steer/large")
    assert (files["large.bin"], files["small.bin"]) == (bytes(range(256)) * 100, b"s")
    puts = [row for row in hub.requests if row.method == "PUT"]
    assert len(puts) == {"whole": 2, "parts": 4, "xet": 0}[way]
    assert not any("authorization" in row.headers for row in puts), "a signed link needs no token"
    assert any("xet-write-token" in row.path for row in hub.requests) == (way == "xet")


AGAIN = """
import json, sys
from huggingface_hub import CommitOperationAdd, HfApi
operations = [CommitOperationAdd("a.txt", b"new"), CommitOperationAdd("w.bin", b"0" * 900)]
try:
    print(json.dumps(HfApi().create_commit("steer/cut", operations, commit_message="Cut").oid))
except Exception as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.mark.parametrize(("when", "kept"), [("before", False), ("after", True)])
def test_a_connection_that_is_cut_at_the_commit(hub: HubServer, tmp_path: Path, when: str, kept: bool) -> None:
    """What is on the Hub is all or nothing, and the client finds out which by trying again."""
    hub.upload("steer/cut", "model", {"a.txt": b"old"})

    def cut(_request: object) -> None:
        raise Cut

    getattr(hub, when)("POST", "/commit/", cut)
    env = hub.environment(tmp_path)
    assert "Error" in run_client(AGAIN, env)
    assert (hub.files("steer/cut")["a.txt"] == b"new") == kept
    assert ("w.bin" in hub.files("steer/cut")) == kept
    assert run_client(AGAIN, env) == hub.head("steer/cut")
    assert [commit.title for commit in hub.commits("steer/cut")] == ["Cut", "Upload", "initial commit"]
    assert [row.status for row in hub.requests if "/commit/" in row.path] == ([None] if kept else [None, 200])
