"""Jobs written, submitted, run and followed against a Hub, each step by the real client in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import in_one_process
from hub_fixtures import cli_command, run_cli
from hub_server import HubServer
from hub_server.routes_jobs import Job
from studies import OnDisk, build, claim
from tiny_study import Folders, invoke

from steer_eval.formats import schema
from steer_eval.jobs.job import COMMAND, SCRIPT
from steer_eval.jobs.worker import LAST_LINE

CLAIMS = [
    claim("perplexity_ratio", "1.50", identity="ratio", layer=1, coef=2),
    claim("collapsed", False, identity="collapse", layer=1, coef=2),
]
ON = ("--on", "hf-jobs", "--level", "recompute", "--package", "steer-eval==0.1.0")


@pytest.fixture
def study(hub: HubServer, tmp_path: Path) -> OnDisk:
    place = build(tmp_path / "repos", claims=CLAIMS)
    hub.upload("lab/persona", "model", place.model)
    hub.upload("lab/persona-data", "dataset", place.data)
    return place


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def runner(hub: HubServer, place: Path) -> Any:
    """What a machine does with a job: the script of the request, with its variables and secrets.

    The requirements are those of the tests' own interpreter, so that uv has nothing to do here.
    """

    def run(job: Job) -> str:
        assert job.spec["command"] == ["uv", "run", *COMMAND]
        place.mkdir(exist_ok=True)
        # A machine of a job has neither the user's folders nor the user's other variables.
        environment = hub.environment(place / "home", token=None, JOB_ID=job.id, **job.spec["secrets"])
        script = job.spec["environment"][SCRIPT]
        process = subprocess.Popen(
            [sys.executable, "-"],
            cwd=place,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = process.communicate(script, timeout=120)
        for line in output.splitlines():
            job.print(line)
        return "COMPLETED" if process.returncode == 0 else "ERROR"

    return run


def test_a_printed_job_pins_every_input(hub: HubServer, study: OnDisk, home: Path) -> None:
    base = hub.upload("lab/tiny-base", "model", {"config.json": b"{}"})
    command = ("reproduce", "lab/persona", *ON, "--print-job")
    for_people, printed, again = in_one_process(
        hub.environment(home), command, (*command, "--json"), (*command, "--json", "--level", "rerun")
    )
    job, rerun = json.loads(printed.stdout), json.loads(again.stdout)
    for each in (job, rerun):
        schema.check(each, "job", file="job")

    commits = [f"lab/persona@{hub.head('lab/persona')}", f"lab/persona-data@{hub.head('lab/persona-data', 'dataset')}"]
    assert job["settings"] == {
        "study": commits[0],
        "name": "persona",
        "arguments": ["reproduce", commits[0], "--data", commits[1], "--level", "recompute"],
        "weights": [],
        "packages": [],
        "results": {"repo": "steer/persona-reproductions", "private": False},
    }
    assert rerun["settings"]["weights"] == [
        {"model": "tiny", "id": "lab/tiny-base", "revision": "main", "commit": base}
    ]
    assert for_people.stdout.endswith("\n\n" + job["script"])
    assert "POST /api/jobs/steer" in for_people.stdout
    assert hub.token not in for_people.stdout + printed.stdout
    assert not hub.jobs


def test_what_is_printed_is_what_the_client_sends(hub: HubServer, study: OnDisk, home: Path) -> None:
    hub.job_runner = lambda _job: "ERROR"
    command = ("reproduce", "lab/persona", *ON, "--flavor", "t4-small", "--max-minutes", "10")
    printed, submitted = in_one_process(hub.environment(home), (*command, "--print-job", "--json"), command)

    [job] = hub.jobs
    sent = {**job.spec, "secrets": dict.fromkeys(job.spec["secrets"], "***")}
    assert sent == json.loads(printed.stdout)["payload"]
    assert (sent["flavor"], sent["timeoutSeconds"]) == ("t4-small", 2400)
    assert job.spec["secrets"] == {"HF_TOKEN": hub.token}
    assert hub.token not in json.dumps({**job.spec, "secrets": {}})
    assert hub.token not in submitted.stdout + submitted.stderr
    assert submitted.code == 2
    assert "ended as ERROR" in submitted.stderr


def test_a_job_opens_a_pull_request_with_its_run(hub: HubServer, study: OnDisk, home: Path, tmp_path: Path) -> None:
    hub.job_runner = runner(hub, tmp_path / "machine")
    answer = run_cli("reproduce", "lab/persona", *ON, "--json", env=hub.environment(home))
    assert answer.returncode == 0, answer.stderr

    document = json.loads(answer.stdout)
    schema.check(document, "job", file="job")
    submitted = document["submitted"]
    assert submitted["stage"] == "COMPLETED"
    assert submitted["exit_code"] == 0
    number = re.fullmatch(
        rf"{hub.url}/datasets/steer/persona-reproductions/discussions/(\d+)", submitted["pull_request"]
    )
    assert number is not None
    offered = hub.files("steer/persona-reproductions", "dataset", f"refs/pr/{number[1]}")
    [report] = [content for path, content in offered.items() if path.endswith("/report.json")]
    verdicts = {each["id"]: each["verdict"] for each in json.loads(report)["verdicts"]}
    assert verdicts == {"ratio": "reproduced", "collapse": "reproduced"}
    [record] = [json.loads(content) for path, content in offered.items() if path.endswith("/job.json")]
    assert record["study"] == f"lab/persona@{hub.head('lab/persona')}"
    assert record["job"] == submitted["id"]
    # Only the pull request has it.
    assert not [path for path in hub.files("steer/persona-reproductions", "dataset") if path.endswith("report.json")]
    assert hub.token.encode() not in b"".join(offered.values())
    assert "claims" in answer.stderr


def test_the_exit_code_is_the_one_that_the_log_ends_with(hub: HubServer, study: OnDisk, home: Path) -> None:
    def work(job: Job) -> str:
        job.print("\x1b[31m3 claims: 1 contradicted, 2 reproduced")
        job.print(LAST_LINE + json.dumps({"exit_code": 1, "pull_request": "https://hub/1"}))
        return "COMPLETED"

    hub.job_runner = work
    answer = run_cli("reproduce", "lab/persona", *ON, env=hub.environment(home))

    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.endswith("\nresults: https://hub/1\n")
    assert "\x1b" not in answer.stderr


def test_a_base_model_that_moved_stops_the_job(hub: HubServer, study: OnDisk, home: Path, tmp_path: Path) -> None:
    hub.upload("lab/tiny-base", "model", {"config.json": b"{}"})
    run = runner(hub, tmp_path / "machine")

    def later(job: Job) -> str:
        hub.upload("lab/tiny-base", "model", {"config.json": b"{ }"})
        return str(run(job))

    hub.job_runner = later
    answer = run_cli("reproduce", "lab/persona", *ON, "--level", "rerun", env=hub.environment(home))

    assert answer.returncode == 2
    assert "the job was written for" in answer.stderr
    assert "ended as ERROR" in answer.stderr
    assert hub.head("steer/persona-reproductions", "dataset") is None


def test_a_job_runs_the_models_again(hub: HubServer, folders: Folders, home: Path, tmp_path: Path) -> None:
    study = folders.model / "study.yaml"
    document = yaml.safe_load(study.read_text(encoding="utf-8"))
    document["models"]["tiny"]["source"] = {"hub": {"id": "lab/tiny-base", "revision": "main"}}
    study.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    assert invoke("card", str(folders.model)).exit_code == 0
    hub.upload("lab/tiny-base", "model", folders.model.parent / "base")
    hub.upload("steer/tiny", "model", folders.model)
    hub.set_private("steer/tiny")
    hub.upload("lab/tiny-data", "dataset", folders.data)
    hub.job_runner = runner(hub, tmp_path / "machine")
    answer = run_cli("reproduce", "steer/tiny", *ON, "--level", "rerun", "--json", env=hub.environment(home))
    submitted = json.loads(answer.stdout)["submitted"]
    assert submitted["stage"] == "COMPLETED", answer.stderr

    # A private study has private results.
    assert hub.repository("steer/tiny-reproductions", "dataset").private
    number = submitted["pull_request"].rpartition("/")[2]
    offered = hub.files("steer/tiny-reproductions", "dataset", f"refs/pr/{number}")
    [report] = [json.loads(content) for path, content in offered.items() if path.endswith("/report.json")]
    assert {each["verdict"] for each in report["verdicts"]} == {"reproduced"}
    rerun = [check for each in report["verdicts"] for check in each["checks"] if check["evidence"] == "re-run"]
    assert len(rerun) > 5
    assert all(check["observed"] is not None for check in rerun)
    assert report["run"]["folder"] == "run"
    assert any(path.endswith("/sweep_tiny.jsonl") for path in offered)


def test_ctrl_c_leaves_the_job_running(hub: HubServer, study: OnDisk, home: Path) -> None:
    started = []

    def slow(job: Job) -> str:
        job.print("at work")
        started.append(job)
        with job.changed:
            job.changed.wait_for(lambda: job.stage != "RUNNING", timeout=60)
        return "COMPLETED"

    hub.job_runner = slow
    process = subprocess.Popen(
        cli_command("reproduce", "lab/persona", *ON), env=hub.environment(home), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while "at work" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=30)[1]
    [job] = started

    assert process.returncode == 130, said
    assert job.stage == "RUNNING"
    assert f"hf jobs logs -f steer/{job.id}" in said
    assert f"hf jobs cancel steer/{job.id}" in said
    job.become("CANCELED")


def test_what_can_not_be_a_job_is_refused(hub: HubServer, study: OnDisk, home: Path) -> None:
    refused = {
        "installed here from a folder": ("lab/persona", *ON[:-2]),
        "a job has no file mine.yaml": ("lab/persona", *ON, "--study", "mine.yaml"),
        "no name of a dataset repo": ("lab/persona", *ON, "--results", "nowhere"),
        "no requirement on steer-eval": ("lab/persona", *ON[:-1], "numpy==2"),
        "--print-job is for --on hf-jobs": ("lab/persona", "--print-job"),
        "--run is for runs on this machine": ("lab/persona", *ON, "--run", "here"),
        "no model repo lab/absent": ("lab/absent", *ON),
        "publish it first": (str(study.model), *ON),
    }
    answers = in_one_process(hub.environment(home), *(("reproduce", *each) for each in refused.values()))

    for said, answer in zip(refused, answers, strict=True):
        assert answer.code == 2, answer
        assert said in answer.stderr
    assert not hub.jobs


def test_without_a_token_a_job_can_only_be_printed(hub: HubServer, study: OnDisk, home: Path) -> None:
    names = ("--namespace", "me", "--results", "me/results")
    unnamed, printed, submitted = in_one_process(
        hub.environment(home, token=None),
        ("reproduce", "lab/persona", *ON, "--print-job"),
        ("reproduce", "lab/persona", *ON, *names, "--print-job", "--json"),
        ("reproduce", "lab/persona", *ON, *names),
    )

    assert unnamed.code == submitted.code == 2
    assert "nobody is logged in" in unnamed.stderr
    assert "a job needs a token" in submitted.stderr
    assert printed.code == 0, printed.stderr
    assert json.loads(printed.stdout)["settings"]["results"]["repo"] == "me/results"


def test_a_hub_that_takes_no_jobs_says_why(hub: HubServer, study: OnDisk, home: Path) -> None:
    hub.refuse("POST", "/api/jobs/", 402, "Payment required: add credits")
    command = ("reproduce", "lab/persona", *ON)
    [paid] = in_one_process(hub.environment(home), command)
    [unknown] = in_one_process({**hub.environment(home), "HF_TOKEN": "hf_revoked"}, command)

    assert paid.code == unknown.code == 2
    assert "the Hub does not take the job: Payment required: add credits" in paid.stderr
    assert "hf auth" in unknown.stderr
    assert "hf_revoked" not in unknown.stderr


def test_uv_runs_the_command_of_a_job(tmp_path: Path) -> None:
    """The real uv takes a script from its standard input, and reads what it requires."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    uv = shutil.which("uv", path=path)
    if uv is None:
        pytest.skip("there is no uv here: python -m pip install uv")
    environment = {
        "PATH": path,
        "HOME": str(tmp_path),
        "UV_OFFLINE": "1",
        "UV_PYTHON": sys.executable,
        SCRIPT: "# /// script\n# dependencies = []\n# ///\nimport sys\nprint('ran')\nsys.exit(3)\n",
    }
    answer = subprocess.run([uv, "run", *COMMAND], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (3, "ran\n"), answer.stderr

    environment[SCRIPT] = environment[SCRIPT].replace("[]", '["no-such-package==1"]')
    answer = subprocess.run([uv, "run", *COMMAND], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode != 0
    assert "no-such-package" in answer.stderr
