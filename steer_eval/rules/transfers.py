"""Rules on vectors that were carried from one model to another, and on the maps.

Invariant: what a file of transferred vectors copies from the native ones is equal to them; what is recorded of the
vectors elsewhere (norms, cosines, the perplexity of the native one) follows from them; a map that is called orthogonal
turns directions or leaves them out, and turns no more of them than there were rows to tell of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from steer_eval.consistency import same_or_rounded, shown_apart, vector_conflicts
from steer_eval.findings import Finding
from steer_eval.formats.transfer import Floats32, TransferMap, TransferredVectors, orthogonality_error, rank_of
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.files import unusable
from steer_eval.rules.sweep_files import SweepFile
from steer_eval.rules.vector_files import name_parts, vectors_by_model

_RELATIVE = 1e-6
_ORTHOGONAL = 1e-3
_MAPPED = 1e-3
_DEGENERATE = 1e-9
_AGAIN = "make the file again from the published vectors"


def transfer_findings(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> list[Finding]:
    """What is wrong with transferred vectors, maps, and what is recorded of them.

    Args:
        inventory: What the repos hold.
        sweeps: The sweeps, by model.
    """
    findings: list[Finding] = []
    carried = list(_distinct(inventory.of("transferred", "transferred_pt")))
    unread = unusable(inventory)
    for artifact in carried:
        findings += _sources(artifact, inventory, unread)
    # Of a map that was left on the Hub there are no values.
    for artifact in (each for each in inventory.of("transfer_map", "transfer_map_pt") if not each.unread):
        findings += _map(artifact, carried)
    if len(carried) == 1:
        for artifact in inventory.of("latent_diff"):
            findings += _cosines(artifact, carried[0])
        for artifact in inventory.of("transfer_eval"):
            findings += _applied(artifact, carried[0])
            findings += _native_row(artifact, carried[0], sweeps)
    for artifact in inventory.of("latent_diff"):
        findings += _degenerate(artifact)
    return findings


def _distinct(artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
    """Files with other vectors than those before: the same ones may be there in two formats."""
    seen = set()
    for artifact in artifacts:
        vectors: TransferredVectors = artifact.value
        values = (vectors.native, vectors.source, *vectors.carried.values())
        content = (vectors.layer, vectors.coefficient, *(value.tobytes() for value in values))
        if content not in seen:
            seen.add(content)
            yield artifact


def _sources(artifact: Artifact, inventory: Inventory, unread: frozenset[str]) -> Iterator[Finding]:
    """The native and the source vector are copies of published ones, the native one of the layer that is named."""
    vectors: TransferredVectors = artifact.value
    published = [vector for group in vectors_by_model(inventory).values() for vector in group.values()]
    hidden = {parts[1] for file in unread if (parts := name_parts(file.rsplit("/", 1)[-1]))}
    for key, copy, layer in (
        ("v_small_native", vectors.native, vectors.layer),
        ("v_large_source", vectors.source, None),
    ):
        alike = [vector for vector in published if vector.value.values.shape == copy.shape]
        equal = [vector for vector in alike if np.array_equal(vector.value.values, copy)]
        if not alike or any(layer in (None, vector.value.layer) for vector in equal):
            continue
        if equal:
            message = f"v_small_native is the vector of layer {equal[0].value.layer} ({equal[0].path}), not of {layer}"
            expected_layer = equal[0].value.layer
            yield Finding("transfer-source", "error", artifact.file, "L_small", message, expected_layer, layer, _AGAIN)
            continue
        nearest = max(alike, key=lambda vector: _cosine(vector.value.values, copy))
        # It may be a copy of a vector that can't be read, or of one that was changed after its norm was recorded.
        if (hidden and layer is None) or layer in hidden or any(_as_recorded(each, copy) for each in alike):
            continue
        message = f"the vector is not equal to any published one; the nearest is {nearest.path}"
        expected = f"norm {nearest.value.norm:.7g}"
        observed = f"norm {_norm(copy):.7g}, cosine {_cosine(nearest.value.values, copy):.7f}"
        yield Finding("transfer-source", "error", artifact.file, key, message, expected, observed, _AGAIN)


def _as_recorded(vector: Artifact, copy: Floats32) -> bool:
    """Whether a vector file contradicts itself and a copy has the norm that the file records."""
    conflicts = vector_conflicts(vector.value)
    return any(math.isclose(conflict.observed, _norm(copy), rel_tol=_RELATIVE) for conflict in conflicts)


def _map(artifact: Artifact, carried: list[Artifact]) -> Iterator[Finding]:
    maps: TransferMap = artifact.value
    error = orthogonality_error(maps.orthogonal)
    rank, rows = rank_of(maps.orthogonal), maps.provenance.get("n_rows")
    if error > _ORTHOGONAL:
        message = f"the Procrustes map is not orthogonal: its Gram matrix is up to {error:.3g} away from its square"
        yield Finding("transfer-map", "error", artifact.file, "R", message, 0.0, error, "publish the map that was used")
    elif rank == 0:
        message = "the Procrustes map is zero: it leaves nothing of any direction"
        yield Finding("transfer-map", "error", artifact.file, "R", message, ">= 1", 0, "publish the map that was used")
    elif rows is not None and rank > int(rows):
        message = f"the Procrustes map turns {rank} directions; {rows} rows tell of no more than {rows}"
        fix = "run `steer-eval transfer fit` and `steer-eval transfer apply` again"
        yield Finding("transfer-map", "error", artifact.file, "R", message, f"<= {rows}", rank, fix)
    for other in carried:
        vectors: TransferredVectors = other.value
        if vectors.provenance.get("map", artifact.path) != artifact.path:
            # It says which map it was carried by, and that is another one.
            continue
        if maps.ridge.shape != (vectors.source.size, vectors.native.size):
            message = f"the maps do not lead from the source to the small model of {other.path}"
            expected, observed = [vectors.source.size, vectors.native.size], list(maps.ridge.shape)
            yield Finding("transfer-map", "error", artifact.file, "W", message, expected, observed, _AGAIN)
            continue
        for method, key, matrix in (("ridge", "W", maps.ridge), ("procrustes", "R", maps.orthogonal)):
            mapped = vectors.source @ matrix
            cosine = _cosine(mapped, vectors.carried[method])
            if not cosine > 1 - _MAPPED:
                message = f"the source through {key} has cosine {cosine:.4f} with v_{method} of {other.path}"
                yield Finding("transfer-map", "error", artifact.file, key, message, 1.0, cosine, _AGAIN)


def _cosines(artifact: Artifact, carried: Artifact) -> Iterator[Finding]:
    vectors: TransferredVectors = carried.value
    pairs = {
        "cos_ridge_native": (vectors.carried["ridge"], vectors.native),
        "cos_proc_native": (vectors.carried["procrustes"], vectors.native),
        "cos_ridge_proc": (vectors.carried["ridge"], vectors.carried["procrustes"]),
    }
    for key, (first, second) in pairs.items():
        expected, observed = _cosine(first, second), artifact.value[key]
        if abs(expected - observed) > _RELATIVE and not same_or_rounded(expected, observed):
            message = f"the vectors in {carried.path} have another cosine"
            yield Finding("transfer-cosine", "error", artifact.file, key, message, expected, observed, _AGAIN)


def _applied(artifact: Artifact, carried: Artifact) -> Iterator[Finding]:
    """A row's norm is that of the published vector; otherwise the row can't be had again from the file."""
    vectors: TransferredVectors = carried.value
    published = {**vectors.carried, "native": vectors.native}
    for row in artifact.value:
        values = published.get(row.value["label"])
        if values is None:
            continue
        expected, observed = _norm(values), row.value["norm"]
        if not same_or_rounded(expected, observed):
            shown = shown_apart(expected, observed)
            message = (
                f"the vector that was measured had norm {shown[1]}, the one in {carried.path} has {shown[0]}: "
                f"added as published, it acts {expected / observed if observed else math.inf:.3g} times as strongly"
            )
            fix = "publish the vector as it was added, or record its scale"
            where = f"line {row.line}: norm"
            yield Finding("transfer-norm", "warning", artifact.file, where, message, expected, observed, fix)


def _native_row(artifact: Artifact, carried: Artifact, sweeps: Mapping[str, SweepFile]) -> Iterator[Finding]:
    """The native vector was measured in a sweep as well; the numbers are the same."""
    vectors: TransferredVectors = carried.value
    native = next((row for row in artifact.value if row.value["label"] == "native"), None)
    if native is None:
        return
    implied = native.value["ppl"] / native.value["ppl_ratio"]
    for sweep in sweeps.values():
        row = sweep.at(vectors.layer, vectors.coefficient)
        if row is not None and math.isclose(row.base_ppl, implied, rel_tol=1e-3):
            # A row of the sweep whose own numbers do not agree is a finding of its own.
            values = (row.ppl, row.ppl_ratio * row.base_ppl)
            if not any(same_or_rounded(value, native.value["ppl"]) for value in values):
                message = f"line {row.line} of {sweep.artifact.path} has another perplexity for the same vector"
                where = f"line {native.line}: ppl"
                fix = "measure the row again; never edit measured rows"
                yield Finding(
                    "transfer-native", "error", artifact.file, where, message, row.ppl, native.value["ppl"], fix
                )
            return


def _degenerate(artifact: Artifact) -> Iterator[Finding]:
    """Canonical correlations of fewer rows than dimensions are 1 whatever the rows are."""
    fitted = [value for value in artifact.value.get("cca_fit_corrs", ()) if value is not None]
    if len(fitted) > 1 and min(fitted) >= 1 - _DEGENERATE:
        message = (
            f"all {len(fitted)} fitted canonical correlations are 1, as they always are where there are fewer rows "
            "than dimensions"
        )
        fix = "fit on more rows than dimensions, or report held-out correlations beside those of shuffled rows"
        yield Finding("alignment-degenerate", "warning", artifact.file, "cca_fit_corrs", message, fix=fix)


def _norm(values: Floats32) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _cosine(first: Floats32, second: Floats32) -> float:
    a, b = first.astype(np.float64), second.astype(np.float64)
    product = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / product if product else 0.0
