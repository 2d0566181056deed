"""Whether an SAE is the one that its plan asks for, and a feature table that of its SAE, its vector and its plan.

Invariant: what a plan alone decides of an SAE is told here once, for training, which records it, and for whoever holds
an SAE to its plan. No model is needed. An SAE of another maker is held to what it has; what it does not record is not
held against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.sae import SaeOutline, TopKSae
from steer_eval.formats.saelens import StoredSae
from steer_eval.model_reference import ModelReference
from steer_eval.sae.plan import FeaturePlan, SaePlan
from steer_eval.sae.text import FileText, TextSource, source_digest

RECORDED = "metadata.steer_eval"
"""Where an SAE's `cfg.json` has what it records of its training."""
_NAMES = {"features": "number of features", "tokens": "number of tokens", "text_sha256": "text"}
_FLOAT32 = 1e-5


class Mismatch(NamedTuple):
    """A field that is not what it should be.

    Args:
        where: The field.
        message: What is wrong, in words.
        expected: What it should be.
        observed: What it is.
    """

    where: str
    message: str
    expected: Any
    observed: Any


def recorded_of_plan(plan: SaePlan) -> dict[str, str]:
    """What an SAE records of the plan that it was trained by, beside the digest of the text."""
    return {
        **{name: str(value) for name, value in plan.to_json().items()},
        "text": recorded_text(plan.text),
    }


def recorded_text(text: TextSource) -> str:
    """What an SAE records of the text that it was trained on."""
    return json.dumps({type(text).__name__: asdict(text)}, sort_keys=True)


def off_plan(
    sae: TopKSae | SaeOutline, plan: SaePlan, reference: ModelReference, data_folder: Path
) -> Iterator[Mismatch]:
    """What of an SAE is not what its plan asks for.

    Args:
        sae: The SAE.
        plan: The plan.
        reference: Its model, as the study names it.
        data_folder: The dataset repo, for text in files; files that are not there are not compared.
    """
    # What the SAE has goes before what it says: the two are held to each other elsewhere.
    for key, where, wanted, has in (
        ("features", "d_sae", plan.features, sae.d_sae),
        ("k", "k", plan.k, sae.k),
        ("model", "metadata.model_name", reference.base_model, sae.model),
        ("layer", "metadata.hook_name", plan.layer, sae.layer),
    ):
        if has != wanted:
            yield Mismatch(where, f"the SAE has another {_NAMES.get(key, key)} than the study plans", wanted, has)
    asked = {key: value for key, value in recorded_of_plan(plan).items() if key not in ("features", "k", "layer")}
    asked |= {"dtype": reference.dtype, **_digest(plan, data_folder)}
    for key, value in asked.items():
        said = sae.provenance.get(key, value)
        if said != value:
            message = f"the SAE was trained with another {_NAMES.get(key, key)} than the study plans"
            yield Mismatch(f"{RECORDED}.{key}", message, value, said)


def _digest(plan: SaePlan, data_folder: Path) -> dict[str, str]:
    """The digest of a text that a study carries itself; others are pinned by their name."""
    if not isinstance(plan.text, FileText):
        return {}
    try:
        return {"text_sha256": source_digest(plan.text, data_folder)}
    except (FormatError, OSError):
        return {}


def table_off_plan(table: FeatureTable, plan: FeaturePlan) -> Iterator[Mismatch]:
    """What of a feature table is not what its plan asks for.

    Args:
        table: The table.
        plan: The plan.
    """
    if table.coefficient != plan.coefficient:
        message = "the table was made at another coefficient than the study plans"
        yield Mismatch("coef", message, plan.coefficient, table.coefficient)
    # No table has more rows than its SAE has features.
    rows = plan.top if table.statistics is None else min(plan.top, table.statistics.n_features)
    if len(table.rows) != rows:
        message = "the table lists another number of features than the study plans"
        yield Mismatch("top_features", message, rows, len(table.rows))
    if table.statistics is not None and table.statistics.seed != plan.seed:
        message = "the table was made with another seed than the study's"
        yield Mismatch("statistics.seed", message, plan.seed, table.statistics.seed)


def table_off_sae(
    table: FeatureTable, sae: StoredSae, path: str, vector: NDArray[np.float32] | None
) -> Iterator[Mismatch]:
    """What of a feature table is not what its SAE and the vector of its cell give: norms of decoder rows, predictions.

    A table without these numbers says nothing that could be compared.

    Args:
        table: The table, of the SAE's model and layer.
        sae: The SAE.
        path: Where the SAE is, for messages.
        vector: The vector of the table's cell, if it is there.
    """
    rows = [(index, row) for index, row in enumerate(table.rows) if row.statistics and row.feature < sae.d_sae]
    if table.statistics is None or not rows:
        return
    if table.statistics.n_features != sae.d_sae:
        message = f"{path} has another number of features"
        yield Mismatch("n_features", message, sae.d_sae, table.statistics.n_features)
    features = [row.feature for _, row in rows]
    norms = np.linalg.norm(sae.stored.values("W_dec", features).astype(np.float64), axis=1)
    of_vector, length = None, 0.0
    if vector is not None and vector.size == sae.d_in:
        values = vector.astype(np.float64)
        columns = sae.stored.values("W_enc", (slice(None), features)).astype(np.float64)
        of_vector, length = table.coefficient * (values @ columns), float(np.linalg.norm(values))
    for place, (index, row) in enumerate(rows):
        where, its = f"top_features[{index}]", row.statistics
        if its is None:
            continue
        if not math.isclose(its.decoder_norm, norms[place], rel_tol=_FLOAT32):
            message = f"the feature's decoder row in {path} has another norm"
            yield Mismatch(f"{where}.decoder_norm", message, float(f"{norms[place]:.8g}"), its.decoder_norm)
        if of_vector is not None:
            slack = _FLOAT32 * max(abs(of_vector[place]), length)
            if abs(its.predicted - of_vector[place]) > slack:
                message = f"the vector of the table's cell and {path} give another value"
                yield Mismatch(f"{where}.predicted", message, float(f"{of_vector[place]:.8g}"), its.predicted)
