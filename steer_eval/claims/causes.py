"""Likely causes of a number that the data contradicts.

Invariant: a cause is only named when it gives exactly the number that is printed; it is a hint beside the verdict and
never changes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import AXES, Fact, Facts
from steer_eval.claims.printed import Printed
from steer_eval.claims.wording import quantity, subject

_GROUPS = (
    (*AXES, "margin"),
    ("perplexity", "base_perplexity", "perplexity_ratio"),
    ("feature_delta", "feature_base_mean", "feature_steered_mean", "feature_ratio"),
    ("feature_steered_frequency", "feature_base_frequency"),
)
_PARTS = {
    "model": "another model",
    "layer": "another layer",
    "coef": "another coefficient",
    "judge": "another judge",
    "feature": "another feature",
    "variant": "another variant",
}


def likely_cause(printed: Printed, fact: Fact, select: Selector, facts: Facts) -> str:
    """Why a number may differ from the data; empty if nothing explains it.

    Args:
        printed: The number of the text.
        fact: What the data has.
        select: What the claim is about.
        facts: All facts.
    """
    return next(_causes(printed, fact, select, facts), "")


def _causes(printed: Printed, fact: Fact, select: Selector, facts: Facts) -> Iterator[str]:
    value = float(fact.value)
    for other in _same_row(fact, facts):
        if printed.covers(float(other.value)):
            yield f"it is the {quantity(other.measure)} of the same row"
    # Nearly anything small is printed as 0, so that a slip explains nothing there.
    for cause, changed in _slips(fact.measure, value) if printed.value else ():
        if math.isfinite(changed) and printed.covers(changed):
            yield f"{cause} gives {printed.text}"
    # Of every table some feature stands in any place.
    for part, words in () if fact.measure.startswith("feature_rank") else _PARTS.items():
        for other in facts.near(fact.measure, select):
            differs = getattr(other.select, part) != getattr(select, part) and getattr(select, part) is not None
            if differs and printed.covers(float(other.value)):
                yield f"it is that of {words}: {subject(other.select)} ({other.file}, {other.where})"


def _same_row(fact: Fact, facts: Facts) -> list[Fact]:
    group = next((group for group in _GROUPS if fact.measure in group), ())
    alike = facts.of(fact.select, [measure for measure in group if measure != fact.measure])
    return [other for other in alike if (other.file, other.where) == (fact.file, fact.where)]


def _slips(measure: str, value: float) -> Iterator[tuple[str, float]]:
    """What goes wrong between a number and the page, as far as the measure allows it."""
    if value:
        yield "the sign turned round", -value
    if measure.endswith("_frequency"):
        yield "a share printed as per cent, or taken for one,", value * 100
        yield "a share printed as per cent, or taken for one,", value / 100
    if measure.endswith("_ratio"):
        if value:
            yield "the ratio taken the wrong way round", 1 / value
        yield "the change instead of the ratio", value - 1
        yield "the ratio taken twice", value * value
    if measure.endswith(("_ratio", "perplexity")) and value > 0:
        yield "the logarithm instead of the number", math.log(value)
