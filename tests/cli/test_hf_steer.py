"""`hf steer`, started by the real `hf` from an extension's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from studies import build

from steer_eval import __version__
from steer_eval.cli.hf_steer import renamed

ROOT = Path(__file__).parents[2]
SCRIPT = "hf-steer"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder in which the extension is installed as `hf extensions install` leaves it."""
    from huggingface_hub.cli.extensions import ExtensionManifest

    folder = tmp_path / "home" / ".local/share/hf/extensions" / SCRIPT
    program = folder / "venv" / "bin" / SCRIPT
    program.parent.mkdir(parents=True)
    module, _, function = console_scripts()[SCRIPT].partition(":")
    # What pip makes of a console script, with the interpreter of the tests.
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n", encoding="utf-8"
    )
    program.chmod(0o755)
    ExtensionManifest(
        owner="someone",
        repo=SCRIPT,
        repo_id=f"someone/{SCRIPT}",
        short_name="steer",
        executable_path=str(program),
        type="python",
        installed_at=datetime.now(UTC),
        description="Activation-steering studies",
    ).save(folder)
    return tmp_path / "home"


def console_scripts() -> dict[str, str]:
    scripts: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return scripts


def hf(home: Path, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hf", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program is not None
    environment = {**os.environ, "HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    return subprocess.run(
        [program, *map(str, arguments)], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_hf_finds_it_and_passes_exit_codes_on(home: Path, tmp_path: Path) -> None:
    place = build(tmp_path / "repos")
    good = hf(home, "steer", "validate", place.model)
    place.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(ppl_ratio=9.0))
    bad = hf(home, "steer", "validate", place.model)
    absent = hf(home, "steer", "validate", tmp_path / "absent")

    assert (good.returncode, bad.returncode, absent.returncode) == (0, 1, 2), good.stderr
    assert good.stdout == "15 files checked\n"
    assert absent.stderr.startswith("Error: there is no folder ")


def test_help_has_the_name_it_is_called_by(home: Path) -> None:
    command = hf(home, "steer", "reproduce", "--help")

    assert command.returncode == 0, command.stderr
    assert command.stdout.startswith("Usage: hf steer reproduce [OPTIONS] STUDY\n")
    assert "  hf steer reproduce NAMESPACE/NAME" in command.stdout
    assert "steer-eval reproduce" not in command.stdout
    assert hf(home, "steer", "--version").stdout == f"steer-eval, version {__version__}\n"
    assert "Usage: hf steer reproduce" in hf(home, "steer", "reproduce").stderr
    assert "someone/hf-steer" in hf(home, "--help").stdout


def test_the_fix_of_an_error_can_be_typed(home: Path, tmp_path: Path) -> None:
    place = build(tmp_path / "repos")
    options = ("--on", "hf-jobs", "--package", "steer-eval==0.1.0")
    answer = hf(home, "steer", "reproduce", place.model, *options)

    assert answer.returncode == 2
    assert "`hf steer publish`" in answer.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run `steer-eval card` to", "run `hf steer card` to"),
        ("steer-eval --max-files 3 ...", "hf steer --max-files 3 ..."),
        ("steer-eval is installed here", "steer-eval is installed here"),
        ("steer-eval, version", "steer-eval, version"),
        ("artifacts/steer-eval cards", "artifacts/steer-eval cards"),
        ("steer-eval==0.1", "steer-eval==0.1"),
    ],
)
def test_only_command_lines_are_renamed(text: str, shown: str) -> None:
    assert renamed(text) == shown


def test_both_names_are_the_same_commands() -> None:
    scripts = console_scripts()

    assert scripts["steer-eval"].endswith("main:main")
    assert scripts[SCRIPT] == "steer_eval.cli.hf_steer:main"
