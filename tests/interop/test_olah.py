"""olah, a server of Hub repositories that others wrote: clients get from it what they get from the Hub of the tests.

It serves the same two repositories twice: from a clone of them, with the LFS objects where git-lfs puts them; and as a
mirror of our server, whose answers it must then understand itself.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_fixtures import run_client
from hub_server import HubServer
from safetensors.torch import save_file

KINDS = {"model": "models", "dataset": "datasets"}
CARD = b"---\nlicense: mit\nconfigs:\n- config_name: rows\n  data_files: rows.jsonl\n---\nText\n"
ELSEWHERE = ["RepositoryNotFoundError", 401]
LIMITS = {
    "mirror": {},
    # What its clone does not have, olah asks its upstream for, and there is none. It does so too for what a repository
    # is like if no revision is named, as HfFileSystem asks. It names authors of commits by a key that no client reads.
    "clone": {
        **dict.fromkeys(("info", "absent file", "absent folder", "absent revision"), ELSEWHERE),
        **{"slice": ["FileNotFoundError", None], "history": ["KeyError", None]},
    },
}
"""In what olah's answers are others than ours."""

CLIENT = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, get_hf_file_metadata, hf_hub_url, snapshot_download

api, kind, first, told = HfApi(), sys.argv[1], sys.argv[2], {}
name = {"repo_id": "steer/repo", "repo_type": kind}

def asked(what):
    def tell(question):
        try:
            told[what] = question()
        except Exception as error:
            told[what] = [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]
    return tell

for revision in ("main", "v1", first):
    @asked(f"snapshot of {revision}")
    def _():
        folder = Path(snapshot_download(**name, revision=revision))
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        told_of = lambda p: [hashlib.sha256(p.read_bytes()).hexdigest(), p.resolve().name]
        return [folder.name, {path: told_of(p) for path, p in files.items()}]

for what, options in (("info", {}), ("info of main", {"revision": "main"})):
    @asked(what)
    def _():
        info = api.repo_info(**name, **options)
        return [info.id, info.sha, info.card_data.license, sorted(s.rfilename for s in info.siblings)]

@asked("tree")
def _():
    rows = [row for row in api.list_repo_tree(**name, recursive=True) if hasattr(row, "size")]
    return {r.path: [r.blob_id, r.size, r.lfs and [r.lfs.sha256, r.lfs.size, r.lfs.pointer_size]] for r in rows}

@asked("folder")
def _():
    return sorted(row.path for row in api.list_repo_tree(**name, path_in_repo="deep"))

@asked("absent folder")
def _():
    return list(api.list_repo_tree(**name, path_in_repo="nowhere"))

@asked("paths")
def _():
    return sorted(row.path for row in api.get_paths_info(**name, paths=["README.md", "deep", "absent"]))

@asked("history")
def _():
    return [commit.commit_id for commit in api.list_repo_commits(**name)]

@asked("refs")
def _():
    refs = api.list_repo_refs(**name)
    return {ref.ref: ref.target_commit for ref in refs.branches + refs.tags}

for path in ("README.md", "deep/w.safetensors"):
    @asked(path)
    def _():
        found = get_hf_file_metadata(hf_hub_url(**name, filename=path, endpoint=api.endpoint))
        return [found.commit_hash, found.etag, found.size]

@asked("safetensors header")
def _():
    header = api.parse_safetensors_file_metadata(**name, filename="deep/w.safetensors")
    return {key: [tensor.dtype, tensor.shape] for key, tensor in header.tensors.items()}

@asked("slice")
def _():
    prefix = "datasets/steer/repo" if kind == "dataset" else "steer/repo"
    with HfFileSystem().open(f"{prefix}/deep/w.safetensors", "rb", block_size=512) as file:
        file.seek(1000)
        return file.read(20).hex()

@asked("checksums")
def _():
    verified = api.verify_repo_checksums(**name)
    return [verified.checked_count, verified.mismatches, verified.missing_paths]

for what, filename, revision in (("absent file", "absent", "main"), ("absent revision", "README.md", "nowhere")):
    asked(what)(lambda: api.hf_hub_download(**name, filename=filename, revision=revision))

print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("olah")
    weights = {"w": torch.randn(40, 50, generator=torch.Generator().manual_seed(3))}
    save_file(weights, folder / "w.safetensors")
    first = {
        "README.md": CARD,
        "deep/w.safetensors": (folder / "w.safetensors").read_bytes(),
        "rows.jsonl": b'{"a": 1}\n',
    }
    with HubServer(folder / "hub") as server:
        for kind in KINDS:
            tagged = server.upload("steer/repo", kind, first, message="First")
            server.repository("steer/repo", kind).git.move("refs/tags/v1", tagged, "0" * 40)
            second = {"rows.jsonl": b'{"a": 2}\n', "deep/sub/ü b.txt": "ü".encode()}
            server.upload("steer/repo", kind, second, message="Second")
        yield server


@contextmanager
def olah(folder: Path, configuration: str) -> Iterator[str]:
    """olah's address while it runs in its own virtual environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    basic = f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{folder}/cache"\n'
    (folder / "olah.toml").write_text(basic + configuration)
    program = Path(os.environ["STEER_EVAL_INTEROP"]).resolve() / "olah" / "bin" / "olah-cli"
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH" and "proxy" not in name.lower()
    }
    with (folder / "olah.log").open("wb") as log:
        command = [program, "--config", "olah.toml", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            if process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    yield f"http://127.0.0.1:{port}"
                    return
            time.sleep(0.1)
        pytest.fail((folder / "olah.log").read_text()[-4000:])
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module", params=["clone", "mirror"])
def theirs(
    request: pytest.FixtureRequest, hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "mirror":
        netloc = hub.url.removeprefix("http://")
        rules = "".join(f'[[accessibility.{what}]]\nrepo = "**"\nallow = true\n' for what in ("proxy", "cache"))
        with olah(folder, f'hf-scheme = "http"\nhf-netloc = "{netloc}"\nhf-lfs-netloc = "{netloc}"\n{rules}') as url:
            yield request.param, url
        return
    for kind, plural in KINDS.items():
        repo = hub.repository("steer/repo", kind)
        target = folder / "repos" / plural / "steer" / "repo"
        subprocess.run(["git", "clone", "--quiet", f"{hub.url}/{repo.prefix}", target], check=True)
        shutil.copytree(repo.lfs.folder, target / ".git" / "lfs" / "objects")
    with olah(folder, f'mirrors-path = ["{folder}/repos"]\n[accessibility]\noffline = true\n') as url:
        yield request.param, url


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_gets_the_same_from_both(hub: HubServer, theirs: tuple[str, str], tmp_path: Path, kind: str) -> None:
    mode, address = theirs
    first = hub.commits("steer/repo", kind)[1].oid
    answers: dict[str, dict[str, Any]] = {}
    for name, url in (("ours", hub.url), ("olah", address)):
        answers[name] = run_client(CLIENT, hub.environment(tmp_path / name, HF_ENDPOINT=url), kind, first)
    ours, olahs = answers["ours"], answers["olah"]
    assert ours["refs"] == {"refs/heads/main": hub.head("steer/repo", kind), "refs/tags/v1": first}
    assert ours["absent file"] == ["RemoteEntryNotFoundError", 404]
    different = {what: answer for what, answer in olahs.items() if answer != ours[what]}
    assert different == LIMITS[mode]


@pytest.mark.parametrize("path", ["README.md", "deep/w.safetensors", "deep/sub/%C3%BC%20b.txt"])
def test_headers(hub: HubServer, theirs: tuple[str, str], path: str) -> None:
    """What the client reads of an answer to HEAD, whether the file comes from there or from another host."""
    address = f"/steer/repo/resolve/main/{path}"
    ours, olahs = (head(url, address) for url in (hub.url, theirs[1]))
    assert ours == olahs
    assert ours["commit"] == hub.head("steer/repo")


def head(url: str, address: str) -> dict[str, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("HEAD", address)
    headers = connection.getresponse().headers
    connection.close()
    etag = headers.get("X-Linked-Etag") or headers["ETag"]
    size = headers.get("X-Linked-Size") or headers["Content-Length"]
    return {"commit": headers["X-Repo-Commit"], "etag": etag.strip('"'), "size": size}
