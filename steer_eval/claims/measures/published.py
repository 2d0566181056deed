"""Measures of judges, features and variants: what only the published data can tell.

Invariant: each looks up one fact, or the extreme of several; where the selector fits several different facts the claim
is not checkable, never one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from steer_eval.claims.claim import Selector
from steer_eval.claims.facts import DEFINITIONS, Fact, Facts
from steer_eval.claims.measures.measure import Case, Evidence, Measure, NotCheckable, Observation

_PUBLISHED: frozenset[Evidence] = frozenset({"published data"})
_UNITS = {
    "mature_anger": "score",
    "juvenile_rage": "score",
    "coherence": "score",
    "margin": "score",
    "feature_delta": "activation",
    "feature_base_mean": "activation",
    "feature_steered_mean": "activation",
    "feature_ratio": "ratio",
    "feature_steered_frequency": "per cent of prompts",
    "feature_base_frequency": "per cent of prompts",
    "feature_count": "count",
    "sae_width": "count",
    "sae_k": "count",
}


def _facts(case: Case) -> Facts:
    if case.results.facts is None:
        raise NotCheckable("judges' scores and feature tables: not measured")
    return case.results.facts


def _look_up(measure: str) -> Callable[[Case], Observation]:
    def observe(case: Case) -> Observation:
        found = _facts(case).find(measure, case.select)
        if not found:
            raise NotCheckable(f"the data has no {measure.replace('_', ' ')} of {case.select}")
        if len({fact.value for fact in found}) > 1:
            raise NotCheckable(f"the selector {str(case.select)!r} fits {len(found)} numbers, not one")
        return _observation(found[0])

    return observe


def _highest_mature_anger(case: Case) -> Observation:
    pattern = case.select.variant or "*"
    everything = Selector(file=case.select.file)
    found = [
        fact
        for fact in _facts(case).find("mature_anger", everything)
        # A score without a text was made up.
        if fact.select.variant is not None and fnmatchcase(fact.select.variant, pattern) and not fact.note
    ]
    if not found:
        raise NotCheckable(f"the data has no variant {pattern} with scores")
    highest = max(found, key=lambda fact: fact.value)
    return Observation(
        highest.value, highest.file, highest.where, note=f"the highest of {len(found)}, of {highest.select.variant}"
    )


def _observation(fact: Fact) -> Observation:
    return Observation(fact.value, fact.file, fact.where, note=fact.note)


MEASURES = (
    *(Measure(name, DEFINITIONS[name], unit, _look_up(name), evidence=_PUBLISHED) for name, unit in _UNITS.items()),
    Measure(
        "highest_mature_anger",
        "highest score of the wanted persona among variants whose labels fit a pattern",
        "score",
        _highest_mature_anger,
        evidence=_PUBLISHED,
    ),
)
