"""Rules on the diagnostics of a transfer.

Invariant: what can be had again from the published maps, vectors and pairs without a model is: the cosine and the norm
of what is carried, the weights, the text and the settings of the fit. Of numbers with a null it is checked that value,
null and p-value can belong together, where the null's bound may be one of its draws, as it is written today, or lie
between two, as in older files: that one can't be had again from the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from steer_eval.contrast import ContrastPair, pairs_digest
from steer_eval.digest import sha256_text
from steer_eval.findings import Finding
from steer_eval.formats.transfer import TransferMap, TransferredVectors, rank_of
from steer_eval.inventory import Artifact, Inventory
from steer_eval.study import Study
from steer_eval.transfer.nulls import LEVEL, may_reach

_SUFFIX = "_diagnostics.json"
_COSINE = 5e-4
_NORM = 1e-3
_ROUNDING = 2e-6
_AGAIN = "run `steer-eval transfer diagnose` again; never edit diagnostics"

_Complaint = tuple[str, str, Any, Any]


def diagnostics_findings(inventory: Inventory) -> list[Finding]:
    """What is wrong with diagnostics of transfers, and does not fit the maps and vectors of their name.

    Args:
        inventory: What the repos hold.
    """
    maps = {artifact.path: artifact for artifact in inventory.of("transfer_map")}
    vectors = {artifact.path: artifact for artifact in inventory.of("transferred")}
    findings: list[Finding] = []
    for artifact in inventory.of("transfer_diagnostics"):
        stem = artifact.path.removesuffix(_SUFFIX)
        fitted, carried = maps.get(f"{stem}.safetensors"), vectors.get(f"{stem}_vectors.safetensors")
        complaints = [*_of_name(artifact), *_of_tests(artifact.value)]
        # Of what was left on the Hub there are no values and no record.
        if fitted is not None and isinstance(fitted.value, TransferMap):
            complaints += _of_map(artifact.value, fitted.value, fitted.path)
        if carried is not None:
            complaints += _of_vectors(artifact.value, carried.value, carried.path)
        findings += [_finding(artifact, *complaint) for complaint in complaints]
    return findings


def planned_diagnostics_findings(study: Study, inventory: Inventory, prefix: str) -> list[Finding]:
    """Diagnostics that are not those of the study's models and pairs.

    Args:
        study: The study.
        inventory: What the repos hold.
        prefix: What to put before paths of the model repo.
    """
    pairs = next((table for table in inventory.of("contrast_pairs") if not table.troubles), None)
    positive, negative = study.extraction.positive, study.extraction.negative
    digest = None
    if pairs is not None and all({positive, negative} <= row.value.keys() for row in pairs.value):
        digest = pairs_digest(
            [ContrastPair(row.value["scenario"], row.value[positive], row.value[negative]) for row in pairs.value]
        )
    planned = {f"{prefix}{plan.diagnostics_file}": plan for plan in study.transfers}
    findings = []
    for artifact in inventory.of("transfer_diagnostics"):
        plan = planned.get(artifact.file)
        if plan is None:
            continue
        document = artifact.value
        expected = json.loads(json.dumps(plan.to_json()))
        if document["plan"] != expected:
            message = "the diagnostics were made under another plan than the study's"
            findings.append(_finding(artifact, "plan", message, expected, document["plan"]))
        for key, end in (("source", plan.source), ("target", plan.target)):
            base = study.models[end.model].base_model
            if document[key]["base_model"] != base:
                message = "the diagnostics were made on another model than the study names"
                findings.append(_finding(artifact, f"{key}.base_model", message, base, document[key]["base_model"]))
            template, observed = study.models[end.model].chat_template, document[key].get("chat_template_sha256")
            if observed != (asked := None if template is None else sha256_text(template)):
                message = "the diagnostics were made under another chat template than the study's"
                findings.append(_finding(artifact, f"{key}.chat_template_sha256", message, asked, observed))
        if digest is not None and document["pairs"]["sha256"] != digest:
            message = f"the diagnostics rest on other pairs than those of {study.extraction.pairs}"
            findings.append(_finding(artifact, "pairs.sha256", message, digest, document["pairs"]["sha256"]))
    return findings


def _of_name(artifact: Artifact) -> Iterator[_Complaint]:
    """A file is called after the two ends."""
    source, target = artifact.value["source"], artifact.value["target"]
    ends = f"{source['model']}_L{source['layer']}_to_{target['model']}_L{target['layer']}"
    if artifact.name.removesuffix(_SUFFIX) != ends:
        yield "source", "the file's name says another transfer than the file", artifact.name, f"{ends}{_SUFFIX}"


def _of_tests(document: Mapping[str, Any]) -> Iterator[_Complaint]:
    pairs = document["pairs"]["n"]
    for name, measured in document["protocols"].items():
        where = f"protocols.{name}"
        for key in ("debiased_cka", "svcca"):
            yield from _of_test(measured[key], f"{where}.{key}")
        for kind, its in measured["maps"].items():
            place = f"{where}.maps.{kind}"
            # With and without regard to the sign, as in older files, p counts the draws that reach the value.
            for key in ("held_out_r2", "cosine_to_native", "retrieval"):
                yield from _of_test(its[key], f"{place}.{key}")
            hits = its["retrieval"]["value"] * pairs
            if abs(hits - round(hits)) > _ROUNDING * pairs:
                message = f"the share is no whole number of the {pairs} pairs"
                yield f"{place}.retrieval.value", message, round(hits) / pairs, its["retrieval"]["value"]
            chance = its["retrieval"].get("chance")
            if chance is not None and abs(chance - 1 / pairs) > _ROUNDING:
                yield f"{place}.retrieval.chance", f"chance is one over the {pairs} pairs", 1 / pairs, chance


def _of_test(test: Mapping[str, Any], where: str) -> Iterator[_Complaint]:
    """How many draws reach a value, which p says, fits where the value lies to the null's 95th percentile."""
    draws = test["draws"]
    counted = test["p"] * (draws + 1)
    if abs(counted - round(counted)) > _ROUNDING * (draws + 1) or round(counted) < 1:
        message = f"p is no whole number of the {draws} draws and the observed one"
        yield f"{where}.p", message, max(1, round(counted)) / (draws + 1), test["p"]
        return
    reached = round(counted) - 1
    # A percentile by linear interpolation lies between two draws, of which the upper one may reach a value above it.
    most = draws - 1 - math.floor((1 - LEVEL) * (draws - 1))
    least = max(0, may_reach(draws)) + 1
    if test["value"] > test["null_95"] + _ROUNDING and reached > most:
        message = "the value lies above the 95th percentile of the null, and p says that more than 5 % of it reach it"
        yield f"{where}.p", message, f"<= {(most + 1) / (draws + 1):.6f}", test["p"]
    if test["value"] < test["null_95"] - _ROUNDING and reached < least:
        message = "the value lies below the 95th percentile of the null, and p says that less than 5 % of it reach it"
        yield f"{where}.p", message, f">= {(least + 1) / (draws + 1):.6f}", test["p"]


def _of_map(document: Mapping[str, Any], maps: TransferMap, path: str) -> Iterator[_Complaint]:
    """What the maps record of their making."""
    recorded = maps.provenance
    source, target = document["source"], document["target"]
    for end, layer, width, size in (
        (source, maps.layer_large, maps.ridge.shape[0], "large"),
        (target, maps.layer_small, maps.ridge.shape[1], "small"),
    ):
        key = "source" if size == "large" else "target"
        message = f"{path} is of another"
        if end["layer"] != layer:
            yield f"{key}.layer", f"{message} layer", layer, end["layer"]
        if end["hidden_size"] != width:
            yield f"{key}.hidden_size", f"{message} width", width, end["hidden_size"]
        weights = recorded.get(f"weights_sha256_{size}")
        if weights is not None and end["weights_sha256"] != weights:
            yield f"{key}.weights_sha256", f"{path} was fitted on other weights", weights, end["weights_sha256"]
    text = recorded.get("text_sha256")
    if text is not None and document["text_sha256"] != text:
        yield "text_sha256", f"{path} was fitted on another text", text, document["text_sha256"]
    name = recorded.get("protocol", "")
    measured = document["protocols"].get(name)
    if measured is None:
        if name:
            yield "protocols", f"{path} was fitted under a protocol that was not measured", name, None
        return
    where = f"protocols.{name}"
    for key in ("n_rows", "n_texts"):
        if recorded.get(key, str(measured[key])) != str(measured[key]):
            yield f"{where}.{key}", f"{path} was fitted on another number", recorded[key], measured[key]
    alpha = measured["maps"]["ridge"]["settings"].get("alpha")
    if alpha is not None and not math.isclose(alpha, maps.alpha, rel_tol=_NORM):
        yield f"{where}.maps.ridge.settings.alpha", f"{path} has another penalty", maps.alpha, alpha
    turned, rank = measured["maps"]["procrustes"]["settings"].get("rank"), rank_of(maps.orthogonal)
    if turned is not None and turned != rank:
        message = f"{path} turns another number of directions"
        yield f"{where}.maps.procrustes.settings.rank", message, rank, turned


def _of_vectors(document: Mapping[str, Any], vectors: TransferredVectors, path: str) -> Iterator[_Complaint]:
    """The cosine and the norm of what was carried, taken again from the vectors that are published."""
    protocol = document["plan"].get("protocol")
    measured = document["protocols"].get(protocol)
    if measured is None:
        return
    native = vectors.native.astype(np.float64)
    norm = float(np.linalg.norm(native))
    for kind, its in measured["maps"].items():
        carried = vectors.carried[kind].astype(np.float64)
        product = norm * float(np.linalg.norm(carried))
        where = f"protocols.{protocol}.maps.{kind}"
        cosine = float(carried @ native) / product if product else 0.0
        observed = its["cosine_to_native"]["value"]
        if abs(cosine - observed) > _COSINE:
            message = f"the vectors in {path} have another cosine"
            yield f"{where}.cosine_to_native.value", message, round(cosine, 6), observed
        recorded = vectors.provenance.get(f"carried_norm_{kind}")
        if recorded is not None and norm:
            share = float(recorded) / norm
            if not math.isclose(share, its["carried_norm_share"], rel_tol=_NORM, abs_tol=_ROUNDING):
                message = f"{path} records another norm of what the map gave by itself"
                yield f"{where}.carried_norm_share", message, round(share, 6), its["carried_norm_share"]


def _finding(artifact: Artifact, where: str, message: str, expected: Any, observed: Any) -> Finding:
    return Finding("transfer-diagnostics", "error", artifact.file, where, message, expected, observed, _AGAIN)
