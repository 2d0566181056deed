"""A ranking by delta that is one by its size is named; words that say so are right."""

from __future__ import annotations

import pytest

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.fact import Fact, Facts
from steer_eval.claims.printed import Printed
from steer_eval.claims.ranking import ranking_warnings


def table(*deltas: float) -> Facts:
    """A table whose rows are in this order."""
    by_delta = sorted(deltas, reverse=True)
    facts = []
    for index, delta in enumerate(deltas):
        select = Selector("fox", feature=index, file="saes/fox_features.json")
        for measure, value in (
            ("feature_delta", delta),
            ("feature_rank", index + 1),
            ("feature_rank_by_delta", by_delta.index(delta) + 1),
        ):
            facts.append(Fact(measure, select, value, "m/saes/fox_features.json", f"top_features[{index}]", "in order"))
    return Facts(facts)


def warnings(
    line: str, facts: Facts, *, measure: str = "feature_count", file: str = "saes/*_features.json"
) -> list[str]:
    claim = Claim("3:1", "", measure, Selector(file=file), Printed("30", 30, 0.5))
    return [each.message for each in ranking_warnings(Extracted(claim, 3, 0, 2), line, facts)]


MIXED, RISING = table(3.0, -2.0, 1.0), table(3.0, 2.0, 1.0)


def test_the_first_feature_out_of_place_is_named_with_its_delta() -> None:
    [message] = warnings("Top-30 features ranked by activation delta", MIXED)

    assert "saes/fox_features.json" in message
    assert "feature 1 stands in place 2 with delta -2 (top_features[1])" in message


@pytest.mark.parametrize(
    "line",
    [
        "Top-30 features",
        "Top-30 features ranked by ratio",
        "Top-30 features ranked by |delta|",
        "Top-30 features ranked by absolute delta",
        "Top-30 features sorted by the size of delta",
    ],
)
def test_other_words_claim_no_such_order(line: str) -> None:
    assert warnings(line, MIXED) == []


def test_a_table_in_the_order_of_delta_is_as_the_words_say() -> None:
    assert warnings("Top-30 features ranked by delta", RISING) == []


def test_only_the_tables_that_the_row_names_are_looked_at() -> None:
    line = "Top-30 features ranked by delta"

    assert warnings(line, MIXED, file="saes/bear_features.json") == []
    assert warnings(line, MIXED, measure="sae_width") == []
