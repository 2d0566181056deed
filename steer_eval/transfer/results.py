"""What a study found of its transfers, read back.

Invariant: published and measured again, diagnostics are the same documents under the same schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from steer_eval.formats.containment import inside
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import read_json
from steer_eval.study import Study

Document = Mapping[str, Any]


def read_transfers(
    study: Study, repo: Path, attempt: Callable[[str, Callable[[], Document]], Document | None]
) -> dict[str, Document]:
    """Diagnostics of the planned transfers, by name.

    Args:
        study: The study.
        repo: The model repo, or a run directory.
        attempt: Reads a file, and keeps its trouble under its name where it can't.
    """
    found = {}
    for plan in study.transfers:
        document = attempt(plan.diagnostics_file, partial(_read, repo, plan.diagnostics_file))
        if document is not None:
            found[plan.name] = document
    return found


def _read(repo: Path, file: str) -> Document:
    document: Any = read_json(inside(repo, file), name=file)
    check(document, "transfer_diagnostics", file=file)
    found: Document = document
    return found
