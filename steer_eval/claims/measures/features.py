"""Measures over the rows of a feature table.

Invariant: each is about one table; where the selector fits several, or none, the claim is not checkable.
"""

from __future__ import annotations

from collections.abc import Mapping

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import Fact
from steer_eval.claims.measures.measure import Case, Evidence, Measure, NotCheckable, Observation
from steer_eval.claims.measures.published import conflict_of, facts_in
from steer_eval.claims.measures.rule import comparisons
from steer_eval.formats.features import CHANGES

_PUBLISHED: frozenset[Evidence] = frozenset({"published data"})
_PARTS = ("_low", "_high", "_q")
_COMPARED = (
    "feature_ratio",
    "feature_delta",
    "feature_base_mean",
    "feature_steered_mean",
    "feature_base_frequency",
    "feature_steered_frequency",
    "feature_base_token_frequency",
    "feature_steered_token_frequency",
    "feature_effect",
    "feature_predicted",
    *(f"feature_{change}{part}" for change in CHANGES[1:] for part in ("", *_PARTS)),
    *(f"feature_delta{part}" for part in _PARTS),
)


def _table(case: Case) -> dict[int, Mapping[str, Fact]]:
    """The facts of one feature table, by feature and measure, in the order of its rows."""
    facts = facts_in(case)
    select = Selector(case.select.model, layer=case.select.layer, file=case.select.file)
    places = facts.find("feature_rank", select)
    files = {fact.file for fact in places}
    if len(files) != 1:
        raise NotCheckable(f"the selector {str(select)!r} fits {len(files)} feature tables, not one")
    rows: dict[int, dict[str, Fact]] = {}
    for measure in ("feature_rank", "feature_rank_by_delta", *_COMPARED):
        for fact in facts.find(measure, select):
            if fact.select.feature is not None:
                rows.setdefault(fact.select.feature, {})[measure] = fact
    return dict(rows)


def _ranked_by_delta(case: Case) -> Observation:
    """Whether the places in a table are those by delta with its sign."""
    table = _table(case)
    conflict = conflict_of(row["feature_delta"] for row in table.values() if "feature_delta" in row)
    for feature, row in table.items():
        place = row["feature_rank"]
        if row["feature_rank_by_delta"].value != place.value:
            delta = float(row["feature_delta"].value)
            note = f"{place.note}; feature {feature} in place {place.value:g} has delta {delta:.3g}"
            return Observation(False, place.file, place.where, conflict=conflict, note=note)
    return Observation(True, next(iter(table.values()))["feature_rank"].file, "top_features", conflict=conflict)


def _passing(case: Case) -> Observation:
    table = _table(case)
    rule = comparisons(case.select.rule, _COMPARED)
    if not rule:
        raise NotCheckable("the claim states no rule, such as `feature_ratio >= 16`")
    passing = {feature: row for feature, row in table.items() if all(each.holds(row) for each in rule)}
    file = next(iter(table.values()))["feature_rank"].file
    where = ", ".join(row["feature_rank"].where for row in passing.values()) or "top_features"
    named = [f"feature {feature} ({float(row[rule[0].measure].value):.3g})" for feature, row in passing.items()]
    note = f"of {len(table)} listed features" + (f": {', '.join(named)}" if named else "")
    compared = [row[each.measure] for row in table.values() for each in rule if each.measure in row]
    return Observation(len(passing), file, where, conflict=conflict_of(compared), note=note)


MEASURES = (
    Measure(
        "ranked_by_delta",
        "whether a feature table is in the order of delta with its sign, and not of the size of delta",
        "truth value",
        _ranked_by_delta,
        evidence=_PUBLISHED,
    ),
    Measure(
        "features_passing",
        "number of features of a table that pass a rule, such as `feature_ratio >= 16`",
        "count",
        _passing,
        evidence=_PUBLISHED,
    ),
)
