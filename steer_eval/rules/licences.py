"""Rules on the licences of models that a transfer's maps are fitted on.

Invariant: only a licence that the study states is judged, and only where files that rest on the model are there. Which
licences are open is a short list, so that a finding asks to look and never says that a licence forbids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from steer_eval.findings import Finding
from steer_eval.inventory import Inventory
from steer_eval.model_reference import PypiSource
from steer_eval.study import FILE, Study
from steer_eval.transfer.plan import TransferPlan

OPEN = frozenset(
    {
        "0bsd",
        "apache-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc0-1.0",
        "isc",
        "mit",
        "unlicense",
    }
)
"""Licences that let anybody publish what is fitted on the weights, as SPDX names them, in lower case."""

_FIX = "check that its terms let you publish what is fitted on it, or leave these files out"


def licence_findings(study: Study, inventory: Inventory, prefix: str) -> Iterator[Finding]:
    """Models of transfers whose licence is not known to be open, each with the files that are fitted on it.

    Args:
        study: The study.
        inventory: The files that are there.
        prefix: What to put before file names of the model repo.
    """
    present = [
        artifact.file.removeprefix(prefix) for artifact in inventory.artifacts if artifact.file.startswith(prefix)
    ]
    for name, model in study.models.items():
        licence = model.source.license if isinstance(model.source, PypiSource) else ""
        if not licence or is_open(licence):
            continue
        plans = [plan for plan in study.transfers if name in (plan.source.model, plan.target.model)]
        files = [file for plan in plans for file in present if _is_fitted(plan, file)]
        if files:
            message = f"{', '.join(files)}: fitted on {name}, whose weights have the licence {licence!r}"
            yield Finding(
                "transfer-licence", "warning", prefix + FILE, f"models.{name}.source.pypi.license", message, fix=_FIX
            )


def is_open(licence: str) -> bool:
    """Whether a licence is one of those that are known to be open.

    Args:
        licence: Its name as a study states it.
    """
    words = re.sub(r"[\s_-]+", "-", licence.strip().lower()).replace("-licence", "-license")
    return words.removesuffix("-license").replace("-license-", "-") in OPEN


def _is_fitted(plan: TransferPlan, file: str) -> bool:
    """Whether a file holds the maps of a transfer or what they carry; diagnostics are numbers about them."""
    stem = plan.vector_file("").removesuffix(".safetensors")
    return file in (plan.map_file, plan.vectors_file) or file.startswith(stem)
