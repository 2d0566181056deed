"""Rules on what an SAE that this toolkit trained says of its own making.

Invariant: only SAEs whose provenance names the method `top-k` are held to it; what can be checked without a model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.saelens import CONFIG
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import parse
from steer_eval.inventory import Artifact

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
    if recorded.get("method") != "top-k":
        return
    file = f"{artifact.file.rpartition('/')[0]}/{CONFIG}"
    for key, value in (("features", sae.d_sae), ("k", sae.k), ("layer", sae.layer)):
        if recorded.get(key) != str(value):
            message = f"the SAE was made with another {key} than it has"
            yield _finding(file, f"{_WHERE}.{key}", message, value, recorded.get(key))
    where = f"{_WHERE}.quality"
    try:
        quality: Any = parse(recorded.get("quality", ""), file, where)
        check(quality, "sae_quality", file=file, where=where)
        for key in ("dead_share", "training_tokens"):
            if key not in quality:
                raise FormatError(file, f"{where}.{key}", "the SAE does not say what it does on its training text")
    except FormatError as error:
        yield _finding(file, error.where, error.reason, error.expected, error.observed)
        return
    excess = quality["cross_entropy_sae"] - quality["cross_entropy"]
    if abs(quality["excess_cross_entropy"] - excess) > _ROUNDING:
        message = "it is no difference of the two cross-entropies beside it"
        where = f"{_WHERE}.quality.excess_cross_entropy"
        yield _finding(file, where, message, round(excess, 6), quality["excess_cross_entropy"])
    if quality["held_out_l0"] > sae.k:
        message = "more features fire than may"
        yield _finding(file, f"{_WHERE}.quality.held_out_l0", message, f"<= {sae.k}", quality["held_out_l0"])


def _finding(file: str, where: str, message: str, expected: Any, observed: Any) -> Finding:
    return Finding("sae-provenance", "error", file, where, message, expected, observed, _AGAIN)
