"""Rules on what an SAE that this toolkit trained says of its own making, and on what the study plans of it.

Invariant: only SAEs whose provenance names the method `top-k` are held to all of it, others to what commands read; what
can be checked without a model is. An SAE and a feature table that a study plans are those of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.saelens import CONFIG, WEIGHTS, folder_name
from steer_eval.inventory import Artifact, Inventory
from steer_eval.sae.belongs import RECORDED, off_plan, table_off_plan
from steer_eval.sae.results import QUALITY_KEY, features_file
from steer_eval.sae.stored import sink_threshold, trained_quality
from steer_eval.study import Study

_AGAIN = "train it with `steer-eval sae train`, which records what it did"
_PLANNED = "run `steer-eval sae train` on the study, or mend saes in study.yaml"
_TABLE = "run `steer-eval sae features` on the study, or mend saes.table in study.yaml"
_ROUNDING = 3e-6


def provenance_findings(artifact: Artifact) -> Iterator[Finding]:
    """What is wrong with the provenance of an SAE.

    Args:
        artifact: The SAE, values and all.
    """
    sae = artifact.value
    recorded: dict[str, str] = sae.provenance
    folder = artifact.file.rpartition("/")[0]
    file = f"{folder}/{CONFIG}"
    try:
        sink_threshold(sae, folder)
    except FormatError as error:
        yield _finding(file, error.where, error.reason, error.expected, error.observed)
    if recorded.get("method") != "top-k":
        return
    for key, value in (("features", sae.d_sae), ("k", sae.k), ("layer", sae.layer)):
        if recorded.get(key) != str(value):
            message = f"the SAE was made with another {key} than it has"
            yield _finding(file, f"{RECORDED}.{key}", message, value, recorded.get(key))
    try:
        quality = trained_quality(recorded, folder)
    except FormatError as error:
        yield _finding(file, error.where, error.reason, error.expected, error.observed)
        return
    excess = quality["cross_entropy_sae"] - quality["cross_entropy"]
    if abs(quality["excess_cross_entropy"] - excess) > _ROUNDING:
        message = "it is no difference of the two cross-entropies beside it"
        where = f"{QUALITY_KEY}.excess_cross_entropy"
        yield _finding(file, where, message, round(excess, 6), quality["excess_cross_entropy"])
    if quality["held_out_l0"] > sae.k:
        message = "more features fire than may"
        yield _finding(file, f"{QUALITY_KEY}.held_out_l0", message, f"<= {sae.k}", quality["held_out_l0"])


def planned_sae_findings(study: Study, inventory: Inventory, prefix: str, *, data_folder: Path) -> list[Finding]:
    """SAEs and feature tables that are not those of the study's plans.

    Args:
        study: The study.
        inventory: What the repos hold.
        prefix: What to put before paths of the model repo.
        data_folder: The dataset repo, for text that SAEs were trained on.
    """
    saes = {artifact.file: artifact for artifact in inventory.of("sae")}
    tables = {artifact.file: artifact for artifact in inventory.of("features")}
    findings = []
    for plan in study.saes:
        folder = prefix + folder_name(plan.model, plan.layer)
        sae = saes.get(f"{folder}/{WEIGHTS}")
        if sae is not None:
            findings += [
                Finding("sae-provenance", "error", f"{folder}/{CONFIG}", *wrong, _PLANNED)
                for wrong in off_plan(sae.value, plan, study.models[plan.model], data_folder)
            ]
        table = tables.get(prefix + features_file(plan.model, plan.layer))
        if table is not None and plan.table is not None:
            wrong_of_table = table_off_plan(table.value, plan.table)
            findings += [Finding("feature-sae", "error", table.file, *wrong, _TABLE) for wrong in wrong_of_table]
    return findings


def _finding(file: str, where: str, message: str, expected: Any, observed: Any) -> Finding:
    return Finding("sae-provenance", "error", file, where, message, expected, observed, _AGAIN)
