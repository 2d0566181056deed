"""A study's SAE as it stands in the model repo, held to the model that it is to be used on.

Invariant: whoever computes with a study's SAE takes it from here. It is of the planned layer, of the model that the
study names and as wide as that, and what it records of its training can be read; what does not fit is an error that
names the field, before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import SaeOutline, TopKSae
from steer_eval.formats.saelens import CONFIG, StoredSae, folder_name, look_at_saelens, read_saelens
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import parse
from steer_eval.model_reference import ModelReference
from steer_eval.sae.results import QUALITY_KEY

SINK_KEY = "metadata.steer_eval.sink_norm"
"""Where an SAE's `cfg.json` has the norm above which its training took a residual for an attention sink."""
_OF_TRAINING = ("dead_share", "training_tokens")
_TRAIN = "run `steer-eval sae train` on the study first"


def study_sae(repo: Path, model: ModelReference, layer: int, *, width: int | None) -> StoredSae:
    """The SAE that a model repo has for a layer of one of the study's models; its values stay in their file.

    Args:
        repo: The model repo.
        model: The model, as the study names it.
        layer: The layer.
        width: Width of the model's residual stream; None where the model is not there and nothing is computed.

    Raises:
        FormatError: The SAE is absent or bad, or of another layer, model or width, or its sink threshold is no norm.
    """
    name = folder_name(model.name, layer)
    if not inside(repo, name).is_dir():
        raise FormatError(name, "", "the SAE is absent", fix=_TRAIN)
    try:
        sae = look_at_saelens(inside(repo, name), name=name)
    except FormatError as error:
        raise FormatError(
            error.file, error.where, error.reason, expected=error.expected, observed=error.observed,
            fix=error.fix or _TRAIN,
        ) from None  # fmt: skip
    for where, what, expected, observed in (
        ("metadata.hook_name", "layer", layer, sae.layer),
        ("metadata.model_name", "model", model.base_model, sae.model),
        ("d_in", "width", width, sae.d_in),
    ):
        if expected is not None and observed != expected:
            raise FormatError(
                f"{name}/{CONFIG}", where, f"the SAE is of another {what} than the study's model {model.name} needs",
                expected=expected, observed=observed,
                fix=f"publish the SAE of this model and layer, or remove {name} and run `steer-eval sae train`",
            )  # fmt: skip
    sink_threshold(sae, name)
    return sae


def read_trained(folder: Path) -> TopKSae:
    """An SAE that says how it was trained and how good it is, as `steer-eval sae train` leaves it.

    Args:
        folder: Its folder.

    Raises:
        FormatError: The SAE is absent or bad, or does not say so.
    """
    sae = read_saelens(folder)
    sink_threshold(sae, str(folder))
    trained_quality(sae.provenance, str(folder))
    return sae


def sink_threshold(sae: TopKSae | SaeOutline, folder: str) -> float:
    """The norm above which an SAE's training took a residual for a sink; infinity where it does not say.

    Args:
        sae: The SAE.
        folder: Its folder, for the message.

    Raises:
        FormatError: What it says is no norm.
    """
    said = sae.provenance.get("sink_norm", "inf")
    try:
        threshold = float(said)
    except ValueError:
        threshold = float("nan")
    if not threshold > 0:
        raise FormatError(
            f"{folder}/{CONFIG}", SINK_KEY, "no norm above which a residual is an attention sink",
            expected="a number above 0, or inf", observed=said[:40],
            fix="write the norm that the training found, leave the field out if no token is a sink, or train the SAE "
            "again with `steer-eval sae train`",
        )  # fmt: skip
    return threshold


def trained_quality(provenance: Mapping[str, str], folder: str) -> dict[str, Any]:
    """How good an SAE says that it is, on held-out text and on the text of its training.

    Args:
        provenance: What the SAE records.
        folder: Its folder, for the message.

    Raises:
        FormatError: It does not say so, or breaks `schemas/sae_quality.schema.json`.
    """
    file = f"{folder}/{CONFIG}"
    if "quality" not in provenance:
        raise FormatError(file, QUALITY_KEY, "the SAE does not say how good it is")
    quality: Any = parse(provenance["quality"], file, QUALITY_KEY)
    check(quality, "sae_quality", file=file, where=QUALITY_KEY)
    found: dict[str, Any] = quality
    for key in _OF_TRAINING:
        if key not in found:
            raise FormatError(file, f"{QUALITY_KEY}.{key}", "the SAE does not say what it does on its training text")
    return found
