"""Facts of how far a transfer can be believed.

Invariant: a statistic is never alone: its null's bound, its p-value and whether it is more than its null are facts
beside it, of the same place in the same file. They are of the end that is carried to. Whether it is more says the
p-value: bounds in older files lie between two draws, and more than 5 % of a null lies above such a bound.

What was measured under the planned protocol goes by the kind of map alone (`ridge`), or by nothing where it is of the
rows and not of a map; under another protocol its name goes before that (`plain ridge`, `plain`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import Fact
from steer_eval.inventory import Inventory
from steer_eval.transfer.nulls import passes

OF_ROWS = {"transfer_cka": "debiased_cka", "transfer_svcca": "svcca"}
"""Statistics of the paired rows, by measure."""
OF_MAPS = {
    "transfer_heldout_r2": "held_out_r2",
    "transfer_cosine": "cosine_to_native",
    "transfer_retrieval": "retrieval",
}
"""Statistics of the maps, by measure."""


def diagnostic_facts(inventory: Inventory) -> Iterator[Fact]:
    """Facts of all diagnostics of transfers.

    Args:
        inventory: What the repos hold.
    """
    # Of files under one path in both repos, as where a run is the dataset repo, that of the model repo counts.
    documents = {artifact.path: artifact for artifact in reversed(list(inventory.of("transfer_diagnostics")))}
    for artifact in reversed(documents.values()):
        yield from facts_of_diagnostics(artifact.value, artifact.path, artifact.file)


def facts_of_diagnostics(document: Mapping[str, Any], path: str, file: str) -> Iterator[Fact]:
    """Facts of one transfer.

    Args:
        document: Its diagnostics (`schemas/transfer_diagnostics.schema.json`).
        path: Path of their file inside its repo.
        file: The file, as findings name it.
    """
    whole = Selector(document["target"]["model"], layer=document["target"]["layer"], file=path)
    for end in ("source", "target"):
        agreement = document[end]["split_half_cosine"]
        if agreement is not None:
            select = replace(whole, variant=end)
            yield Fact("transfer_split_half_cosine", select, agreement, file, f"{end}.split_half_cosine")
    planned = document["plan"].get("protocol")
    for protocol, measured in document["protocols"].items():
        yield from _of_protocol(measured, whole, "" if protocol == planned else protocol, file, f"protocols.{protocol}")


def _of_protocol(measured: Mapping[str, Any], whole: Selector, protocol: str, file: str, where: str) -> Iterator[Fact]:
    rows = replace(whole, variant=protocol or None)
    note = f"{measured['n_rows']} rows of {measured['n_texts']} texts"
    yield Fact("transfer_rows", rows, measured["n_rows"], file, f"{where}.n_rows")
    for measure, key in OF_ROWS.items():
        yield from _tested(measure, measured[key], rows, file, f"{where}.{key}", note)
    for kind, its in measured["maps"].items():
        select = replace(whole, variant=f"{protocol} {kind}".strip())
        place = f"{where}.maps.{kind}"
        yield Fact("transfer_fitted_r2", select, its["fitted_r2"], file, f"{place}.fitted_r2", note)
        share = its["carried_norm_share"]
        yield Fact("transfer_norm_share", select, share, file, f"{place}.carried_norm_share")
        for measure, key in OF_MAPS.items():
            yield from _tested(measure, its[key], select, file, f"{place}.{key}", note)


def _tested(
    measure: str, test: Mapping[str, Any], select: Selector, file: str, where: str, note: str
) -> Iterator[Fact]:
    bound, p, draws = test["null_95"], test["p"], test["draws"]
    note = f"{note}; the null's 95th percentile of {draws} draws is {bound:.4g}, p {p:.3g}"
    yield Fact(measure, select, test["value"], file, where, note)
    yield Fact(f"{measure}_null", select, bound, file, where)
    yield Fact(f"{measure}_p", select, p, file, where)
    yield Fact(f"{measure}_exceeds_null", select, passes(p, draws), file, where, note)
