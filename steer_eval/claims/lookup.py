"""Checking what a text says against the facts.

Invariant: a check is a pure function of an extracted claim and the facts. It names the file and row that it rests on; a
claim for which there is no fact, or several different ones, is not checkable, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from steer_eval.claims.causes import likely_cause
from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.extract.file_rows import names_file
from steer_eval.claims.extract.stated import NEEDS_RERUN
from steer_eval.claims.facts import Fact, Facts
from steer_eval.claims.printed import Printed
from steer_eval.claims.verdict import Check, Word
from steer_eval.claims.wording import files_named, found_in_file, quantity, subject
from steer_eval.findings import Finding
from steer_eval.rules.card_files import size_agrees

_SHARES_OF = {"feature_steered_frequency": "prompts", "feature_base_frequency": "prompts"}
_MARGIN = 1e-9
_OF_TRANSFER = frozenset(
    {
        "heldout_r2",
        "heldout_correlation_mean",
        "heldout_correlation_highest",
        "heldout_correlation_lowest",
        "fitted_correlation_mean",
        "correlation_count",
        "carried_norm",
        "carried_feature_norm",
        "map_penalty",
    }
)
"""Measures of two models, which no model, cell or judge in the words can select."""

_OF_SAES = frozenset({"sae_width", "sae_k"})

_OF_KINDS = frozenset({"cell_count", "collapsed_cells", "largest_coefficient_without_collapse"})
"""Measures of all cells of a kind: the steered ones, unless the words say another."""


def check(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> tuple[Check, tuple[Finding, ...]]:
    """Compare one claim with the published data.

    Args:
        extracted: The claim, or why there is none.
        facts: What the data says.
        conflicts: What contradicts itself: it can support nothing.

    Returns:
        The check, and warnings that do not change the verdict.
    """
    if not extracted.claim.measure:
        return _not_checkable(extracted.reason), ()
    if extracted.claim.measure == "best_cell":
        return _best_cell(extracted, facts, conflicts)
    if extracted.claim.measure in NEEDS_RERUN:
        return _not_checkable("needs a re-run"), ()
    # In a table of SAEs the layer says which is meant; elsewhere the file.
    by_layer = extracted.claim.measure in _OF_SAES and extracted.claim.select.file is None
    special = None if by_layer else _SPECIAL.get(extracted.claim.measure)
    return (special or _number)(extracted, facts, conflicts), ()


def _not_checkable(reason: str) -> Check:
    return Check("published data", None, "", "not-checkable", reason, "", "")


def _made(
    fact: Fact, holds: bool, reason: str, tolerance: str, conflicts: Conflicts, observed: float | bool | None = None
) -> Check:
    word: Word = "reproduced" if holds else "contradicted"
    conflict = conflicts.against(fact)
    if conflict:
        word, reason = "contradicted", "; ".join(part for part in (reason, conflict) if part)
    shown = fact.value if observed is None else observed
    return Check("published data", shown, tolerance, word, reason, fact.file, fact.where)


def _number(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    """A number of the data, found by its selector."""
    claim = extracted.claim
    select = _reduced(claim)
    found = facts.find(claim.measure, select)
    if claim.measure.startswith("transfer_") and select.variant is None:
        # Other protocols than the planned one go by their names.
        found = [fact for fact in found if fact.select.variant is None] or found
    if not found:
        return _not_checkable(_why_none(claim.measure, select, facts))
    values = {fact.value for fact in found}
    if isinstance(claim.expected, bool) and len(values) == 1:
        fact = found[0]
        return _made(fact, fact.value is claim.expected, fact.note, "exact", conflicts)
    if isinstance(claim.expected, bool) or len(values) > 1:
        places = "; ".join(dict.fromkeys(subject(fact.select).rstrip(",") for fact in found[:4]))
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        return _not_checkable(f"it may be any of {len(found)}: {places}{more}")
    # Of a cell that stands twice, the row that is found fault with.
    twice = [] if claim.measure == "base_perplexity" else found
    fact = next((fact for fact in twice if conflicts.against(fact)), found[0])
    reasons: list[str] = []
    holds = _covers(extracted, claim.expected, float(fact.value))
    counted = _SHARES_OF.get(claim.measure)
    if not holds:
        reasons.append(f"{quantity(claim.measure)} is {float(fact.value):.6g}")
        reasons.append(likely_cause(claim.expected, fact, select, facts))
    elif counted and extracted.noun and extracted.noun != counted:
        holds = False
        reasons.append(f"definition: the data has the share of {counted}, not of {extracted.noun}")
    reason = "; ".join(part for part in (*reasons, fact.note) if part)
    return _made(fact, holds, reason, _tolerance(extracted, claim.expected), conflicts)


def _reduced(claim: Claim) -> Selector:
    """The parts of a claim's selector that its measure has."""
    select = claim.select
    if claim.measure in _OF_KINDS and select.label is None:
        return replace(select, label="steered")
    between_layers = (select.variant or "").startswith("L=")
    if claim.measure in _OF_TRANSFER or (claim.measure == "cosine" and not between_layers):
        return Selector(feature=select.feature, variant=select.variant, file=select.file)
    return Selector(select.model, variant=select.variant) if claim.measure == "cosine" else select


def _covers(extracted: Extracted, expected: Printed, value: float) -> bool:
    if extracted.bound == "<":
        return value <= expected.value
    if extracted.bound == ">":
        return value >= expected.value
    return expected.covers(value)


def _tolerance(extracted: Extracted, expected: Printed) -> str:
    return f"{extracted.bound}{expected.value:g}" if extracted.bound else f"±{expected.rounding:g}"


def _why_none(measure: str, select: Selector, facts: Facts) -> str:
    """Why there is no fact: which part of the selector nothing has."""
    if not facts.find(measure, Selector()):
        return f"the data has no {quantity(measure)}"
    if select.file is not None:
        return f"the file is absent: {select.file}"
    near = facts.near(measure, select)
    known = f"; the nearest is {subject(near[0].select)}" if near else ""
    return f"the data has no {quantity(measure)} of {subject(select)}{known}"


def _of_files(
    extracted: Extracted,
    facts: Facts,
    conflicts: Conflicts,
    holds: Callable[[Extracted, Fact], bool],
    together: Callable[[Extracted, Sequence[Fact]], bool] | None = None,
) -> Check:
    """A statement about each of several files, or about all of them together."""
    claim = extracted.claim
    all_facts = facts.find(claim.measure, Selector())
    patterns = (claim.select.file or "").split("|")
    absent: list[str] = []
    checked: list[Fact] = []
    for pattern in patterns:
        found = [fact for fact in all_facts if fact.select.file and names_file(pattern, fact.select.file)]
        checked += found
        if not found:
            absent.append(pattern)
    if not checked:
        sized = [fact.select.file or "" for fact in facts.find("file_size", Selector())]
        present = [path for path in sized if any(names_file(pattern, path) for pattern in patterns)]
        if present:
            return _not_checkable(f"the data has no {quantity(claim.measure)} of {present[0]}")
        return _not_checkable(f"the file is absent: {', '.join(absent)}")
    if together is not None and together(extracted, checked):
        return _made(checked[0], True, "all files together", _allowed(extracted), conflicts)
    wrong = [fact for fact in checked if not holds(extracted, fact)]
    shown = wrong[0] if wrong else checked[0]
    reasons = [f"{fact.select.file} {found_in_file(claim.measure, float(fact.value))}" for fact in wrong[:4]]
    if len(wrong) > 4:
        reasons.append(f"and {len(wrong) - 4} more")
    reasons += [f"the file is absent: {path}" for path in absent]
    if absent and not wrong:
        # What holds of the files that are there may not hold of the others.
        there = files_named("|".join(fact.select.file or "" for fact in checked))
        return _not_checkable("; ".join([*reasons, f"it holds of {there}"]))
    return _made(shown, not wrong, "; ".join(reasons), _allowed(extracted), conflicts)


def _allowed(extracted: Extracted) -> str:
    """The tolerance of a statement about files."""
    expected = extracted.claim.expected
    if isinstance(expected, bool):
        return "exact"
    if extracted.claim.measure != "file_size":
        return _tolerance(extracted, expected)
    if extracted.bound:
        return f"{extracted.bound} {expected.text.lstrip('<>≤≥= ')}"
    return "±10 %" if expected.text.startswith(("~", "≈")) else "rounding"


def _size(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    def agrees(stated: Extracted, size: float) -> bool:
        return isinstance(stated.claim.expected, Printed) and size_agrees(stated.claim.expected.text, int(size))

    def each(stated: Extracted, fact: Fact) -> bool:
        return stated.noun != "total" and agrees(stated, float(fact.value))

    def all_together(stated: Extracted, found: Sequence[Fact]) -> bool:
        return stated.noun != "each" and len(found) > 1 and agrees(stated, sum(float(fact.value) for fact in found))

    single = len(facts.find("file_size", extracted.claim.select)) == 1
    return _of_files(replace(extracted, noun="") if single else extracted, facts, conflicts, each, all_together)


def _count_of_files(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    return _of_files(
        extracted,
        facts,
        conflicts,
        lambda each, fact: (
            isinstance(each.claim.expected, Printed) and _covers(each, each.claim.expected, float(fact.value))
        ),
    )


def _prompts(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    """A number of evaluation prompts: of all, unless it is the number that each cell was given."""
    made = _number(extracted, facts, conflicts)
    expected = extracted.claim.expected
    used = facts.find("prompts_per_cell", Selector())
    if made.verdict == "contradicted" and isinstance(expected, Printed):
        meant = [fact for fact in used if expected.covers(float(fact.value))]
        if meant:
            return _not_checkable(f"it may be the number of prompts per cell ({meant[0].file}), and not of all prompts")
    return made


def _place_by_delta(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    """A feature's place by delta: with its sign, unless it is the place by the size of delta."""
    made = _number(extracted, facts, conflicts)
    expected = extracted.claim.expected
    places = facts.find("feature_rank", extracted.claim.select)
    if made.verdict != "contradicted" or isinstance(expected, bool):
        return made
    for place in places:
        if len(places) == 1 and expected.covers(float(place.value)) and not conflicts.against(place):
            return _not_checkable(f"it may be the place by the size of delta ({place.file}), and not by its value")
    return made


def _scores(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    """The ends of the judge's scale: no score lies beyond them."""
    claim = extracted.claim
    lower = claim.measure == "scores_from"
    found = facts.find("lowest_score" if lower else "highest_score", claim.select)
    if not found or isinstance(claim.expected, bool):
        return _not_checkable("the data has no scores")
    extreme = (min if lower else max)(found, key=lambda fact: float(fact.value))
    limit = claim.expected.value
    holds = float(extreme.value) >= limit if lower else float(extreme.value) <= limit
    bound = f"≥{limit:g}" if lower else f"≤{limit:g}"
    return _made(extreme, holds, "" if holds else f"a score is {float(extreme.value):g}", bound, conflicts)


def _collapse_ratio(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    """The ratio above which cells are called collapsed: the marks of all of them are as it says."""
    expected = extracted.claim.expected
    marks = {(fact.file, fact.where): fact for fact in facts.find("collapsed", Selector()) if fact.select.label}
    ratios = [fact for fact in facts.find("perplexity_ratio", Selector()) if (fact.file, fact.where) in marks]
    if not ratios or isinstance(expected, bool):
        return _not_checkable("the data has no marks of collapse")
    wrong = [
        fact
        for fact in ratios
        if (float(fact.value) > expected.value) is not marks[fact.file, fact.where].value
        and not conflicts.against(fact)
    ]
    if not wrong:
        between = f"the marks of {len(ratios)} cells are as it says"
        return _made(ratios[0], True, between, "exact", conflicts, observed=expected.value)
    shown = wrong[0]
    mark = "is" if marks[shown.file, shown.where].value else "is not"
    reason = f"a cell with ratio {float(shown.value):.6g} {mark} marked as collapsed"
    return _made(shown, False, reason, "exact", conflicts)


def _listed(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> Check:
    """A feature stands in a table."""
    select = extracted.claim.select
    found = facts.find("feature_delta", select)
    if found:
        return _made(found[0], True, "", "exact", conflicts, observed=True)
    elsewhere = facts.find("feature_delta", replace(select, model=None))
    if elsewhere:
        other = elsewhere[0]
        reason = f"it is a feature of {other.select.model}"
        return _made(other, False, reason, "exact", conflicts, observed=False)
    return _not_checkable(f"no feature table lists feature {select.feature}")


def _best_cell(extracted: Extracted, facts: Facts, conflicts: Conflicts) -> tuple[Check, tuple[Finding, ...]]:
    """The cell of the highest margin, among those with text that was judged; all ties are shown."""
    select = extracted.claim.select
    if select.judge is None:
        return _not_checkable("the text does not say which judge's scores these are"), ()
    judged = [
        fact
        for fact in facts.find("margin", Selector(select.model, judge=select.judge))
        if not fact.imputed and fact.select.layer is not None
    ]
    models = {fact.select.model for fact in judged}
    if len(models) > 1:
        return _not_checkable(f"the text does not say which of {len(models)} models it is the best cell of"), ()
    mine = next((fact for fact in judged if _is_cell(fact, select)), None)
    if mine is None:
        return _not_checkable(f"{select.judge} gave no score for {subject(replace(select, judge=None))}"), ()
    highest = max(float(fact.value) for fact in judged)
    best = [fact for fact in judged if float(fact.value) >= highest - _MARGIN]
    holds = mine in best
    if not holds:
        reason = f"its margin is {float(mine.value):g}; the highest is {highest:g}, of {_cells(best)}"
        return _made(mine, False, reason, "highest margin", conflicts, observed=False), ()
    reason = f"its margin {highest:g} is the highest"
    if len(best) > 1:
        reason = f"one of {len(best)} cells with the highest margin {highest:g}"
    check = _made(mine, True, reason, "highest margin", conflicts, observed=True)
    if len(best) == 1:
        return check, ()
    message = f"{len(best)} cells of {select.model} have the highest margin {highest:g}: {_cells(best)}"
    fix = "say by which rule one of them was chosen"
    tie = Finding(
        "best-cell-tie", "warning", "", f"line {extracted.line}", message, None, subject(select).rstrip(","), fix
    )
    return check, (tie,)


def _is_cell(fact: Fact, select: Selector) -> bool:
    return (fact.select.layer, fact.select.coef) == (select.layer, select.coef)


def _cells(facts: Sequence[Fact]) -> str:
    return ", ".join(f"L={fact.select.layer} c={fact.select.coef:+g}" for fact in facts)


_SPECIAL: dict[str, Callable[[Extracted, Facts, Conflicts], Check]] = {
    "file_size": _size,
    "row_count": _count_of_files,
    "feature_count": _count_of_files,
    "sae_width": _count_of_files,
    "sae_k": _count_of_files,
    "artifact_layer": _count_of_files,
    "prompt_count": _prompts,
    "feature_rank_by_delta": _place_by_delta,
    "collapse_ratio": _collapse_ratio,
    "scores_from": _scores,
    "scores_to": _scores,
    "feature_listed": _listed,
}
