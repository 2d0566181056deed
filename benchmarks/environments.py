"""Environments of the libraries that ours is held to, and of which each excludes the others.

Invariant: an environment that is absent, or has not got its library, is known of before anything is measured.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from measuring import MeasurementError

INTEROP = Path(__file__).parents[1] / ".interop"
_IS_THERE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def python_of(library: str, environments: Path = INTEROP) -> str:
    """The interpreter that has a library.

    Args:
        library: As it is called where packages are published, and so is its environment.
        environments: Where the environments are.

    Raises:
        MeasurementError: There is no such environment, or the library is not in it.
    """
    python = environments / library / "bin" / "python"
    if not python.exists():
        raise MeasurementError(f"{python} is absent: `make bench` builds the environments of the libraries")
    if subprocess.run([python, "-c", _IS_THERE, library.replace("-", "_")], capture_output=True).returncode:
        message = f"{python} has no {library}: delete {python.parents[1]}, and `make bench` builds it again"
        raise MeasurementError(message)
    return str(python)
