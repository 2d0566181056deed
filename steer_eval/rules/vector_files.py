"""Rules on vector files, whatever study they belong to.

Invariant: what a vector file records agrees with its values, its name, its siblings, the published contrast pairs and
the base model's configuration, as far as each of these is there.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from steer_eval.base_config import BaseConfig, base_config
from steer_eval.consistency import vector_conflicts
from steer_eval.findings import Finding
from steer_eval.formats.vector import SteeringVector
from steer_eval.inventory import Artifact, Inventory

_STEM = re.compile(r"(?P<model>.+?)_L(?P<layer>[0-9]{1,4})(_.*)?\.[a-z]+")
_AGAIN = "extract the vector again, or publish the one that the record was written for"


def name_parts(file: str) -> tuple[str, int] | None:
    """Model and layer that a file's name gives (`qwen_large_L14_caa.pt`), or None."""
    match = _STEM.fullmatch(file)
    return (match["model"], int(match["layer"])) if match else None


def vectors_by_model(inventory: Inventory) -> dict[str, dict[int, Artifact]]:
    """Vector files by the model and the layer in their names."""
    found: dict[str, dict[int, Artifact]] = {}
    for artifact in inventory.of("vector", "vector_pt"):
        parts = name_parts(artifact.name)
        if parts:
            found.setdefault(parts[0], {})[parts[1]] = artifact
    return found


def published_norms(vector: SteeringVector) -> tuple[float, ...]:
    """The norm of a vector's values and the one recorded beside them.

    Where the two differ, that is a finding of its own, and who copied either made no mistake.
    """
    recorded = float(vector.provenance.get("norm", "nan"))
    return (vector.norm,) if math.isnan(recorded) else (vector.norm, recorded)


def vector_file_findings(inventory: Inventory) -> list[Finding]:
    """What is wrong with vector files.

    Args:
        inventory: What the repos hold.
    """
    pairs = next((table for table in inventory.of("contrast_pairs") if not table.troubles), None)
    findings: list[Finding] = []
    groups: dict[str, list[Artifact]] = {}
    for artifact in inventory.of("vector", "vector_pt"):
        parts = name_parts(artifact.name)
        groups.setdefault(parts[0] if parts else "", []).append(artifact)
        findings += _norm(artifact)
        findings += _layer(artifact, parts)
        findings += _pairs(artifact, pairs)
    of_base = list(_base(inventory.of("vector", "vector_pt")))
    said = {(finding.rule, finding.file) for finding in of_base}
    for model, artifacts in groups.items():
        if model:
            findings += [each for each in _siblings(model, artifacts) if (each.rule, each.file) not in said]
    return findings + of_base


def _key(artifact: Artifact, key: str) -> str:
    return key if artifact.kind == "vector_pt" else f"__metadata__.{key}"


def _norm(artifact: Artifact) -> Iterator[Finding]:
    for conflict in vector_conflicts(artifact.value):
        where = _key(artifact, conflict.field)
        message = str(conflict)
        yield Finding(
            "vector-norm", "error", artifact.file, where, message, conflict.expected, conflict.observed, _AGAIN
        )


def _layer(artifact: Artifact, parts: tuple[str, int] | None) -> Iterator[Finding]:
    vector: SteeringVector = artifact.value
    if parts and parts[1] != vector.layer:
        message = "the layer in the file is not the one in its name"
        where, fix = _key(artifact, "layer"), "rename the file, or publish the vector of that layer"
        yield Finding("vector-layer", "error", artifact.file, where, message, parts[1], vector.layer, fix)


def _pairs(artifact: Artifact, pairs: Artifact | None) -> Iterator[Finding]:
    recorded = artifact.value.provenance.get("n_pairs")
    if pairs is not None and recorded is not None and int(recorded) != len(pairs.value):
        message = f"the vector was made from another number of pairs than {pairs.path} has"
        where, fix = _key(artifact, "n_pairs"), "publish the pairs that the vector was made from, or extract it again"
        yield Finding("vector-pairs", "error", artifact.file, where, message, len(pairs.value), int(recorded), fix)


def _siblings(model: str, artifacts: Sequence[Artifact]) -> Iterator[Finding]:
    """Files of one name have one model and one width; those that differ from most are named."""
    width = _usual(artifact.value.values.shape[0] for artifact in artifacts)
    base = _usual(artifact.value.provenance.get("model") for artifact in artifacts)
    for artifact in artifacts:
        observed = artifact.value.values.shape[0]
        if observed != width:
            message = f"most vectors of {model} have another width than this one"
            yield Finding("vector-shape", "error", artifact.file, "vector", message, width, observed, _AGAIN)
        recorded = artifact.value.provenance.get("model")
        if recorded != base:
            # In the words of the rule that holds a vector to a study, so that the two are one finding.
            message = "the vector was made on another model"
            where = _key(artifact, "model")
            yield Finding("vector-model", "error", artifact.file, where, message, base, recorded, _AGAIN)


def _usual(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _base(artifacts: Iterable[Artifact]) -> Iterator[Finding]:
    """Width and depth of the base model, where its configuration is in the Hub's cache on this machine."""
    known: dict[str, BaseConfig | None] = {}
    for artifact in artifacts:
        vector: SteeringVector = artifact.value
        model = vector.provenance.get("model", "")
        if model not in known:
            known[model] = base_config(model)
        base = known[model]
        if base is None:
            continue
        if base.hidden_size is not None and vector.values.shape[0] != base.hidden_size:
            message = f"the vector has another width than the residual stream of {model}"
            observed = vector.values.shape[0]
            yield Finding("vector-shape", "error", artifact.file, "vector", message, base.hidden_size, observed, _AGAIN)
        if base.layers is not None and vector.layer >= base.layers:
            message = f"{model} has {base.layers} layers, counted from 0, so that there is no layer {vector.layer}"
            where = _key(artifact, "layer")
            yield Finding(
                "vector-layer", "error", artifact.file, where, message, f"< {base.layers}", vector.layer, _AGAIN
            )
