"""Facts of carrying a direction from one model to another, and of how vectors lie to each other.

Invariant: a recorded number is preferred to one computed from the same vectors, so that each has one fact; that the two
agree is a rule's business. These facts name no model: an alignment is of two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.claims.claim import Selector, pair_of
from steer_eval.claims.fact import Fact
from steer_eval.formats.transfer import TransferMap, TransferredVectors
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.vector_files import vectors_by_model

_RECORDED_COSINES = {
    "cos_ridge_native": ("ridge", "native"),
    "cos_proc_native": ("procrustes", "native"),
    "cos_ridge_proc": ("ridge", "procrustes"),
}
_OF_FITTED: Mapping[str, Callable[..., Any]] = {"fitted_correlation_mean": np.mean}
_OF_HELDOUT: Mapping[str, Callable[..., Any]] = {
    "heldout_correlation_mean": np.mean,
    "heldout_correlation_highest": np.max,
    "heldout_correlation_lowest": np.min,
}
_FEATURE_NORM = re.compile(r"feat_(?P<feature>[0-9]+)_(?P<method>ridge|proc)_norm")
_METHODS = {"ridge": "ridge", "proc": "procrustes"}


def transfer_facts(inventory: Inventory) -> Iterator[Fact]:
    """Facts of alignments, transferred vectors and maps, and the cosines of a model's own vectors.

    Args:
        inventory: What the repos hold.
    """
    recorded: set[str] = set()
    for artifact in inventory.of("latent_diff"):
        for fact in _alignment(artifact):
            recorded |= {fact.select.variant or ""} if fact.measure == "cosine" else set()
            yield fact
    # The same ones may be there in two formats.
    for artifact in islice(inventory.of("transferred", "transferred_pt"), 1):
        yield from _carried(artifact, recorded)
    for artifact in islice(inventory.of("transfer_map", "transfer_map_pt"), 1):
        maps: TransferMap = artifact.value
        yield Fact("map_penalty", Selector(variant="ridge", file=artifact.path), maps.alpha, artifact.file, "alpha")
    yield from _between_layers(inventory)


def _alignment(artifact: Artifact) -> Iterator[Fact]:
    value, file = artifact.value, artifact.file
    yield Fact("heldout_r2", _of(artifact, "ridge"), value["ridge_heldout_r2"], file, "ridge_heldout_r2")
    for key, pair in _RECORDED_COSINES.items():
        yield Fact("cosine", _of(artifact, pair_of(*pair)), value[key], file, key)
    yield from _correlations(artifact, "cca_fit_corrs", _OF_FITTED)
    yield from _correlations(artifact, "cca_heldout_corrs", _OF_HELDOUT)
    for key, norm in value.items():
        if match := _FEATURE_NORM.fullmatch(key):
            select = Selector(feature=int(match["feature"]), variant=_METHODS[match["method"]], file=artifact.path)
            yield Fact("carried_feature_norm", select, norm, file, key)


def _correlations(artifact: Artifact, key: str, statistics: Mapping[str, Callable[..., Any]]) -> Iterator[Fact]:
    """Statistics of the canonical correlations that are numbers; what is none takes no part, and is counted."""
    values: Sequence[float | None] = artifact.value.get(key, ())
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return
    left_out = len(values) - len(finite)
    note = f"{left_out} of {len(values)} are no numbers, and left out" if left_out else ""
    for measure, statistic in statistics.items():
        yield Fact(measure, _of(artifact, None), float(statistic(finite)), artifact.file, key, note)
    yield Fact("correlation_count", _of(artifact, None), len(values), artifact.file, key, note)


def _of(artifact: Artifact, variant: str | None) -> Selector:
    return Selector(variant=variant, file=artifact.path)


def _carried(artifact: Artifact, recorded: set[str]) -> Iterator[Fact]:
    vectors: TransferredVectors = artifact.value
    keys = {"native": "v_small_native", **{method: f"v_{method}" for method in vectors.carried}}
    values = {"native": vectors.native, **vectors.carried}
    for method, vector in values.items():
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        note = "as published; variants were measured with the norm that their row records"
        yield Fact("carried_norm", _of(artifact, method), norm, artifact.file, keys[method], note)
    for first, second in combinations(values, 2):
        pair = pair_of(first, second)
        cosine = _cosine(values[first], values[second])
        if pair not in recorded and cosine is not None:
            yield Fact("cosine", _of(artifact, pair), cosine, artifact.file, f"{keys[first]}, {keys[second]}")


def _between_layers(inventory: Inventory) -> Iterator[Fact]:
    """Cosines of the vectors of two layers of one model."""
    for model, vectors in vectors_by_model(inventory).items():
        for (first, one), (second, other) in combinations(sorted(vectors.items()), 2):
            if one.value.values.shape != other.value.values.shape:
                continue
            cosine = _cosine(one.value.values, other.value.values)
            if cosine is not None:
                select = Selector(model, variant=pair_of(f"L={first}", f"L={second}"))
                yield Fact("cosine", select, cosine, one.file, f"vector, and that of {other.path}")


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    """The cosine of two vectors; None if one has no direction."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    product = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / product if product else None
