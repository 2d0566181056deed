"""The pre-commit hook, run by pre-commit itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from studies import DATA_REPO, MODEL_REPO, build

from steer_eval import __version__

MANIFEST = Path(__file__).parents[1] / ".pre-commit-hooks.yaml"
PRE_COMMIT = [sys.executable, "-m", "pre_commit"]


def test_the_manifest_is_one_to_pre_commit() -> None:
    answer = subprocess.run([*PRE_COMMIT, "validate-manifest", str(MANIFEST)], capture_output=True, text=True)

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_readmes_configuration_names_the_hook() -> None:
    [block] = re.findall(r"```yaml\n(repos:.*?)```", (MANIFEST.parent / "README.md").read_text(encoding="utf-8"), re.S)
    [repo] = yaml.safe_load(block)["repos"]
    [hook] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))

    assert repo["rev"] == f"v{__version__}"
    assert [each["id"] for each in repo["hooks"]] == [hook["id"]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repo of a study and its data that uses the hook, with nothing of the user's git or pre-commit about it."""
    folder = tmp_path / "repository"
    build(folder)
    [hook] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    assert hook["language"] == "python"
    # Of this language, pre-commit would install the hook from its repo first; here it is installed.
    local = {**hook, "language": "system", "args": [MODEL_REPO]}
    config = {"repos": [{"repo": "local", "hooks": [local]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def run(folder: Path, *program: str) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PRE_COMMIT", "STEER_EVAL_"))
    }
    environment = {
        **clean,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(folder.parent),
        "PRE_COMMIT_HOME": str(folder.parent / "pre-commit"),
        "PRE_COMMIT_COLOR": "never",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def staged(folder: Path) -> None:
    done = run(folder, "git", "add", "-A")
    assert done.returncode == 0, done.stderr


def test_the_hook_passes_a_good_study_and_stops_a_broken_one(repository: Path) -> None:
    assert run(repository, "git", "init", "-q").returncode == 0
    staged(repository)
    good = run(repository, *PRE_COMMIT, "run")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "Passed" in good.stdout

    # The hook checks the whole study, though only its data has changed.
    (repository / DATA_REPO / "eval_prompts.jsonl").write_text("{}\n", encoding="utf-8")
    staged(repository)
    broken = run(repository, *PRE_COMMIT, "run")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "Failed" in broken.stdout
    assert f"{DATA_REPO}/eval_prompts.jsonl\n  error " in broken.stdout
