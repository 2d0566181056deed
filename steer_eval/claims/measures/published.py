"""Measures of judges, features, variants, alignments and files: what only the published data can tell.

Invariant: each looks up one fact, or the extreme of several; where the selector fits several different facts the claim
is not checkable, never one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import DEFINITIONS, Fact, Facts
from steer_eval.claims.measures.measure import Case, Evidence, Measure, NotCheckable, Observation
from steer_eval.claims.wording import quantity, subject

_PUBLISHED: frozenset[Evidence] = frozenset({"published data"})
_UNITS = {
    "mature_anger": "score",
    "juvenile_rage": "score",
    "coherence": "score",
    "margin": "score",
    "feature_count": "count",
    "feature_rank": "count",
    "feature_rank_by_delta": "count",
    "feature_rank_by_ratio": "count",
    "feature_coefficient": "coefficient",
    "feature_prompts": "count",
    "sae_dead_share": "per cent of features",
    "sae_training_tokens": "count",
    "sae_width": "count",
    "sae_k": "count",
    "base_perplexity": "perplexity",
    "vector_width": "count",
    "artifact_layer": "count",
    "applied_norm": "residual units",
    "carried_norm": "residual units",
    "carried_feature_norm": "residual units",
    "cosine": "cosine",
    "heldout_r2": "share of variance",
    "heldout_correlation_mean": "correlation",
    "heldout_correlation_highest": "correlation",
    "heldout_correlation_lowest": "correlation",
    "fitted_correlation_mean": "correlation",
    "correlation_count": "count",
    "map_penalty": "penalty",
    "prompts_per_cell": "count",
    "row_count": "count",
    "file_size": "bytes",
    "lowest_score": "score",
    "highest_score": "score",
}


def facts_in(case: Case) -> Facts:
    """What judges, features, variants and files say.

    Raises:
        NotCheckable: The results are of a run that measured none of it.
    """
    if case.results.facts is None:
        raise NotCheckable("judges' scores and feature tables: not measured")
    return case.results.facts


def _look_up(measure: str) -> Callable[[Case], Observation]:
    def observe(case: Case) -> Observation:
        return observation_of(only(facts_in(case).find(measure, case.select), measure, case.select))

    return observe


def only(found: Sequence[Fact], measure: str, select: Selector) -> Fact:
    """The one fact that a selector means.

    Args:
        found: The facts that fit it.
        measure: What was looked for.
        select: On what.

    Raises:
        NotCheckable: There is none, or several with other numbers.
    """
    if not found:
        raise NotCheckable(f"the data has no {quantity(measure)} of {subject(select)}")
    if len({fact.value for fact in found}) > 1:
        raise NotCheckable(f"the selector {str(select)!r} fits {len(found)} numbers, not one")
    # Of a row that stands twice, the one that is found fault with.
    return next((fact for fact in found if fact.conflict), found[0])


def observation_of(fact: Fact) -> Observation:
    """What a fact shows."""
    return Observation(fact.value, fact.file, fact.where, conflict=conflict_of([fact]), note=fact.note)


def _highest_mature_anger(case: Case) -> Observation:
    pattern = case.select.variant or "*"
    everything = Selector(file=case.select.file)
    scored = [
        fact
        for fact in facts_in(case).find("mature_anger", everything)
        if fact.select.variant is not None and fnmatchcase(fact.select.variant, pattern)
    ]
    found = [fact for fact in scored if not fact.imputed]
    if not found:
        why = ": none of them has a text to judge" if scored else ""
        raise NotCheckable(f"the data has no variant {pattern} with scores{why}")
    highest = max(found, key=lambda fact: fact.value)
    note = f"the highest of {len(found)}, of {highest.select.variant}"
    if len(scored) > len(found):
        left_out = ", ".join(str(fact.select.variant) for fact in scored if fact.imputed)
        note += f"; left out, having a score and no text: {left_out}"
    # Any of them may be the highest in truth.
    return Observation(highest.value, highest.file, highest.where, conflict=conflict_of(found), note=note)


def conflict_of(facts: Iterable[Fact]) -> str:
    """How the data contradicts itself about some facts, each row with its place; empty if it does not."""
    return "; ".join(dict.fromkeys(f"{fact.where}: {fact.conflict}" for fact in facts if fact.conflict))


def _is_score(unit: str) -> Callable[[Selector], bool]:
    return lambda _select: unit == "score"


MEASURES = (
    *(
        Measure(name, DEFINITIONS[name], unit, _look_up(name), evidence=_PUBLISHED, is_judged=_is_score(unit))
        for name, unit in _UNITS.items()
    ),
    Measure(
        "highest_mature_anger",
        "highest score of the wanted persona among variants with text whose labels fit a pattern",
        "score",
        _highest_mature_anger,
        evidence=_PUBLISHED,
        is_judged=_is_score("score"),
    ),
)
