"""Measures of cells: of the sweep, and of the comparison of methods where the selector names a `variant`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from steer_eval.cells import Cell, plan, wants_text
from steer_eval.claims.claim import Label, Selector
from steer_eval.claims.measures.measure import Case, Measure, Needs, NotCheckable, Observation, selected_model
from steer_eval.comparison.cells import UNSTEERED, comparison_cells
from steer_eval.consistency import ratio_interval_of, row_conflicts
from steer_eval.results import Results, Sweep, SweepRow, Text
from steer_eval.results_files import comparison_file, sweep_file
from steer_eval.study import Study


def _cells(study: Study, select: Selector) -> list[Cell]:
    """The cells of the sweep, or, where a method is named, of the comparison."""
    model = selected_model(study, select)
    if select.variant is None:
        return plan(study, model)
    cells = comparison_cells(study, model)
    if not cells:
        raise NotCheckable(f"the study compares no methods on {model}")
    return [cell for cell in cells if cell.variant is not None and fnmatchcase(cell.variant, select.variant)]


def _cell(study: Study, select: Selector) -> Cell:
    of_method = select.variant is not None and select.label is None
    labels: tuple[Label, ...] = ("steered", "zero") if of_method else (select.label or "steered",)
    matching = [
        cell
        for cell in _cells(study, select)
        if cell.label in labels and select.layer in (None, cell.layer) and select.coef in (None, cell.coef)
    ]
    if len(matching) != 1:
        table = "sweep" if select.variant is None else "comparison"
        raise NotCheckable(
            f"the selector {str(select) or 'of the claim'!r} fits {len(matching)} cells of the {table}, not one"
        )
    return matching[0]


def _sweep(case: Case, results: Results) -> Sweep:
    if case.select.variant is not None:
        return _comparison(case, results)
    sweep = results.sweeps.get(case.model)
    if sweep is None:
        raise NotCheckable(results.why_absent(sweep_file(case.model)))
    return sweep


def _comparison(case: Case, results: Results) -> Sweep:
    comparison = results.comparisons.get(case.model)
    if comparison is None:
        raise NotCheckable(results.why_absent(comparison_file(case.model)))
    return comparison


def _row(case: Case, results: Results) -> tuple[Sweep, SweepRow]:
    sweep = _sweep(case, results)
    return sweep, _found(sweep, _cell(case.study, case.select))


def _found(sweep: Sweep, cell: Cell) -> SweepRow:
    row = sweep.find(cell)
    if row is None:
        raise NotCheckable(f"{sweep.file}: no row for {cell}")
    return row


def _where(row: SweepRow) -> str:
    return "" if row.line is None else f"line {row.line}"


def _needs_perplexity(study: Study, select: Selector) -> Needs:
    return Needs(perplexity=frozenset({_cell(study, select)}))


_OF_PERPLEXITY = frozenset({"ppl", "ppl_ratio", "sentence_tokens"})
_OF_RATIO = _OF_PERPLEXITY | {"base_ppl"}
_OF_COLLAPSE = _OF_RATIO | {"collapsed", "collapse_undecided", "ppl_ratio_interval[0]", "ppl_ratio_interval[1]"}
"""Fields whose conflicts touch a measure: those that take part in it, and no others."""


def _conflict(case: Case, sweep: Sweep, rows: Sequence[SweepRow], fields: frozenset[str]) -> str:
    """Where rows contradict themselves in the fields of a measure: then they can support no claim about it."""
    conflicts = [
        (row, conflict)
        for row in rows
        for conflict in row_conflicts(row, sweep, case.study)
        if conflict.field in fields
    ]
    return "; ".join(f"{_where(row) or row.cell}: {conflict}" for row, conflict in conflicts)


def _ratio(case: Case) -> Observation:
    sweep, row = _row(case, case.results)
    return Observation(row.ppl_ratio, sweep.file, _where(row), conflict=_conflict(case, sweep, [row], _OF_RATIO))


def _perplexity(case: Case) -> Observation:
    sweep, row = _row(case, case.results)
    return Observation(row.ppl, sweep.file, _where(row), conflict=_conflict(case, sweep, [row], _OF_PERPLEXITY))


def _undecided(case: Case, rows: Sequence[SweepRow]) -> str:
    threshold, sweep = case.study.sweep.collapse_ratio, _sweep(case, case.results)
    intervals = [(row, ratio_interval_of(row, sweep, case.study)) for row in rows]
    return "; ".join(
        f"the interval {interval.low:.2f} to {interval.high:.2f} of {row.cell} spans {threshold:g}"
        for row, interval in intervals
        if interval is not None and interval.spans(threshold)
    )


def _collapsed(case: Case) -> Observation:
    sweep, row = _row(case, case.results)
    value = row.ppl_ratio > case.study.sweep.collapse_ratio
    undecided, conflict = _undecided(case, [row]), _conflict(case, sweep, [row], _OF_COLLAPSE)
    return Observation(value, sweep.file, _where(row), undecided, conflict)


def _layer_cells(study: Study, select: Selector) -> list[Cell]:
    if select.layer is None:
        raise NotCheckable("the claim names no layer")
    model = selected_model(study, select)
    label: Label = select.label or "steered"
    cells = [
        cell for cell in plan(study, model) if cell.label == label and cell.layer == select.layer and cell.coef > 0
    ]
    if not cells:
        raise NotCheckable(f"the sweep has no {label} cells at layer {select.layer}")
    return sorted(cells, key=lambda cell: cell.coef)


def _needs_layer(study: Study, select: Selector) -> Needs:
    return Needs(perplexity=frozenset(_layer_cells(study, select)))


def _largest_coefficient(case: Case) -> Observation:
    sweep = _sweep(case, case.results)
    rows = [_found(sweep, cell) for cell in _layer_cells(case.study, case.select)]
    threshold = case.study.sweep.collapse_ratio
    standing = [row for row in rows if row.ppl_ratio <= threshold]
    if not standing:
        raise NotCheckable("every positive coefficient of the layer collapses")
    largest = standing[-1]
    # Only the cells around the answer can change it: the largest standing one and those above it.
    deciding = [row for row in rows if row.cell.coef >= largest.cell.coef]
    undecided, conflict = _undecided(case, deciding), _conflict(case, sweep, rows, _OF_COLLAPSE)
    return Observation(largest.cell.coef, sweep.file, _where(largest), undecided, conflict)


def _needs_text(study: Study, select: Selector) -> Needs:
    cell = _cell(study, select)
    if not wants_text(study, cell):
        raise NotCheckable(f"the study generates no text for {cell}")
    return Needs(perplexity=frozenset({cell}), text=frozenset({cell}))


def _identical(case: Case) -> Observation:
    if case.published is None:
        raise NotCheckable("needs a re-run")
    _, published = _row(case, case.published)
    sweep, again = _row(case, case.results)
    by_prompt = {text.prompt_idx: text for text in again.generations}
    same = [text for text in published.generations if _is_same(by_prompt.get(text.prompt_idx), text)]
    tied = [
        text.prompt_idx for text in published.generations if text in same and by_prompt[text.prompt_idx].gen != text.gen
    ]
    differing = [text.prompt_idx for text in published.generations if text not in same]
    kinds = {"same up to a near-tie of two tokens": tied, "differing": differing}
    note = "; ".join(f"{kind}: prompts {', '.join(map(str, which))}" for kind, which in kinds.items() if which)
    return Observation(len(same), sweep.file, _where(again), note=note)


def _is_same(again: Text | None, published: Text) -> bool:
    return again is not None and again.same_as(published)


def _of_label(study: Study, select: Selector) -> list[Cell]:
    label: Label = select.label or "steered"
    return [cell for cell in _cells(study, select) if cell.label == label]


def _collapsed_cells(case: Case) -> Observation:
    sweep, cells = _sweep(case, case.results), _of_label(case.study, case.select)
    label: Label = case.select.label or "steered"
    rows = [row for cell in cells if (row := sweep.find(cell)) is not None]
    if len(rows) < len(cells):
        raise NotCheckable(f"{sweep.file}: {len(cells) - len(rows)} of {len(cells)} {label} cells are not measured")
    collapsed = [row for row in rows if row.ppl_ratio > case.study.sweep.collapse_ratio]
    undecided, conflict = _undecided(case, rows), _conflict(case, sweep, rows, _OF_COLLAPSE)
    note = ", ".join(str(row.cell.variant) for row in collapsed if row.cell.variant is not None)
    return Observation(len(collapsed), sweep.file, f"{len(rows)} rows", undecided, conflict, note)


def _needs_all_of_label(study: Study, select: Selector) -> Needs:
    return Needs(perplexity=frozenset(_of_label(study, select)))


def _unsteered(study: Study, select: Selector) -> Cell:
    """The cell whose texts are the unsteered ones."""
    model = selected_model(study, select)
    if select.variant is not None:
        return _cell(study, Selector(model, variant=UNSTEERED))
    return _cell(study, Selector(model, "zero"))


def _equal_to_unsteered(case: Case) -> Observation:
    sweep, row = _row(case, case.results)
    unsteered = {text.prompt_idx: text for text in _found(sweep, _unsteered(case.study, case.select)).generations}
    if not row.generations:
        raise NotCheckable(f"{sweep.file}: {row.cell} has no text")
    if not {text.prompt_idx for text in row.generations} <= unsteered.keys():
        raise NotCheckable(f"{sweep.file}: there is no unsteered text on some of the prompts")
    equal = [text for text in row.generations if _is_same(text, unsteered[text.prompt_idx])]
    differing = [str(text.prompt_idx) for text in row.generations if text not in equal]
    # Where none or all of them are equal, the number says which.
    note = f"of {len(row.generations)} texts; differing: prompts {', '.join(differing)}" if equal and differing else ""
    return Observation(len(equal), sweep.file, _where(row), note=note)


def _needs_both_texts(study: Study, select: Selector) -> Needs:
    of_cell = _needs_text(study, select)
    base = frozenset({_unsteered(study, select)})
    return of_cell | Needs(perplexity=base, text=base)


MEASURES = (
    Measure(
        "perplexity_ratio",
        "perplexity of the corpus in a cell over that under the unsteered model (`ppl` / `base_ppl`)",
        "ratio",
        _ratio,
        _needs_perplexity,
    ),
    Measure(
        "perplexity", "perplexity of the corpus in a cell, per token", "perplexity", _perplexity, _needs_perplexity
    ),
    Measure(
        "collapsed",
        "whether a cell's perplexity ratio lies above the study's collapse ratio",
        "truth value",
        _collapsed,
        _needs_perplexity,
    ),
    Measure(
        "largest_coefficient_without_collapse",
        "largest positive coefficient of a layer whose perplexity ratio does not lie above the collapse ratio",
        "coefficient",
        _largest_coefficient,
        _needs_layer,
    ),
    Measure(
        "collapsed_cells",
        "number of cells with a label (steered by default) that collapse; with a `variant`, which may be a pattern, of "
        "the methods compared or of their controls",
        "count",
        _collapsed_cells,
        _needs_all_of_label,
    ),
    Measure(
        "identical_generations",
        "number of a cell's published greedy texts that a re-run gives again, up to the first near-tie of two tokens",
        "count",
        _identical,
        _needs_text,
        frozenset({"re-run"}),
    ),
    Measure(
        "texts_equal_to_unsteered",
        "number of a cell's greedy texts that equal the unsteered model's on the same prompt, up to the first near-tie "
        "of two tokens",
        "count",
        _equal_to_unsteered,
        _needs_both_texts,
    ),
)
