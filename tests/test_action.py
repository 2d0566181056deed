"""The GitHub Action, its own steps run as a runner would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from action_runner import (
    ENVIRONMENT,
    PUBLISH,
    ROOT,
    VALIDATE,
    Action,
    Runner,
    commands,
    environment_like_this_one,
    is_valid,
)
from hub_server import HubServer
from sarif_kit.validate import validation_errors
from studies import DATA_REPO, MODEL_REPO, OnDisk, build, claim

from steer_eval import __version__

ACTIONS = pytest.mark.parametrize("action", [VALIDATE, PUBLISH], ids=["validate", "publish"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runner's temporary folder after the install step, run for real."""
    temp = tmp_path_factory.mktemp("runner")
    environment_like_this_one(temp)
    answer = Runner(temp, tmp_path_factory.mktemp("empty")).run("Install steer-eval")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return temp


@pytest.fixture
def runner(installed: Path, tmp_path: Path) -> Runner:
    (installed / "summary.md").unlink(missing_ok=True)
    (tmp_path / "workspace").mkdir()
    return Runner(installed, tmp_path / "workspace")


def broken(folder: Path) -> OnDisk:
    """A study with an error in line 3 of its sweep."""
    place = build(folder)
    place.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(ppl_ratio=9.0))
    return place


@ACTIONS
def test_the_action_is_one_to_github(action: Action) -> None:
    answer = is_valid("actions", action.file)

    assert answer.returncode == 0, answer.stdout + answer.stderr


@ACTIONS
def test_no_input_is_part_of_a_script(action: Action) -> None:
    for step in action.steps.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "pass it through env"


@ACTIONS
def test_other_actions_are_pinned_to_a_major_version(action: Action) -> None:
    used = [step["uses"] for step in action.all_steps if "uses" in step]

    assert len(used) + len(action.steps) == len(action.all_steps)
    assert all(re.fullmatch(r"actions/setup-python@v\d+", each) for each in used)
    assert used, "Python is set up"


def test_both_actions_install_alike() -> None:
    """The script is the same; only the way from the action to the package differs."""
    steps = [action.steps["Install steer-eval"] for action in (VALIDATE, PUBLISH)]

    assert steps[0]["run"] == steps[1]["run"]
    assert {key for key in steps[0]["env"] if steps[0]["env"][key] != steps[1]["env"][key]} == {"ACTION"}


@pytest.mark.parametrize(
    ("system", "index", "first"),
    [
        ("Linux", "https://index", "--no-deps --index-url https://index torch"),
        ("Linux", "", "{action}"),
        ("macOS", "https://index", "{action}"),
    ],
)
def test_only_linux_needs_another_index_for_the_cpu(tmp_path: Path, system: str, index: str, first: str) -> None:
    """The script is run with a Python that writes down what it is asked for."""
    log, python = tmp_path / "log", tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "python").write_text("#!/bin/sh\n", encoding="utf-8")
    python.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n', encoding="utf-8")
    for each in (tmp_path / "python", python):
        each.chmod(0o755)
    variables = {
        "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
        "ACTION": "the-action",
        "ENVIRONMENT": str(tmp_path / "environment"),
        "SYSTEM": system,
        "TORCH_INDEX": index,
    }
    script = VALIDATE.steps["Install steer-eval"]["run"]
    subprocess.run(["bash", "-eo", "pipefail", "-c", script], env=variables, check=True)
    asked = log.read_text(encoding="utf-8").splitlines()

    common = "-m pip install --quiet --constraint the-action/constraints.txt "
    assert asked[0] == common + first.format(action="the-action")
    assert asked[-1] == common + "the-action"
    assert len(asked) == (2 if first.startswith("--no-deps") else 1)


def test_the_readmes_workflow_is_one_to_github_and_uses_the_actions_inputs(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(on:.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "workflow.yml").write_text(block, encoding="utf-8")
    answer = is_valid("workflows", tmp_path / "workflow.yml")
    assert answer.returncode == 0, answer.stdout + answer.stderr

    [job] = yaml.safe_load(block)["jobs"].values()
    [step] = [each for each in job["steps"] if "steer-eval@" in each["uses"]]
    assert step["uses"].endswith(f"@v{__version__}")
    assert step["with"].keys() <= VALIDATE.inputs.keys()


def test_what_is_installed_is_the_actions_own_checkout(installed: Path, tmp_path: Path) -> None:
    program = "import steer_eval; print(steer_eval.__file__)"
    python = installed / ENVIRONMENT / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    answer = subprocess.run([python, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)

    package = Path(answer.stdout.strip()).parent
    assert package.is_relative_to(installed / ENVIRONMENT)
    assert (package / "__init__.py").read_bytes() == (ROOT / "steer_eval" / "__init__.py").read_bytes()


def test_a_good_study_passes(runner: Runner) -> None:
    build(runner.workspace)
    answer = runner.run("Validate", path=MODEL_REPO)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert commands(answer) == []
    assert "no findings; 15 files checked" in answer.stdout
    assert runner.summary.read_text(encoding="utf-8").startswith(f"### steer-eval validate: {MODEL_REPO}\n")


def test_a_broken_study_fails_with_annotations_and_a_summary(runner: Runner) -> None:
    broken(runner.workspace)
    answer = runner.run("Validate", path=MODEL_REPO)

    assert answer.returncode == 1, answer.stdout + answer.stderr
    file = f"{DATA_REPO}/sweep_tiny.jsonl"
    assert any(
        line.startswith(f"::error file={file},line=3,title=steer-eval sweep-arithmetic::") for line in commands(answer)
    )
    assert "| error | " in runner.summary.read_text(encoding="utf-8")
    assert not list(runner.workspace.rglob("*.sarif"))


@pytest.mark.parametrize(("make", "code"), [(build, 0), (broken, 1)], ids=["good", "broken"])
def test_sarif_is_written_where_it_is_asked_for(runner: Runner, make: Any, code: int) -> None:
    make(runner.workspace)
    answer = runner.run("Validate", path=MODEL_REPO, sarif="out/a file.sarif")

    assert answer.returncode == code, answer.stdout + answer.stderr
    log = json.loads((runner.workspace / "out" / "a file.sarif").read_text(encoding="utf-8"))
    assert validation_errors(log) == []
    assert len(log["runs"][0]["results"]) == len(commands(answer))
    assert bool(commands(answer)) == bool(code)


def test_sarif_that_can_not_be_written_is_no_success(runner: Runner) -> None:
    build(runner.workspace)
    (runner.workspace / "taken").mkdir()
    answer = runner.run("Validate", path=MODEL_REPO, sarif="taken")

    assert answer.returncode != 0
    assert "taken" in answer.stderr


@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 1)])
def test_warnings_fail_only_a_strict_check(runner: Runner, strict: str, code: int) -> None:
    place = build(runner.workspace)
    (place.model / "notes.txt").write_text("x", encoding="utf-8")
    answer = runner.run("Validate", path=MODEL_REPO, strict=strict)

    assert answer.returncode == code, answer.stdout + answer.stderr
    assert [line.split("::")[1] for line in commands(answer)] == [
        f"warning file={MODEL_REPO}/notes.txt,title=steer-eval file-unlisted"
    ]


def test_by_default_the_workspace_is_the_study(runner: Runner) -> None:
    place = build(runner.workspace.parent, claims=[claim("nonsense", "1")])
    answer = Runner(runner.temp, place.model).run("Validate")

    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert commands(answer)[0].startswith("::error file=study.yaml,title=steer-eval claim-measure::")


def test_the_dataset_repo_can_be_named(runner: Runner) -> None:
    place = build(runner.workspace)
    place.data.rename(runner.workspace / "texts")

    assert runner.run("Validate", path=MODEL_REPO).returncode == 2
    assert runner.run("Validate", path=MODEL_REPO, data="texts").returncode == 0


@pytest.mark.parametrize("path", ["$(touch pwned)", "`touch pwned`", '"; touch pwned; "', "--help", "a\ntouch pwned"])
def test_an_input_is_never_a_command(runner: Runner, path: str) -> None:
    answer = runner.run("Validate", path=path, sarif=f"{path}.sarif")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert len(commands(answer)) == 1
    assert commands(answer)[0].startswith("::error title=steer-eval::there is no folder ")
    assert list(runner.workspace.iterdir()) == []


class IdentityProvider(BaseHTTPRequestHandler):
    """What mints identity tokens for jobs with `permissions: id-token: write`."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        good = self.headers["Authorization"] == "Bearer of-the-job"
        body = json.dumps({"value": f"identity for {asked['audience'][0]}"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def job(installed: Path, hub: HubServer, tmp_path: Path) -> Iterator[Runner]:
    """A job that may ask for an identity, with a study and its two repos on the Hub."""
    for file in ("summary.md", "output.txt"):
        (installed / file).unlink(missing_ok=True)
    (tmp_path / "workspace").mkdir()
    hub.upload("lab/persona", "model", {"README.md": b"# To come\n"})
    hub.upload("lab/persona-data", "dataset", {"README.md": b"# To come\n"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), IdentityProvider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    github = {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{server.server_port}/token?version=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
    }
    environment = hub.environment(tmp_path / "home", token=None)
    yield Runner(installed, tmp_path / "workspace", PUBLISH, environment, github)
    server.shutdown()
    server.server_close()


def trust(hub: HubServer, *resources: str) -> None:
    for each in resources:
        hub.trust(each, f"identity for {hub.url}")


def test_a_tag_publishes_both_repos_by_trusted_publishing(job: Runner, hub: HubServer) -> None:
    build(job.workspace)
    trust(hub, "lab/persona", "datasets/lab/persona-data")
    answer = job.run("Publish", path=MODEL_REPO, to="lab/persona", tag="v1")
    assert answer.returncode == 0, answer.stdout + answer.stderr

    model, data = hub.head("lab/persona"), hub.head("lab/persona-data", "dataset")
    assert hub.head("lab/persona", "model", "v1") == model
    assert hub.head("lab/persona-data", "dataset", "v1") == data
    assert json.loads(hub.files("lab/persona")["config.json"])["data_revision"] == data
    outputs = dict(line.split("=") for line in job.output.read_text(encoding="utf-8").splitlines())
    assert outputs == {"model-commit": model, "data-commit": data}
    assert f"| model lab/persona | {model} |" in job.summary.read_text(encoding="utf-8")
    # One token for each repo, and no other.
    asked = [request for request in hub.requests if request.path == "/oauth/token"]
    assert len(asked) >= 2

    again = job.run("Publish", path=MODEL_REPO, to="lab/persona", tag="v1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "The Hub has all of it." in again.stdout
    assert (hub.head("lab/persona"), hub.head("lab/persona-data", "dataset")) == (model, data)


def test_a_repo_that_does_not_trust_the_workflow_is_not_published(job: Runner, hub: HubServer) -> None:
    build(job.workspace)
    trust(hub, "lab/persona")
    before = hub.head("lab/persona"), hub.head("lab/persona-data", "dataset")
    answer = job.run("Publish", path=MODEL_REPO, to="lab/persona")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "lab/persona-data" in answer.stderr
    assert (hub.head("lab/persona"), hub.head("lab/persona-data", "dataset")) == before


def test_a_job_without_the_permission_is_told_of_it(job: Runner, hub: HubServer) -> None:
    build(job.workspace)
    bare = replace(job, github={"GITHUB_ACTIONS": "true"})
    answer = bare.run("Publish", path=MODEL_REPO, to="lab/persona")

    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "id-token: write" in answer.stderr


def test_a_broken_study_is_annotated_and_not_published(job: Runner, hub: HubServer) -> None:
    broken(job.workspace)
    trust(hub, "lab/persona", "datasets/lab/persona-data")
    before = hub.head("lab/persona")
    answer = job.run("Publish", path=MODEL_REPO, to="lab/persona")

    assert answer.returncode == 1, answer.stdout + answer.stderr
    file = f"{DATA_REPO}/sweep_tiny.jsonl"
    assert any(line.startswith(f"::error file={file},line=3,") for line in commands(answer))
    assert "Nothing was pushed" in job.summary.read_text(encoding="utf-8")
    assert not job.output.exists() or job.output.read_text(encoding="utf-8") == ""
    assert hub.head("lab/persona") == before


def test_a_token_and_options_one_a_line(job: Runner, hub: HubServer) -> None:
    place = build(job.workspace)
    (place.model / "my notes").mkdir()
    (place.model / "my notes" / "a.xyz").write_text("x", encoding="utf-8")
    bare = replace(job, github={"GITHUB_ACTIONS": "true"})
    options = "--exclude=my notes/*\n\n--private\n--message=Say $(touch pwned); `touch pwned`"
    inputs = {"path": MODEL_REPO, "to": "steer/new", "data_to": "steer/new-texts", "options": options}
    answer = bare.run("Publish", **inputs, token=hub.token)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert hub.repository("steer/new").private
    assert "my notes/a.xyz" not in hub.files("steer/new")
    [first, *_] = hub.commits("steer/new-texts", "dataset")
    assert "$(touch pwned)" in first.title
    assert not list(job.workspace.rglob("pwned"))
    assert hub.token not in answer.stdout + answer.stderr
