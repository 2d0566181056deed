"""What a user gets who installs a wheel rather than a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel, as pip would lay it out."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target / "site")
    return target / "site"


def test_the_wheel_carries_schemas_and_templates(installed: Path) -> None:
    for name in ("schemas", "cards", "rubrics", "tasks"):
        shipped = {path.name for path in (installed / "steer_eval" / "_data" / name).iterdir()}
        assert shipped == {path.name for path in (ROOT / name).iterdir()}


def test_the_wheel_validates_the_packaged_study(installed: Path, packaged_study: Path, tmp_path: Path) -> None:
    program = (
        "import steer_eval, sys\n"
        f"assert steer_eval.__file__.startswith({str(installed)!r}), steer_eval.__file__\n"
        "from steer_eval.cli.main import main\n"
        "main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, "validate", str(packaged_study)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
