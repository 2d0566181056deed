"""Fitting a study's maps, and carrying its vectors.

Invariant: a map's provenance names everything that decides it: weights of both models, layers, text, protocol, seed.
What is carried is a function of the published map and the published vectors alone, so anybody can carry it again
without a model.

Carried vectors are published at the norm of the native one, which is how they are tried: a coefficient then means the
same for all of them. What norm a map gave by itself is in the provenance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steer_eval.environment import Environment
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.containment import inside
from steer_eval.formats.transfer import (
    Centring,
    Floats32,
    TransferMap,
    TransferredVectors,
    rank_of,
    read_transfer_map,
    write_transfer_map,
    write_transferred,
)
from steer_eval.formats.vector import SteeringVector, write_vector
from steer_eval.produce import SAID_IF_SO, VECTOR_FORMAT, LoadedModel
from steer_eval.progress import progress_bar
from steer_eval.results import Results
from steer_eval.rounding import ROUNDING
from steer_eval.sae.text import documents, source_digest
from steer_eval.transfer.heldout import PairedRows
from steer_eval.transfer.maps import Floats, seeded_rotation
from steer_eval.transfer.plan import End, TransferPlan
from steer_eval.transfer.protocol import KINDS, PROTOCOLS, Protocol
from steer_eval.transfer.rows import Side, paired_rows
from steer_eval.transfer.variation import MORE_TEXT, through
from steer_eval.transfer.words import Passage, passages

_EXTRACT = "run `steer-eval extract` on the study"
_FIT_AGAIN = "delete the file and run `steer-eval transfer fit` again"
_DECIDED_BY = {"ridge": "W", "procrustes": "R", "random": "__metadata__.random_scale"}
_TOLD = ("random_scale", "n_rows", "n_texts")
"""What a map that we fitted says of the fit, beside what decides it."""
_OF_NATIVE = (
    "positions",
    "model",
    "revision",
    "weights_sha256",
    "n_pairs",
    "pairs_sha256",
    "dtype",
    "versions",
    *SAID_IF_SO,
)
"""What a carried vector records as the native one does: it is tried on that model, and rests on those pairs."""

Models = Mapping[str, LoadedModel]


def side(end: End, models: Models) -> Side:
    """One end of a transfer on its model, loaded.

    Raises:
        SteerEvalError: The model has no such layer.
    """
    models[end.model].check_layers([end.layer])
    return Side(models[end.model].lm, end.layer)


def collected_rows(
    plan: TransferPlan, protocol: Protocol, models: Models, data_folder: Path, *, memory: int | None = None
) -> PairedRows:
    """The paired rows of a plan under a protocol.

    Args:
        plan: The plan.
        protocol: What a row is, and how many documents count.
        models: The models of both ends, loaded, by name.
        data_folder: The dataset repo, for text in files.
        memory: Bytes that batches may take; None for half of what is free.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
    """
    texts = texts_of(plan, protocol, data_folder)
    source, target = side(plan.source, models), side(plan.target, models)
    count = len(texts) * len({plan.source.model, plan.target.model})
    with progress_bar(f"rows {plan.name} ({protocol.rows})", count) as advance:
        return paired_rows(source, target, texts, protocol.rows, memory=memory, on_texts=advance)


def texts_of(plan: TransferPlan, protocol: Protocol, data_folder: Path) -> list[Passage]:
    """The texts of a plan that count under a protocol.

    Args:
        plan: The plan.
        protocol: How many documents count.
        data_folder: The dataset repo, for text in files.

    Raises:
        SteerEvalError: The text can't be read.
    """
    return [
        passage
        for passage in passages(documents(plan.text, data_folder), words=plan.words)
        if protocol.texts is None or passage.document < protocol.texts
    ]


def produce_map(
    plan: TransferPlan, models: Models, *, data_folder: Path, repo: Path, memory: int | None = None
) -> TransferMap:
    """Fit a plan's maps and write them, unless the repo has the same ones already.

    Args:
        plan: The plan.
        models: The models of both ends, loaded, by name.
        data_folder: The dataset repo.
        repo: The model repo.
        memory: Bytes that batches may take; None for half of what is free.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
    """
    protocol = PROTOCOLS[plan.protocol]
    decides = {
        "method": "transfer",
        "plan": json.dumps(plan.to_json(), sort_keys=True),
        "protocol": plan.protocol,
        "protocol_settings": json.dumps(protocol.to_json(), sort_keys=True),
        "penalty": "least error on left-out documents",
        "text_sha256": source_digest(plan.text, data_folder),
        "random_seed": str(plan.seed),
        **_of_model("large", models[plan.source.model]),
        **_of_model("small", models[plan.target.model]),
    }
    path = inside(repo, plan.map_file)
    present = _same(path, decides)
    if present is not None:
        return present
    rows = collected_rows(plan, protocol, models, data_folder, memory=memory)
    fitters = protocol.fitters(seed=plan.seed)
    fitted = {kind: fitter(rows.source, rows.texts)(rows.target) for kind, fitter in fitters.items()}
    ridge, rotation = fitted["ridge"], fitted["procrustes"]
    scale = rotation.settings["scale"]
    if not rotation.settings["rank"]:
        raise SteerEvalError(f"the rows of {plan.name} share nothing that could be turned", MORE_TEXT)
    maps = TransferMap(
        ridge=_narrow(ridge.matrix),
        intercept=_narrow(ridge.target_mean - ridge.source_mean @ ridge.matrix),
        orthogonal=_narrow(rotation.matrix / scale),
        layer_large=plan.source.layer,
        layer_small=plan.target.layer,
        alpha=ridge.settings["alpha"],
        centring=Centring(_narrow(rotation.source_mean), _narrow(rotation.target_mean), scale),
        provenance={
            **decides,
            "random_scale": repr(fitted["random"].settings["scale"]),
            "n_rows": str(len(rows.texts)),
            "n_texts": str(len(set(rows.texts.tolist()))),
            "machine": models[plan.source.model].environment.machine_class,
            "versions": _versions(models[plan.source.model].environment),
        },
    )
    write_transfer_map(path, maps)
    return maps


def produce_carried(plan: TransferPlan, published: Results, *, repo: Path) -> dict[str, SteeringVector]:
    """Carry a plan's vector with the published map, and write it in both forms.

    All kinds stand in one file beside the native vector and the source, and each in a file of its own, as a steering
    vector of the target that every command can try.

    Args:
        plan: The plan.
        published: The study's results, for the vectors.
        repo: The model repo, with the map.

    Returns:
        The carried vectors, by kind of map.

    Raises:
        FormatError: The map or a vector is absent, bad, or does not fit the others.
    """
    maps = read_transfer_map(inside(repo, plan.map_file), name=plan.map_file)
    source, native = _vector(plan.source, published), _vector(plan.target, published)
    shape = (source.values.size, native.values.size)
    if maps.ridge.shape != shape or (maps.layer_large, maps.layer_small) != (plan.source.layer, plan.target.layer):
        raise FormatError(
            plan.map_file, "W", "the map does not lead from the source's vector to the native one",
            expected=list(shape), observed=list(maps.ridge.shape), fix=_FIT_AGAIN,
        )  # fmt: skip
    middles = {plan.source: 0.0, plan.target: 0.0}
    if maps.centring is not None:
        # Where rows lie is how large residuals are there: a vector is a difference of such.
        middles = {plan.source: _norm(maps.centring.large), plan.target: _norm(maps.centring.small)}
    for end, vector in ((plan.source, source), (plan.target, native)):
        if not vector.norm > ROUNDING * middles[end]:
            file = published.vector_file(end.model, end.layer)
            raise FormatError(file, "vector", "the vector is zero: it has no direction to carry", fix=_EXTRACT)
    by_itself = carried_by_itself(maps, source.values.astype(np.float64), name=plan.map_file)
    carried = {}
    for kind, values in by_itself.items():
        norm = float(np.linalg.norm(values))
        if not 0 < norm < math.inf:
            raise FormatError(
                plan.map_file, _DECIDED_BY[kind], "the map leaves nothing of the source's vector",
                expected="a vector with a norm above 0", observed=norm, fix=_FIT_AGAIN,
            )  # fmt: skip
        at_native = _narrow(values * (native.norm / norm))
        provenance = {
            **{key: native.provenance[key] for key in _OF_NATIVE if key in native.provenance},
            "format": VECTOR_FORMAT,
            "method": f"transfer-{kind}",
            "layer": str(plan.target.layer),
            "norm": f"{_norm(at_native):.9g}",
            "carried_norm": f"{norm:.9g}",
            "carried_from": published.vector_file(plan.source.model, plan.source.layer),
            "map": plan.map_file,
        }
        carried[kind] = SteeringVector(at_native, plan.target.layer, provenance)
    vectors = TransferredVectors(
        carried={kind: vector.values for kind, vector in carried.items()},
        native=native.values,
        source=source.values,
        layer=plan.target.layer,
        coefficient=plan.coefficient,
        provenance={
            "map": plan.map_file,
            "source_model": source.provenance.get("model", plan.source.model),
            "target_model": native.provenance.get("model", plan.target.model),
            **{f"carried_norm_{kind}": vector.provenance["carried_norm"] for kind, vector in carried.items()},
        },
    )
    for kind, vector in carried.items():
        write_vector(inside(repo, plan.vector_file(kind)), vector)
    write_transferred(inside(repo, plan.vectors_file), vectors)
    return carried


def carried_by_itself(maps: TransferMap, vector: Floats, *, name: str = "transfer map") -> dict[str, Floats]:
    """A direction through each kind of map, at the norm that the map gives it.

    Args:
        maps: The maps, as published: with a centring, and with the seed and the scale of the random one.
        vector: float64 `[d_large]`.
        name: What to call the maps' file in messages.

    Raises:
        FormatError: The maps are those of another tool, and do not say what the random one was.
    """
    recorded = maps.provenance
    if maps.centring is None or not {"random_seed", "random_scale"} <= recorded.keys():
        raise FormatError(
            name, "__metadata__", "the file has no means, or no seed and scale of the random map",
            expected="a map in the format steer-eval/transfer-map/2", fix="run `steer-eval transfer fit`",
        )  # fmt: skip
    rotation = seeded_rotation(int(recorded["random_seed"]), *maps.ridge.shape)
    matrices = {
        "ridge": maps.ridge.astype(np.float64),
        "procrustes": maps.centring.scale * maps.orthogonal.astype(np.float64),
        "random": float(recorded["random_scale"]) * rotation,
    }
    return {kind: through(vector, matrices[kind]) for kind in KINDS}


def _vector(end: End, published: Results) -> SteeringVector:
    vector = published.vectors.get((end.model, end.layer))
    if vector is None:
        file = published.vector_file(end.model, end.layer)
        raise FormatError(file, "", published.unusable.get(file, "absent"), fix=_EXTRACT)
    return vector


def _of_model(size: str, model: LoadedModel) -> dict[str, str]:
    """Which weights one end is, under the names that the format has for the ends."""
    known = {**model.provenance, "dtype": model.lm.dtype}
    return {f"{key}_{size}": value for key, value in known.items()}


def _versions(environment: Environment) -> str:
    return json.dumps(environment.versions, sort_keys=True)


def _norm(values: Floats32) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _narrow(values: Floats) -> Floats32:
    narrowed: Floats32 = values.astype(np.float32)
    return narrowed


def _same(path: Path, decides: dict[str, Any]) -> TransferMap | None:
    """The maps that a file holds if they were made under these conditions, else None.

    A rotation that turns more directions than there were rows is that of an older version, and rests on rounding.
    """
    try:
        maps = read_transfer_map(path)
    except FormatError:
        return None
    if not maps.provenance.keys() >= set(_TOLD) or rank_of(maps.orthogonal) > int(maps.provenance["n_rows"]):
        return None
    decides = {**{f"{key}_{size}": None for key in SAID_IF_SO for size in ("large", "small")}, **decides}
    return maps if all(maps.provenance.get(key) == value for key, value in decides.items()) else None
