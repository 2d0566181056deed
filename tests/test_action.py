"""The GitHub Action, its own steps run as a runner would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sarif_kit.validate import validation_errors
from studies import DATA_REPO, MODEL_REPO, OnDisk, build, claim

from steer_eval import __version__

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
ENVIRONMENT = "steer-eval"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True)
class Runner:
    """What a runner lends to a job."""

    temp: Path
    workspace: Path

    @property
    def summary(self) -> Path:
        return self.temp / "summary.md"

    def run(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run one step of the action with the defaults of the inputs that are not given."""
        given = {key: value["default"] for key, value in ACTION["inputs"].items()} | inputs
        assert given.keys() == ACTION["inputs"].keys(), "no such input"
        context = {f"inputs.{key}": value for key, value in given.items()}
        context |= {"github.action_path": str(ROOT), "runner.temp": str(self.temp)}
        step = STEPS[name]
        variables = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("STEER_EVAL_", "GITHUB_", "PYTHON"))
            },
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.temp),
            # The bundled pip reads 0 as "no isolation"; with no index, anything else would fail.
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **{key: evaluated(value, context) for key, value in step["env"].items()},
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", evaluated(step["run"], context)],
            cwd=self.workspace,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )


def evaluated(text: str, context: dict[str, str]) -> str:
    """A value of the action with its expressions replaced, where all of them are known."""
    unknown = set(_EXPRESSION.findall(text)) - context.keys()
    assert not unknown, f"the test does not know what a runner makes of {unknown}"
    return _EXPRESSION.sub(lambda match: context[match[1]], text)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runner's temporary folder after the install step, run for real.

    The environment that the step fills stands there already and sees the packages of this one, so that pip finds every
    dependency and downloads none.
    """
    temp = tmp_path_factory.mktemp("runner")
    environment = temp / ENVIRONMENT
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [site] = environment.glob("lib/python3.*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
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


def commands(answer: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in answer.stdout.splitlines() if line.startswith("::")]


def test_the_action_is_one_to_github() -> None:
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions"]
    answer = subprocess.run([*program, str(ROOT / "action.yml")], capture_output=True, text=True)

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_no_input_is_part_of_a_script() -> None:
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "pass it through env"


def test_other_actions_are_pinned_to_a_major_version() -> None:
    used = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]

    assert len(used) + len(STEPS) == len(ACTION["runs"]["steps"])
    assert all(re.fullmatch(r"actions/setup-python@v\d+", each) for each in used)
    assert used, "Python is set up"


def test_the_readmes_workflow_is_one_to_github_and_uses_the_actions_inputs(tmp_path: Path) -> None:
    [block] = re.findall(r"```yaml\n(on:.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "workflow.yml").write_text(block, encoding="utf-8")
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    answer = subprocess.run([*program, str(tmp_path / "workflow.yml")], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    [job] = yaml.safe_load(block)["jobs"].values()
    [step] = [each for each in job["steps"] if "steer-eval@" in each["uses"]]
    assert step["uses"].endswith(f"@v{__version__}")
    assert step["with"].keys() <= ACTION["inputs"].keys()


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
