"""The Hub of the tests: who may do what, jobs, collections and buckets, by the client's own calls and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_fixtures import run_client
from hub_server import HubServer, Job

ERRORS = """
import json
from huggingface_hub import CommitOperationAdd, HfApi, errors, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

def tried(call, *arguments, **options):
    try:
        call(*arguments, **options)
        return "done"
    except HfHubHTTPError as error:
        return f"{type(error).__name__} {error.response.status_code}"
    except errors.LocalTokenNotFoundError as error:
        return type(error).__name__

api, told = HfApi(), {}
for repo in ("steer/open", "steer/closed", "steer/gated", "steer/absent"):
    told[repo] = {
        "info": tried(api.model_info, repo),
        "revision": tried(api.model_info, repo, revision="nowhere"),
        "tree": tried(lambda: list(api.list_repo_tree(repo))),
        "file": tried(hf_hub_download, repo, "a.txt"),
        "absent file": tried(hf_hub_download, repo, "b.txt"),
        "large file": tried(hf_hub_download, repo, "w.bin"),
        "read check": tried(api.auth_check, repo),
        "write check": tried(api.auth_check, repo, write=True),
        "commit": tried(api.create_commit, repo, [CommitOperationAdd("c", b"c")], commit_message="C"),
        "proposal": tried(api.create_commit, repo, [CommitOperationAdd("c", b"c")], commit_message="C", create_pr=True),
        "tag": tried(api.create_tag, repo, tag="mine"),
        "delete": tried(api.delete_repo, repo) if repo != "steer/open" else "",
    }
told["new"] = tried(api.create_repo, "steer/new")
told["listed"] = []
told["listing"] = tried(lambda: told["listed"].extend(model.id for model in api.list_models()))
told["who"] = tried(api.whoami)
print(json.dumps(told))
"""
OPEN = {"info": "done", "revision": "RevisionNotFoundError 404", "tree": "done", "file": "done"}
OPEN |= {"absent file": "RemoteEntryNotFoundError 404", "large file": "done", "read check": "done"}
NAMES = ("info", "revision", "tree", "file", "absent file", "large file", "read check")
WRITES = ("write check", "commit", "proposal", "tag", "delete")


def everywhere(error: str, names: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(names, error)


@pytest.fixture
def repos(hub: HubServer) -> HubServer:
    for name in ("open", "closed", "gated"):
        hub.upload(f"steer/{name}", "model", {"a.txt": b"a", "w.bin": b"w"})
    hub.set_private("steer/closed")
    hub.set_gated("steer/gated")
    return hub


def test_nobody(repos: HubServer, tmp_path: Path) -> None:
    told = run_client(ERRORS, repos.environment(tmp_path, token=None))
    missing = "RepositoryNotFoundError 401"
    assert told["steer/absent"] == told["steer/closed"] == everywhere(missing, NAMES + WRITES)
    read = {name: told["steer/open"][name] for name in NAMES}
    assert read == OPEN
    gated = everywhere("GatedRepoError 401", ("file", "absent file", "large file", "read check", "proposal"))
    assert told["steer/gated"] == {
        **OPEN,
        **gated,
        **everywhere(missing, ("write check", "commit", "tag", "delete")),
    }
    assert (told["new"], told["who"]) == ("HfHubHTTPError 401", "LocalTokenNotFoundError")
    assert told["listed"] == ["steer/gated", "steer/open"]


def test_a_stranger(repos: HubServer, tmp_path: Path) -> None:
    told = run_client(ERRORS, repos.environment(tmp_path, token=repos.add_user("eve")))
    assert told["steer/absent"] == told["steer/closed"] == everywhere("RepositoryNotFoundError 404", NAMES + WRITES)
    forbidden = everywhere("HfHubHTTPError 403", ("write check", "commit", "tag"))
    assert told["steer/open"] == {**OPEN, **forbidden, "proposal": "done", "delete": ""}
    gated = everywhere("GatedRepoError 403", ("file", "absent file", "large file", "read check", "proposal"))
    assert told["steer/gated"] == {**OPEN, **gated, **forbidden, "delete": "HfHubHTTPError 403"}
    assert told["new"] == "HfHubHTTPError 403"

    repos.grant("steer/gated", "model", "eve")
    told = run_client(ERRORS, repos.environment(tmp_path, token=repos.add_user("eve")))
    assert {name: told["steer/gated"][name] for name in NAMES} == OPEN
    assert repos.head("steer/gated") == repos.commits("steer/gated")[0].oid
    assert [commit.title for commit in repos.commits("steer/open")] == ["Upload", "initial commit"]


def test_a_token_that_only_reads(repos: HubServer, tmp_path: Path) -> None:
    token = repos.add_user("steer", role="read")
    told = run_client(ERRORS, repos.environment(tmp_path, token=token))
    for repo in ("steer/open", "steer/closed", "steer/gated"):
        forbidden = everywhere("HfHubHTTPError 403", WRITES)
        assert told[repo] == {**OPEN, **forbidden, **({"delete": ""} if repo == "steer/open" else {})}
    assert told["steer/absent"] == everywhere("RepositoryNotFoundError 404", NAMES + WRITES)


def test_a_wrong_token(repos: HubServer, tmp_path: Path) -> None:
    told = run_client(ERRORS, repos.environment(tmp_path, token="hf_wrong"))  # noqa: S106
    assert set(told["steer/open"].values()) == {"HfHubHTTPError 401", ""}
    assert told["who"] == told["listing"] == told["new"] == "HfHubHTTPError 401"


PUBLISHER = """
import json
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OIDCError

def tried(call, *arguments, **options):
    try:
        call(*arguments, **options)
        return "done"
    except (HfHubHTTPError, OIDCError) as error:
        return f"{type(error).__name__} {error.response.status_code}" if hasattr(error, "response") else "OIDCError"

api = HfApi()
file = {"path_or_fileobj": b"new", "path_in_repo": "a.txt"}
print(json.dumps([
    tried(api.upload_file, repo_id="steer/data", repo_type="dataset", **file),
    tried(api.upload_file, repo_id="steer/open", **file),
    tried(api.create_repo, "steer/data", repo_type="dataset", exist_ok=True),
    tried(api.create_repo, "steer/new"),
]))
"""


def test_trusted_publishing(repos: HubServer, tmp_path: Path) -> None:
    """An identity of the CI service becomes a token for the one repository that trusts it."""
    repos.upload("steer/data", "dataset", {"a.txt": b"old"})
    repos.trust("datasets/steer/data", "id-of-the-workflow")
    names = {"HF_OIDC_RESOURCE": "datasets/steer/data", "HF_OIDC_ID_TOKEN": "id-of-the-workflow"}
    told = run_client(PUBLISHER, repos.environment(tmp_path, token=None, **names))
    assert told == ["done", "HfHubHTTPError 403", "done", "HfHubHTTPError 401"]
    assert repos.files("steer/data", "dataset")["a.txt"] == b"new"
    assert repos.files("steer/open")["a.txt"] == b"a"
    names["HF_OIDC_ID_TOKEN"] = "id-of-another"  # noqa: S105
    told = run_client(PUBLISHER, repos.environment(tmp_path, token=None, **names))
    assert told[0] == "HfHubHTTPError 403"


COLLECTION = """
import json
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

api, told = HfApi(), {}
made = api.create_collection("Steering of SmolLM2", description="All of them")
again = api.create_collection("Steering of SmolLM2", exists_ok=True)
told["same"] = made.slug == again.slug
api.add_collection_item(made.slug, "steer/open", "model", note="The first")
api.add_collection_item(made.slug, "steer/open", "model", exists_ok=True)
api.add_collection_item(made.slug, "steer/data", "dataset")
try:
    api.add_collection_item(made.slug, "steer/absent", "model")
except HfHubHTTPError as error:
    told["absent"] = error.response.status_code
found = api.get_collection(made.slug)
told["items"] = [(item.item_type, item.item_id, item.note) for item in found.items]
told["listed"] = [collection.title for collection in api.list_collections(owner="steer")]
api.delete_collection_item(made.slug, found.items[0].item_object_id)
told["left"] = [item.item_id for item in api.get_collection(made.slug).items]
api.delete_collection(made.slug)
api.delete_collection(made.slug, missing_ok=True)
print(json.dumps(told))
"""


def test_collections(repos: HubServer, tmp_path: Path) -> None:
    repos.upload("steer/data", "dataset", {"a.txt": b"a"})
    assert run_client(COLLECTION, repos.environment(tmp_path)) == {
        **{"same": True, "absent": 404, "listed": ["Steering of SmolLM2"], "left": ["steer/data"]},
        "items": [["model", "steer/open", "The first"], ["dataset", "steer/data", None]],
    }
    assert repos.collections == {}


JOB = """
import json
from huggingface_hub import HfApi, JobStage, Volume
from huggingface_hub.errors import JobNotFoundError

api, told = HfApi(), {}
open("script.py", "w").write("print('hello')")
volume = Volume(type="model", source="steer/open", mount_path="/model", revision="main", read_only=True)
job = api.run_uv_job("script.py", script_args=["--level", "recompute"], dependencies=["steer-eval"],
                     flavor="cpu-upgrade", secrets={"HF_TOKEN": "hf_secret"}, labels={"kind": "reproduce"},
                     volumes=[volume], timeout="2h")
told["first"] = [str(job.status.stage), job.flavor, job.secrets]
told["logs"] = list(api.fetch_job_logs(job_id=job.id, follow=True))
told["ended"] = api.wait_for_job(job.id).status.stage
told["listed"] = [found.id == job.id for found in api.list_jobs(labels={"kind": "reproduce"}, status="COMPLETED")]
told["flavors"] = [hardware.name for hardware in api.list_jobs_hardware()]
other = api.run_job(image="python:3.12", command=["python", "-c", "wait"])
api.cancel_job(job_id=other.id)
told["cancelled"] = api.inspect_job(job_id=other.id).status.stage
try:
    api.inspect_job(job_id="0" * 24)
except JobNotFoundError:
    told["absent"] = True
print(json.dumps(told))
"""


def test_jobs_are_recorded_and_do_what_the_test_says(repos: HubServer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def work(job: Job) -> str:
        if "wait" in job.spec["command"]:
            with job.changed:
                job.changed.wait_for(lambda: job.stage == "CANCELED", timeout=30)
            return job.stage
        job.print("reading")
        job.print("equal")
        return "COMPLETED"

    repos.job_runner = work
    told = run_client(JOB, repos.environment(tmp_path / "home"))
    assert told["first"][1:] == ["cpu-upgrade", {"HF_TOKEN": "***"}]
    assert told["logs"] == ["reading", "equal"]
    assert (told["ended"], told["cancelled"], told["absent"]) == ("COMPLETED", "CANCELED", True)
    assert told["listed"] == [True]
    assert "cpu-basic" in told["flavors"]

    # What was submitted, as the client itself made it; the script went to a bucket, by Xet.
    spec = repos.jobs[0].spec
    assert spec["command"] == ["uv", "run", "--with", "steer-eval", "/data/script.py", "--level", "recompute"]
    assert spec["secrets"] == {"HF_TOKEN": "hf_secret"}
    assert spec["timeoutSeconds"] == 7200
    model, scripts = spec["volumes"]
    assert (model["source"], model["revision"], model["readOnly"]) == ("steer/open", "main", True)
    assert (scripts["type"], scripts["source"]) == ("bucket", "steer/jobs-artifacts")
    bucket = repos.buckets["steer/jobs-artifacts"]
    assert bucket.private
    assert bucket.files == {f"{scripts['path']}/script.py": b"print('hello')"}


NO_RUNNER = """
import json
from huggingface_hub import HfApi
job = HfApi().run_job(image="python:3.12", command=["true"])
print(json.dumps([job.status.stage, job.status.message, list(HfApi().fetch_job_logs(job_id=job.id))]))
"""


def test_without_a_runner_nothing_claims_to_have_run(hub: HubServer, tmp_path: Path) -> None:
    assert run_client(NO_RUNNER, hub.environment(tmp_path)) == ["ERROR", "the test server runs no jobs", []]
