"""How far a transfer can be believed.

Invariant: no number stands alone. Each statistic is measured on what was not fitted on, and beside what the same
computation gives where there is nothing to find: documents and pairs paired at random, random signs for directions, a
random map for the maps, and other random maps for that one. The study's own protocol is measured in the same way, for
comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from steer_eval.contrast import ContrastPair, pairs_digest
from steer_eval.formats import schema
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import write_json
from steer_eval.produce import LoadedModel
from steer_eval.progress import progress_bar
from steer_eval.sae.text import source_digest
from steer_eval.transfer.heldout import FOLDS, PairedRows
from steer_eval.transfer.maps import Floats
from steer_eval.transfer.nulls import (
    Tested,
    cka_test,
    r2_test,
    random_r2_test,
    retrieval_test,
    sign_flip_test,
    svcca_test,
)
from steer_eval.transfer.plan import End, TransferPlan
from steer_eval.transfer.produce import Models, texts_of
from steer_eval.transfer.protocol import KINDS, PROTOCOLS, RANDOM, Protocol
from steer_eval.transfer.rows import Read, pair, read_texts
from steer_eval.transfer.similarity import cosine
from steer_eval.transfer.variation import check_vector

SCHEMA = "steer-eval/transfer-diagnostics/1"
SVCCA_RANK = 10
ROWS_PER_COMPONENT = 4
"""Canonical correlations of fewer rows than this per component say more of the rows than of the models."""
DECIMALS = 6


@dataclass(frozen=True, eq=False)
class EndRead:
    """One end of a transfer, read: all that diagnosing needs of its model.

    Args:
        said: Which model and layer it is, for the document.
        differences: What each contrast pair adds to the end's vector, `[pairs, hidden_size]`.
        read: What the model made of the plan's text, by protocol.
    """

    said: Mapping[str, Any]
    differences: Floats
    read: Mapping[str, Read]


def produce_diagnostics(
    plan: TransferPlan,
    models: Models,
    pairs: Sequence[ContrastPair],
    *,
    data_folder: Path,
    repo: Path,
    memory: int | None = None,
) -> dict[str, Any]:
    """Measure a plan's transfer under its protocol and under the study's own, and write what was found.

    Args:
        plan: The plan.
        models: The models of both ends, loaded, by name.
        pairs: The contrast pairs that the vectors rest on.
        data_folder: The dataset repo.
        repo: The model repo.
        memory: Bytes that batches may take; None for half of what is free.

    Returns:
        The document, which satisfies `schemas/transfer_diagnostics.schema.json`.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
    """
    ends: dict[End, EndRead] = {}
    for name in dict.fromkeys((plan.source.model, plan.target.model)):
        ends |= read_ends(plan, models[name], pairs, plan.protocols, data_folder=data_folder, memory=memory)
    document = diagnosed(plan, ends[plan.source], ends[plan.target], pairs, data_folder=data_folder)
    write_json(inside(repo, plan.diagnostics_file), document)
    return document


def read_ends(
    plan: TransferPlan,
    model: LoadedModel,
    pairs: Sequence[ContrastPair],
    protocols: Sequence[str],
    *,
    data_folder: Path,
    memory: int | None = None,
) -> dict[End, EndRead]:
    """Read a plan's text and pairs with the model of one end, or of both.

    Args:
        plan: The plan.
        model: The model, loaded.
        pairs: The contrast pairs.
        protocols: Under which protocols.
        data_folder: The dataset repo.
        memory: Bytes that batches may take; None for half of what is free.

    Raises:
        SteerEvalError: The text can't be read, or the model has no such layer.
    """
    ends = [end for end in (plan.source, plan.target) if end.model == model.reference.name]
    layers = sorted({end.layer for end in ends})
    model.check_layers(layers)
    texts = {name: texts_of(plan, PROTOCOLS[name], data_folder) for name in protocols}
    found = model.pair_differences(pairs, layers, keep=layers, memory=memory)
    differences = {layer: each.numpy() for layer, each in found.items()}
    read = {}
    with progress_bar(f"rows {plan.name} {model.reference.name}", sum(map(len, texts.values()))) as advance:
        for name, passages in texts.items():
            read[name] = read_texts(model.lm, layers, passages, PROTOCOLS[name].rows, memory=memory, on_texts=advance)
    return {
        end: EndRead(
            _said(end, model, differences[end.layer]),
            differences[end.layer],
            {name: by_layer[end.layer] for name, by_layer in read.items()},
        )
        for end in ends
    }


def diagnosed(
    plan: TransferPlan, source: EndRead, target: EndRead, pairs: Sequence[ContrastPair], *, data_folder: Path
) -> dict[str, Any]:
    """Measure a plan's transfer under the protocols that both ends were read under; no model is needed any more.

    Args:
        plan: The plan.
        source: The end that maps lead from.
        target: The end that they lead to.
        pairs: The contrast pairs.
        data_folder: The dataset repo.

    Returns:
        The document, which satisfies `schemas/transfer_diagnostics.schema.json`.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
    """
    protocols = {}
    for name in source.read:
        protocol = PROTOCOLS[name]
        rows = pair(source.read[name], target.read[name], texts_of(plan, protocol, data_folder), protocol.rows)
        with progress_bar(f"nulls {plan.name} ({name})", _fits(rows, plan.draws)) as advance:
            protocols[name] = measured(
                protocol, rows, source.differences, target.differences,
                seed=plan.seed, draws=plan.draws, on_fits=advance,
            )  # fmt: skip
    document = {
        "schema": SCHEMA,
        "source": dict(source.said),
        "target": dict(target.said),
        "plan": plan.to_json(),
        "text_sha256": source_digest(plan.text, data_folder),
        "pairs": {"n": len(pairs), "sha256": pairs_digest(pairs)},
        "protocols": protocols,
    }
    schema.check(document, "transfer_diagnostics", file=plan.diagnostics_file)
    return document


def measured(
    protocol: Protocol,
    rows: PairedRows,
    source: Floats,
    target: Floats,
    *,
    seed: int,
    draws: int,
    on_fits: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Every diagnostic of one protocol, as a JSON object.

    Args:
        protocol: How maps are fitted.
        rows: The paired rows.
        source: Differences of the source's contrast pairs, `[pairs, d_source]`.
        target: Those of the target, `[pairs, d_target]`.
        seed: Decides folds, draws and the random map.
        draws: Draws of the nulls for which maps are fitted again.
        on_fits: Called with the number of maps and canonical directions just fitted for the nulls.

    Raises:
        SteerEvalError: A vector is zero but for rounding, or rows do not differ.
    """
    count = len(rows.texts)
    rank = min(SVCCA_RANK, count // ROWS_PER_COMPONENT, rows.source.shape[1], rows.target.shape[1])
    for end, differences in (("source", source), ("target", target)):
        check_vector(differences, end)
    native = target.mean(axis=0)
    maps = {}
    for kind, fitter in protocol.fitters(seed=seed).items():
        fitted = fitter(rows.source, rows.texts)(rows.target)
        refitted = random_r2_test if kind == RANDOM else partial(r2_test, fitter=fitter)
        carried = fitted.direction(source)
        # In the units of the rows that were fitted on: what a map that overfits is proud of.
        explained = (
            1
            - ((rows.target - fitted.rows(rows.source)) ** 2).sum()
            / ((rows.target - rows.target.mean(axis=0)) ** 2).sum()
        )
        maps[kind] = {
            "settings": {key: _rounded(value) for key, value in fitted.settings.items()},
            "fitted_r2": _rounded(float(explained)),
            "held_out_r2": _shown(refitted(rows, seed=seed, draws=draws, on_fits=on_fits)),
            "cosine_to_native": _shown(sign_flip_test(fitted, source, target, seed=seed)),
            "retrieval": {"chance": _rounded(1 / len(target)), **_shown(retrieval_test(carried, target, seed=seed))},
            "carried_norm_share": _rounded(float(np.linalg.norm(carried.mean(axis=0)) / np.linalg.norm(native))),
        }
    aligned = svcca_test(rows, rank=rank, seed=seed, draws=draws, on_fits=on_fits)
    return {
        "settings": protocol.to_json(),
        "n_rows": count,
        "n_texts": len(set(rows.texts.tolist())),
        "debiased_cka": _shown(cka_test(rows, seed=seed)),
        "svcca": {"rank": rank, **_shown(aligned)},
        "maps": maps,
    }


def _fits(rows: PairedRows, draws: int) -> int:
    """How much is fitted for the nulls: of each kind a map, and canonical directions, per fold and draw."""
    return min(FOLDS, len(np.unique(rows.texts))) * (draws + 1) * (len(KINDS) + 1)


def split_half_cosine(differences: Floats) -> float:
    """Cosine of the vectors of two halves of the pairs: a measure of the pairs' noise.

    It is no upper bound of what can be carried: a carried vector and the native one are means over the same pairs, so
    they share that noise, and a perfect map reaches 1.

    Args:
        differences: `[pairs, d]`.
    """
    return cosine(differences[::2].mean(axis=0), differences[1::2].mean(axis=0))


def _said(end: End, model: LoadedModel, differences: Floats) -> dict[str, Any]:
    template = model.provenance.get("chat_template_sha256")
    return {
        "model": end.model,
        "base_model": model.reference.base_model,
        "weights_sha256": model.weights.sha256,
        **({} if template is None else {"chat_template_sha256": template}),
        "layer": end.layer,
        "hidden_size": model.lm.hidden_size,
        "split_half_cosine": _rounded(split_half_cosine(differences)) if len(differences) > 1 else None,
    }


def _shown(found: Tested) -> dict[str, float | int]:
    return {key: value if isinstance(value, int) else _rounded(value) for key, value in found.to_json().items()}


def _rounded(value: float) -> float:
    return round(value, DECIMALS)
