"""The table of verdicts has columns for the evidence that there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.printed import Printed
from steer_eval.claims.verdict import Check, Verdict
from steer_eval.cli.verdict_table import reasons_of, verdict_table


def check(evidence: str, *, made: bool) -> Check:
    if made:
        return Check(evidence, 1.5, "±0.005", "reproduced", "", "sweep.jsonl", "line 1")  # type: ignore[arg-type]
    return Check(evidence, None, "", "not-checkable", "needs a re-run", "", "")  # type: ignore[arg-type]


def headers(*verdicts: tuple[Check, ...]) -> list[str]:
    claim = Claim("one", "The ratio is 1.50.", "perplexity_ratio", Selector(), Printed.parse("1.50"))
    return [
        str(column.header)
        for column in verdict_table([Verdict(claim, "study.yaml", None, checks) for checks in verdicts]).columns
    ]


def reasons(*said: str, known: tuple[str, ...] = ()) -> list[str]:
    claim = Claim("one", "The ratio is 1.50.", "perplexity_ratio", Selector(), Printed.parse("1.50"))
    checks = tuple(replace(check("re-run", made=True), reason=reason) for reason in said)
    return reasons_of(Verdict(claim, "study.yaml", None, checks), known)


def test_what_both_checks_say_is_said_once() -> None:
    note = "691 rows of 60 texts; 95 % of 200 draws"

    assert "; ".join(reasons(note, note)) == note
    assert "; ".join(reasons(note, f"{note}; another machine class")) == f"{note}; another machine class"
    assert reasons("one", "", "another") == ["one", "another"]
    assert reasons("one", "no judge", known=("no judge",)) == ["one"]


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("rerun", [True, False])
def test_evidence_that_nothing_was_checked_on_has_no_column(published: bool, rerun: bool) -> None:
    found = headers((check("published data", made=published), check("re-run", made=rerun)))

    both = ["claim", "expected", "published data", "verdict", "re-run", "verdict"]
    alone = "published data" if published else "re-run"
    expected = both if published == rerun else ["claim", "expected", alone, "tolerance", "verdict"]
    assert found == expected


def test_one_check_that_was_made_is_enough() -> None:
    made, absent = (check("re-run", made=True),), (check("re-run", made=False),)
    published = (check("published data", made=True),)

    assert headers(published, (*published, *absent), (*published, *made))[2::2] == ["published data", "re-run"]
    assert headers(published, (*published, *absent))[2:] == ["published data", "tolerance", "verdict"]
