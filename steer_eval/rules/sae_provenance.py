"""Rules on what an SAE that this toolkit trained says of its own making.

Invariant: only SAEs whose provenance names the method `top-k` are held to all of it, others to what commands read; what
can be checked without a model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.saelens import CONFIG
from steer_eval.inventory import Artifact
from steer_eval.sae.results import QUALITY_KEY
from steer_eval.sae.stored import sink_threshold, trained_quality

_WHERE = "metadata.steer_eval"
_AGAIN = "train it with `steer-eval sae train`, which records what it did"
_ROUNDING = 3e-6


def provenance_findings(artifact: Artifact) -> Iterator[Finding]:
    """What is wrong with the provenance of an SAE.

    Args:
        artifact: The SAE, values and all.
    """
    sae = artifact.value
    recorded: dict[str, str] = sae.provenance
    folder = artifact.file.rpartition("/")[0]
    file = f"{folder}/{CONFIG}"
    try:
        sink_threshold(sae, folder)
    except FormatError as error:
        yield _finding(file, error.where, error.reason, error.expected, error.observed)
    if recorded.get("method") != "top-k":
        return
    for key, value in (("features", sae.d_sae), ("k", sae.k), ("layer", sae.layer)):
        if recorded.get(key) != str(value):
            message = f"the SAE was made with another {key} than it has"
            yield _finding(file, f"{_WHERE}.{key}", message, value, recorded.get(key))
    try:
        quality = trained_quality(recorded, folder)
    except FormatError as error:
        yield _finding(file, error.where, error.reason, error.expected, error.observed)
        return
    excess = quality["cross_entropy_sae"] - quality["cross_entropy"]
    if abs(quality["excess_cross_entropy"] - excess) > _ROUNDING:
        message = "it is no difference of the two cross-entropies beside it"
        where = f"{QUALITY_KEY}.excess_cross_entropy"
        yield _finding(file, where, message, round(excess, 6), quality["excess_cross_entropy"])
    if quality["held_out_l0"] > sae.k:
        message = "more features fire than may"
        yield _finding(file, f"{QUALITY_KEY}.held_out_l0", message, f"<= {sae.k}", quality["held_out_l0"])


def _finding(file: str, where: str, message: str, expected: Any, observed: Any) -> Finding:
    return Finding("sae-provenance", "error", file, where, message, expected, observed, _AGAIN)
