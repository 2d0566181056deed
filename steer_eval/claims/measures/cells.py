"""Measures over the judged cells of a model: which are best, and how many pass a rule.

Invariant: a score that stands where there was no text to judge makes no cell best and passes no rule; all ties are
named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import AXES, Fact, Facts
from steer_eval.claims.measures.measure import Case, Evidence, Measure, NotCheckable, Observation
from steer_eval.claims.measures.published import conflict_of, facts_in
from steer_eval.claims.measures.rule import comparisons

_PUBLISHED: frozenset[Evidence] = frozenset({"published data"})
_SCORES = (*AXES, "margin")
_OF_SWEEPS = ("perplexity_ratio", "perplexity")
_COMPARED = (*_SCORES, *_OF_SWEEPS)
_SAME = 1e-9


@dataclass(frozen=True)
class _Cell:
    """A steered cell with what was measured of it, as facts by measure."""

    layer: int
    coef: float
    facts: Mapping[str, Fact]

    def __str__(self) -> str:
        return str(Selector(layer=self.layer, coef=self.coef))


def _cells(case: Case, *, judged: bool) -> list[_Cell]:
    """The steered cells of the selected model; of a judge's scores only those for texts.

    Args:
        case: What the measure is taken on.
        judged: Whether scores are needed, so that the judge must be known and a cell without a score is left out.

    Raises:
        NotCheckable: The data has no such cells, or the claim leaves open which judge's scores are meant.
    """
    facts, model, judge = facts_in(case), case.model, case.select.judge
    if judged and judge is None:
        judge = _only_judge(facts, model)
    found: dict[tuple[int, float], dict[str, Fact]] = {}
    sources = [*((measure, None) for measure in _OF_SWEEPS), *((measure, judge) for measure in _SCORES if judged)]
    for measure, by in sources:
        for fact in facts.find(measure, Selector(model, "steered", judge=by)):
            if fact.select.layer is not None and fact.select.coef is not None and not fact.imputed:
                found.setdefault((fact.select.layer, fact.select.coef), {}).setdefault(measure, fact)
    cells = [_Cell(layer, coef, facts) for (layer, coef), facts in found.items() if not judged or "margin" in facts]
    if not cells:
        by = f" judged by {judge}" if judge else ""
        raise NotCheckable(f"the data has no cells of {model}{by}")
    return cells


def _only_judge(facts: Facts, model: str) -> str | None:
    judges = {fact.select.judge for fact in facts.find("margin", Selector(model, "steered"))}
    if len(judges) > 1:
        raise NotCheckable("the claim names none of the judges " + ", ".join(sorted(map(str, judges))))
    return next(iter(judges), None)


def best_cells(case: Case) -> tuple[list[_Cell], list[_Cell]]:
    """The cells of the highest margin among those that pass the claim's rule, and all that do.

    Raises:
        NotCheckable: No such cell was judged, or the claim leaves open what is meant.
    """
    rule = comparisons(case.select.rule, _COMPARED)
    passing = [cell for cell in _cells(case, judged=True) if all(each.holds(cell.facts) for each in rule)]
    if not passing:
        raise NotCheckable(f"no judged cell of {case.model} passes {case.select.rule}")
    highest = max(float(cell.facts["margin"].value) for cell in passing)
    return [cell for cell in passing if float(cell.facts["margin"].value) >= highest - _SAME], passing


def _is_best(case: Case) -> Observation:
    best, passing = best_cells(case)
    chosen = (case.select.layer, case.select.coef)
    mine = next((cell for cell in passing if (cell.layer, cell.coef) == chosen), None)
    cell = str(Selector(layer=case.select.layer, coef=case.select.coef)) or "the selected cell"
    note = _ties(best)
    if mine is None:
        # A stated rule that leaves a cell out says that it is not the best one.
        judged = [each for each in _cells(case, judged=True) if (each.layer, each.coef) == chosen]
        if not judged:
            raise NotCheckable(f"no text of {cell} was judged")
        [mine] = judged
        note = f"{cell} does not pass {case.select.rule}; {note}"
    fact = mine.facts["margin"]
    return Observation(mine in best, fact.file, fact.where, conflict=conflict_of([fact]), note=note)


def _ties(best: list[_Cell], cells: str = "cells") -> str:
    highest = float(best[0].facts["margin"].value)
    if len(best) == 1:
        return f"the highest margin is {highest:g}, of {best[0]}"
    return f"{len(best)} {cells} have the highest margin {highest:g}: {', '.join(map(str, best))}"


def _highest_margin(case: Case) -> Observation:
    best, _ = best_cells(case)
    margins = [cell.facts["margin"] for cell in best]
    fact = margins[0]
    return Observation(fact.value, fact.file, fact.where, conflict=conflict_of(margins), note=_ties(best))


def _tied(case: Case) -> Observation:
    best, _ = best_cells(case)
    margins = [cell.facts["margin"] for cell in best]
    fact = margins[0]
    return Observation(len(best), fact.file, fact.where, conflict=conflict_of(margins), note=_ties(best))


def _passing(case: Case) -> Observation:
    facts_in(case)
    rule = comparisons(case.select.rule, _COMPARED)
    if not rule:
        raise NotCheckable("the claim states no rule, such as `margin > 0`")
    judged = any(each.measure in _SCORES for each in rule)
    cells = _cells(case, judged=judged)
    passing = [cell for cell in cells if all(each.holds(cell.facts) for each in rule)]
    measure = next(each.measure for each in rule)
    shown = next(cell.facts[measure] for cell in cells if measure in cell.facts)
    note = f"of {len(cells)} {'judged cells' if judged else 'cells'}"
    compared = [cell.facts[each.measure] for cell in cells for each in rule if each.measure in cell.facts]
    return Observation(len(passing), shown.file, f"{len(cells)} rows", conflict=conflict_of(compared), note=note)


def _always(_select: Selector) -> bool:
    return True


def _rule_is_judged(select: Selector) -> bool:
    return any(score in (select.rule or "") for score in _SCORES)


def ties_of(case: Case) -> str:
    """Which cells share the highest margin, in words; empty where only one has it.

    Raises:
        NotCheckable: As `best_cells`.
    """
    best, _ = best_cells(case)
    return _ties(best, f"cells of {case.model}") if len(best) > 1 else ""


MEASURES = (
    Measure(
        "best_cell",
        "whether a cell has the highest margin by a judge among the cells with text that pass a rule, if one is "
        "stated; ties count, and are named",
        "truth value",
        _is_best,
        evidence=_PUBLISHED,
        is_judged=_always,
    ),
    Measure(
        "tied_best_cells",
        "number of cells that share the highest margin by a judge, among those that pass a rule, if one is stated",
        "count",
        _tied,
        evidence=_PUBLISHED,
        is_judged=_always,
    ),
    Measure(
        "highest_margin",
        "highest margin by a judge among the cells with text that pass a rule, if one is stated",
        "score",
        _highest_margin,
        evidence=_PUBLISHED,
        is_judged=_always,
    ),
    Measure(
        "cells_passing",
        "number of steered cells that pass a rule, such as `margin > 0 and perplexity_ratio <= 1.5`; a cell without "
        "text passes none on scores",
        "count",
        _passing,
        evidence=_PUBLISHED,
        is_judged=_rule_is_judged,
    ),
)
