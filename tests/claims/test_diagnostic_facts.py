"""Facts of transfers, from diagnostics whose numbers are known."""

from __future__ import annotations

import pytest
from measured_documents import DIAGNOSTICS

from steer_eval.claims.claim import Selector
from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.diagnostic_facts import facts_of_diagnostics
from steer_eval.findings import Finding
from steer_eval.formats import schema

FACTS = [*facts_of_diagnostics(DIAGNOSTICS, "transfer/d.json", "m/transfer/d.json")]


def value(measure: str, variant: str | None) -> float | bool:
    [fact] = [fact for fact in FACTS if (fact.measure, fact.select.variant) == (measure, variant)]
    return fact.value


def test_the_documents_are_good() -> None:
    schema.check(DIAGNOSTICS, "transfer_diagnostics", file="d.json")


def test_they_are_of_the_end_that_is_carried_to() -> None:
    assert {(fact.select.model, fact.select.layer, fact.select.file) for fact in FACTS} == {
        ("other", 1, "transfer/d.json")
    }


def test_a_statistic_stands_beside_its_null() -> None:
    numbers = [value(f"transfer_cka{part}", None) for part in ("", "_null", "_p", "_exceeds_null")]
    assert numbers == [0.3, 0.05, 0.05, True]
    assert value("transfer_svcca", None) == pytest.approx(0.31)
    assert value("transfer_svcca_exceeds_null", None) is False
    assert value("transfer_retrieval_exceeds_null", "ridge") is False


@pytest.mark.parametrize(
    ("draws", "p", "exceeds"),
    [(20, 0.047619, True), (20, 0.095238, False), (39, 0.05, True), (40, 0.073171, False), (18, 0.052632, False)],
)
def test_more_than_the_null_is_the_test_at_five_percent(draws: int, p: float, exceeds: bool) -> None:
    """Whatever bound stands beside it: in older files one between two draws, which more than 5 % of a null exceed."""
    protocol = DIAGNOSTICS["protocols"]["plain"]
    measured = {**protocol, "debiased_cka": {"value": 0.3, "null_95": 0.2, "p": p, "draws": draws}}
    found = facts_of_diagnostics({**DIAGNOSTICS, "protocols": {"plain": measured}}, "d", "d")

    assert [fact.value for fact in found if fact.measure == "transfer_cka_exceeds_null"] == [exceeds]


def test_the_planned_protocol_goes_by_the_kind_of_map_and_another_by_its_name_too() -> None:
    assert value("transfer_heldout_r2", "procrustes") == pytest.approx(0.42)
    assert value("transfer_heldout_r2", "plain procrustes") == pytest.approx(0.22)
    assert value("transfer_cka", "plain") == 0.1
    assert value("transfer_fitted_r2", "random") == pytest.approx(0.8)
    assert value("transfer_norm_share", "plain random") == 0.75
    assert value("transfer_rows", None) == 500
    assert (value("transfer_split_half_cosine", "source"), value("transfer_split_half_cosine", "target")) == (0.9, 0.8)


def test_a_reader_sees_the_null_beside_the_number() -> None:
    [fact] = [fact for fact in FACTS if fact.measure == "transfer_cosine" and fact.select == Selector(
        "other", layer=1, variant="ridge", file="transfer/d.json"
    )]  # fmt: skip

    assert fact.note == "500 rows of 60 texts; the null's 95th percentile of 19 draws is 0.02, p 0.05"
    assert fact.where == "protocols.recommended.maps.ridge.cosine_to_native"


def test_an_end_of_one_pair_has_no_agreement() -> None:
    document = {**DIAGNOSTICS, "source": {**DIAGNOSTICS["source"], "split_half_cosine": None}}
    found = [*facts_of_diagnostics(document, "d", "d")]

    assert [fact.select.variant for fact in found if fact.measure == "transfer_split_half_cosine"] == ["target"]


def touched(where: str) -> set[tuple[str, str | None]]:
    finding = Finding("transfer-diagnostics", "error", "m/transfer/d.json", where, "no")
    against = Conflicts.of([finding]).against
    return {(fact.measure, fact.select.variant) for fact in FACTS if against(fact)}


def test_a_finding_touches_the_test_that_it_is_about() -> None:
    parts = ("", "_null", "_p", "_exceeds_null")
    assert touched("protocols.recommended.maps.ridge.retrieval.p") == {
        (f"transfer_retrieval{part}", "ridge") for part in parts
    }
    assert touched("protocols.plain.debiased_cka.value") == {(f"transfer_cka{part}", "plain") for part in parts}
    assert touched("protocols.plain.maps.random.carried_norm_share") == {("transfer_norm_share", "plain random")}
    assert touched("protocols.recommended.n_rows") == {("transfer_rows", None)}


@pytest.mark.parametrize("where", ["pairs.sha256", "source.weights_sha256", "text_sha256", "plan"])
def test_what_it_was_made_on_is_behind_every_number(where: str) -> None:
    assert touched(where) == {(fact.measure, fact.select.variant) for fact in FACTS}
