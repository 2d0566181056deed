"""Where the schemas, card templates, studies, rubrics and lm-eval tasks are that ship with the package.

Invariant: they are written once, in the top-level folders `schemas/`, `cards/`, `studies/`, `rubrics/` and `tasks/`. A
wheel carries copies under `steer_eval/_data`; a source checkout reads the folders themselves, so that the two can't
disagree.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder of shipped data called `name` (`schemas`, `cards`, `studies`, `rubrics` or `tasks`)."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
