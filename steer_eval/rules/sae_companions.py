"""Rules on what is published beside an SAE: its quality, the activity of its features, and their table.

Invariant: what follows from the weights of the SAE and from the vector is taken again from them: norms of decoder rows,
what the vector alone adds to a feature, the share of dead features. What only a model can give is held to what the SAE
itself records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from steer_eval.consistency import same_or_rounded
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.sae import SaeOutline
from steer_eval.formats.saelens import WEIGHTS, StoredSae, folder_name
from steer_eval.formats.strict_json import parse
from steer_eval.formats.vector import SteeringVector
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.vector_files import name_parts, vectors_by_model
from steer_eval.sae.belongs import table_off_sae

_FLOAT32 = 1e-5
_SHARE = 1e-6
_TRAIN = "run `steer-eval sae train` again, which writes it beside the SAE"
_TABLE = "make the table again with `steer-eval sae features`"


def companion_findings(inventory: Inventory) -> list[Finding]:
    """What is wrong with files beside SAEs.

    Args:
        inventory: What the repos hold.
    """
    saes = {artifact.path.rsplit("/", 1)[0]: artifact for artifact in inventory.of("sae") if "/" in artifact.path}
    findings: list[Finding] = []
    for artifact in inventory.of("sae_activity"):
        sae = saes.get(artifact.path.rsplit("/", 1)[0])
        findings += _activity(artifact, sae)
    for artifact in inventory.of("sae_quality"):
        sae = _of_name(artifact, saes)
        if sae is not None and isinstance(sae.value, StoredSae):
            findings += _quality(artifact, sae.value, sae.path)
    for artifact in inventory.of("features"):
        sae = _of_name(artifact, saes)
        if sae is not None and isinstance(sae.value, StoredSae):
            findings += _table(artifact, sae.value, sae.path, inventory)
    return findings


def _of_name(artifact: Artifact, saes: dict[str, Artifact]) -> Artifact | None:
    """The SAE of the model and layer that a file is called after."""
    parts = name_parts(artifact.name)
    return saes.get(folder_name(*parts)) if parts else None


def _activity(artifact: Artifact, sae: Artifact | None) -> Iterator[Finding]:
    """Each feature has an activity, and one that never fires has none."""

    def found(where: str, message: str, expected: Any, observed: Any) -> Finding:
        return Finding("sae-activity", "error", artifact.file, where, message, expected, observed, _TRAIN)

    maximum = artifact.value.maximum.astype(np.float64)
    frequency = artifact.value.frequency.astype(np.float64)
    silent = frequency == 0
    if (silent != (maximum == 0)).any():
        feature = int(np.flatnonzero(silent != (maximum == 0))[0])
        message = f"feature {feature} has frequency {frequency[feature]:g} and maximum {maximum[feature]:g}"
        yield found("frequency", message, "both 0 or neither", None)
    if sae is None:
        yield found("", f"there is no {WEIGHTS} beside the file", None, None)
        return
    value: SaeOutline = sae.value
    if len(maximum) != value.d_sae:
        yield found("maximum", f"{sae.path} has another number of features", value.d_sae, len(maximum))
        return
    if frequency.sum() > value.k * (1 + _FLOAT32):
        message = f"more features fire per token than the {value.k} that may"
        yield found("frequency", message, f"at most {value.k} in all", round(float(frequency.sum()), 4))
    quality = _recorded_quality(value) if isinstance(value, StoredSae) else {}
    dead = quality.get("dead_share")
    if isinstance(dead, float | int) and abs(float(silent.mean()) - dead) > _SHARE:
        message = f"{int(silent.sum())} features never fire, and the SAE records another share of dead ones"
        yield found("frequency", message, dead, round(float(silent.mean()), 6))


def _quality(artifact: Artifact, sae: StoredSae, path: str) -> Iterator[Finding]:
    """A file of an SAE's quality says what the SAE itself records."""
    recorded = _recorded_quality(sae)
    for key, observed in artifact.value.items():
        expected = recorded.get(key)
        same = (
            same_or_rounded(expected, observed)
            if isinstance(expected, float | int) and isinstance(observed, float | int)
            else expected == observed
        )
        if key in recorded and not same:
            message = f"{path} records another value"
            fix = "measure both on the same text, or publish one of them"
            yield Finding("sae-quality", "error", artifact.file, key, message, expected, observed, fix)
    excess = artifact.value["cross_entropy_sae"] - artifact.value["cross_entropy"]
    if abs(artifact.value["excess_cross_entropy"] - excess) > 3 * _SHARE:
        message = "it is no difference of the two cross-entropies beside it"
        fix = "measure it again; never edit measured numbers"
        where, observed = "excess_cross_entropy", artifact.value["excess_cross_entropy"]
        yield Finding("sae-quality", "error", artifact.file, where, message, round(excess, 6), observed, fix)


def _recorded_quality(sae: StoredSae) -> dict[str, Any]:
    """What an SAE records of its quality; nothing where that can't be read, which is a finding of its own."""
    try:
        value = parse(sae.provenance.get("quality", "{}"), "", "")
    except FormatError:
        return {}
    return value if isinstance(value, dict) else {}


def _table(artifact: Artifact, sae: StoredSae, path: str, inventory: Inventory) -> Iterator[Finding]:
    """Numbers of a feature table that the SAE and the vector give."""
    table: FeatureTable = artifact.value
    if (sae.model, sae.layer) != (table.model, table.layer):
        return
    vector = _vector(artifact, table, inventory)
    for wrong in table_off_sae(table, sae, path, None if vector is None else vector.values):
        yield Finding("feature-sae", "error", artifact.file, *wrong, _TABLE)


def _vector(artifact: Artifact, table: FeatureTable, inventory: Inventory) -> SteeringVector | None:
    """The vector that a table's cell is steered with."""
    parts = name_parts(artifact.name)
    other = vectors_by_model(inventory).get(parts[0], {}).get(table.layer) if parts else None
    return other.value if other is not None and isinstance(other.value, SteeringVector) else None
