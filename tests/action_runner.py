"""Steps of the GitHub Actions, run as a runner would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ENVIRONMENT = "steer-eval"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True)
class Action:
    """An action of this repo, by its file."""

    file: Path

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        return document

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        inputs: dict[str, dict[str, Any]] = self.document["inputs"]
        return inputs

    @property
    def all_steps(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = self.document["runs"]["steps"]
        return steps

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """Steps that are scripts, by name."""
        return {step["name"]: step for step in self.all_steps if "run" in step}


VALIDATE = Action(ROOT / "action.yml")
PUBLISH = Action(ROOT / "publish" / "action.yml")


@dataclass(frozen=True)
class Runner:
    """What a runner lends to a job; `github` are variables that GitHub sets for it."""

    temp: Path
    workspace: Path
    action: Action = VALIDATE
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    github: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> Path:
        return self.temp / "summary.md"

    @property
    def output(self) -> Path:
        return self.temp / "output.txt"

    def run(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run one step of the action with the defaults of the inputs that are not given; `_` stands for `-`."""
        given = {key: value.get("default", "") for key, value in self.action.inputs.items()}
        given |= {key.replace("_", "-"): value for key, value in inputs.items()}
        assert given.keys() == self.action.inputs.keys(), "no such input"
        context = {f"inputs.{key}": value for key, value in given.items()}
        context |= {"github.action_path": str(self.action.file.parent), "runner.temp": str(self.temp)}
        context |= {"runner.os": {"linux": "Linux", "darwin": "macOS"}[sys.platform]}
        step = self.action.steps[name]
        variables = {
            **{
                key: value
                for key, value in self.environment.items()
                if not key.startswith(("STEER_EVAL_", "GITHUB_", "PYTHON"))
            },
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            "RUNNER_TEMP": str(self.temp),
            **self.github,
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


def evaluated(text: str, context: Mapping[str, str]) -> str:
    """A value of an action with its expressions replaced, where all of them are known."""
    unknown = set(_EXPRESSION.findall(text)) - context.keys()
    assert not unknown, f"the test does not know what a runner makes of {unknown}"
    return _EXPRESSION.sub(lambda match: context[match[1]], text)


def environment_like_this_one(temp: Path) -> None:
    """Make the environment that the install step fills; it sees the packages of this one.

    So pip finds every dependency and downloads none.
    """
    environment = temp / ENVIRONMENT
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [site] = environment.glob("lib/python3.*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")


def commands(answer: subprocess.CompletedProcess[str]) -> list[str]:
    """Workflow commands that a step printed."""
    return [line for line in answer.stdout.splitlines() if line.startswith("::")]


def is_valid(schema: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file to a schema of GitHub."""
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.github-{schema}"]
    return subprocess.run([*program, str(file)], capture_output=True, text=True)
