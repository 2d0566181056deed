"""What a study says of its SAEs, read back: how good each is, and its feature table.

Invariant: published and measured again, these are the same documents under the same schemas. An SAE records its quality
itself; a run, which has no SAE, has it in a file of its own, and that goes first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import SaeOutline
from steer_eval.formats.saelens import CONFIG, folder_name, read_settings
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import parse, read_json
from steer_eval.study import Study

Document = Mapping[str, Any]
Attempt = Callable[[str, Callable[[], Document]], Document | None]
"""Reads a file, and keeps its trouble under its name where it can't."""

QUALITY_KEY = "metadata.steer_eval.quality"
"""Where an SAE's `cfg.json` has its quality."""
_AGAIN = "train it with `steer-eval sae train`, which measures it"


def quality_file(model: str, layer: int) -> str:
    """Path of a file with an SAE's quality inside a run directory or model repo."""
    return f"saes/{model}_L{layer}_quality.json"


def features_file(model: str, layer: int) -> str:
    """Path of a feature table inside a model repo or run directory."""
    return f"saes/{model}_L{layer}_features.json"


def read_saes(study: Study, repo: Path, attempt: Attempt) -> dict[tuple[str, int], Document]:
    """How good each planned SAE is, by model and layer.

    Args:
        study: The study.
        repo: The model repo, or a run directory.
        attempt: How files are read.
    """
    found = {}
    for plan in study.saes:
        read = partial(read_quality, repo, plan.model, plan.layer)
        quality = attempt(quality_file(plan.model, plan.layer), read)
        if quality is not None:
            found[plan.model, plan.layer] = quality
    return found


def read_outlines(study: Study, repo: Path) -> dict[tuple[str, int], SaeOutline]:
    """What each planned SAE says of itself, by model and layer; those that can't be read are left out.

    Why they can't is a finding of the rules on files, and a run has none.

    Args:
        study: The study.
        repo: The model repo, or a run directory.
    """
    found = {}
    for plan in study.saes:
        name = folder_name(plan.model, plan.layer)
        with suppress(FormatError):
            found[plan.model, plan.layer] = read_settings(inside(repo, name), name=name)
    return found


def read_tables(study: Study, repo: Path, attempt: Attempt) -> dict[tuple[str, int], Document]:
    """The planned feature tables, by model and layer.

    Args:
        study: The study.
        repo: The model repo, or a run directory.
        attempt: How files are read.
    """
    found = {}
    for plan in study.saes:
        file = features_file(plan.model, plan.layer)
        table = attempt(file, partial(_read_document, repo, file, "features")) if plan.table else None
        if table is not None:
            found[plan.model, plan.layer] = table
    return found


def read_quality(repo: Path, model: str, layer: int) -> Document:
    """How good an SAE is.

    Args:
        repo: The model repo, or a run directory.
        model: Name of the model in the study.
        layer: The SAE's layer.

    Raises:
        FormatError: No file says it, or one says something else.
    """
    file = quality_file(model, layer)
    if os.path.lexists(repo / file):
        return _read_document(repo, file, "sae_quality")
    name = folder_name(model, layer)
    config = f"{name}/{CONFIG}"
    text = read_settings(inside(repo, name), name=name).provenance.get("quality")
    if text is None:
        raise FormatError(config, QUALITY_KEY, "the SAE does not say how good it is", fix=_AGAIN)
    quality: Any = parse(text, config, QUALITY_KEY)
    check(quality, "sae_quality", file=config, where=QUALITY_KEY)
    found: Document = quality
    return found


def _read_document(repo: Path, file: str, schema: str) -> Document:
    document: Any = read_json(inside(repo, file), name=file)
    check(document, schema, file=file)
    found: Document = document
    return found
