"""Measures of sweep cells."""

from __future__ import annotations

from collections.abc import Sequence

from steer_eval.cells import Cell, plan, wants_text
from steer_eval.claims.claim import Label, Selector
from steer_eval.claims.measures.measure import Case, Measure, Needs, NotCheckable, Observation, selected_model
from steer_eval.consistency import ratio_interval_of, row_conflicts
from steer_eval.results import Results, Sweep, SweepRow, Text
from steer_eval.results_files import sweep_file
from steer_eval.study import Study


def _cell(study: Study, select: Selector) -> Cell:
    model = selected_model(study, select)
    label: Label = select.label or "steered"
    matching = [
        cell
        for cell in plan(study, model)
        if cell.label == label and select.layer in (None, cell.layer) and select.coef in (None, cell.coef)
    ]
    if len(matching) != 1:
        raise NotCheckable(
            f"the selector {str(select) or 'of the claim'!r} fits {len(matching)} cells of the sweep, not one"
        )
    return matching[0]


def _sweep(case: Case, results: Results) -> Sweep:
    sweep = results.sweeps.get(case.model)
    if sweep is None:
        raise NotCheckable(results.why_absent(sweep_file(case.model)))
    return sweep


def _row(case: Case, results: Results) -> tuple[Sweep, SweepRow]:
    sweep = _sweep(case, results)
    cell = _cell(case.study, case.select)
    row = sweep.find(cell)
    if row is None:
        raise NotCheckable(f"{sweep.file}: no row for {cell}")
    return sweep, row


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
    rows = []
    for cell in _layer_cells(case.study, case.select):
        row = sweep.find(cell)
        if row is None:
            raise NotCheckable(f"{sweep.file}: no row for {cell}")
        rows.append(row)
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


def _collapsed_cells(case: Case) -> Observation:
    sweep = _sweep(case, case.results)
    label: Label = case.select.label or "steered"
    cells = [cell for cell in plan(case.study, case.model) if cell.label == label]
    rows = [row for cell in cells if (row := sweep.find(cell)) is not None]
    if len(rows) < len(cells):
        raise NotCheckable(f"{sweep.file}: {len(cells) - len(rows)} of {len(cells)} {label} cells are not measured")
    count = sum(row.ppl_ratio > case.study.sweep.collapse_ratio for row in rows)
    undecided, conflict = _undecided(case, rows), _conflict(case, sweep, rows, _OF_COLLAPSE)
    return Observation(count, sweep.file, f"{len(rows)} rows", undecided, conflict)


def _needs_all_of_label(study: Study, select: Selector) -> Needs:
    label: Label = select.label or "steered"
    cells = plan(study, selected_model(study, select))
    return Needs(perplexity=frozenset(cell for cell in cells if cell.label == label))


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
        "number of cells with a label (steered by default) that collapse",
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
)
