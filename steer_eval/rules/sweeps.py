"""Rules on sweeps.

Invariant: a sweep has exactly the cells of the plan, each once, with rows that agree with themselves and with the
prompts and the system prompt of the study.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.cells import Cell, plan, wants_text
from steer_eval.consistency import ratio_interval_of, row_conflicts
from steer_eval.findings import Finding
from steer_eval.results import Results, Sweep, SweepRow
from steer_eval.rules.row_texts import prompt_findings, text_length_findings
from steer_eval.study import Study

_AGAIN = "run `steer-eval sweep` again; never edit measured rows"


def sweep_findings(study: Study, model: str, sweep: Sweep, results: Results, prefix: str) -> list[Finding]:
    """What is wrong with a sweep.

    Args:
        study: The study.
        model: Whose sweep it is.
        sweep: Its rows.
        results: The prompts, where they could be read.
        prefix: What to put before file names.
    """
    file = prefix + sweep.file
    planned = plan(study, model)
    findings: list[Finding] = []
    seen: dict[Cell, SweepRow] = {}
    for row in sweep.rows:
        where = f"line {row.line}"
        findings += _arithmetic(row, sweep, study, file)
        if row.cell in seen:
            message = f"{row.cell} stands in line {seen[row.cell].line} already"
            findings.append(Finding("sweep-duplicate", "error", file, where, message, fix="remove one of the rows"))
        seen[row.cell] = row
        findings += _anchor(study, row, file)
        findings += _collapse(row, sweep, study, file)
        findings += _sums(row, sweep, file)
        findings += prompt_findings(study, row, results, file)
        findings += text_length_findings(study, row, file)
        if row.cell in planned:
            findings += _texts(study, row, results, file)
        else:
            message = f"the plan of the study has no cell {row.cell}"
            fix = "add it to the sweep of study.yaml, or remove the row"
            findings.append(Finding("sweep-unplanned", "warning", file, where, message, fix=fix))
    fix = "run `steer-eval sweep` on the study"
    findings += [
        Finding("sweep-missing", "error", file, "", f"no row for {cell}", fix=fix)
        for cell in planned
        if cell not in seen
    ]
    return findings


def _arithmetic(row: SweepRow, sweep: Sweep, study: Study, file: str) -> Iterator[Finding]:
    for conflict in row_conflicts(row, sweep, study):
        where = f"line {row.line}: {conflict.field}"
        yield Finding(
            "sweep-arithmetic", "error", file, where, str(conflict), conflict.expected, conflict.observed, _AGAIN
        )


def _anchor(study: Study, row: SweepRow, file: str) -> Iterator[Finding]:
    """The anchor is the study's system prompt and nothing else; all other cells have none."""
    expected = study.sweep.anchor if row.cell.label == "anchor" else None
    if row.system_prompt != expected:
        message = "the system prompt is not the study's" if expected else f"a {row.cell.label} cell has a system prompt"
        where = f"line {row.line}: system_prompt"
        yield Finding("sweep-anchor", "error", file, where, message, expected, row.system_prompt, _AGAIN)


def _collapse(row: SweepRow, sweep: Sweep, study: Study, file: str) -> Iterator[Finding]:
    interval = ratio_interval_of(row, sweep, study)
    if interval is not None and interval.spans(study.sweep.collapse_ratio):
        message = (
            f"the interval {interval.low:.3g} to {interval.high:.3g} of {row.cell} spans the collapse ratio "
            f"{study.sweep.collapse_ratio:g}: whether it collapses is undecided"
        )
        fix = "a longer corpus narrows it"
        yield Finding("collapse-undecided", "note", file, f"line {row.line}", message, fix=fix)


def _sums(row: SweepRow, sweep: Sweep, file: str) -> Iterator[Finding]:
    """Where the zero control has its sums, a row without them can't be checked any more."""
    zero = next(sweep.labelled("zero"), None)
    if zero is None or zero.sentence_nll is None or zero.sentence_tokens is None:
        return
    parts = {
        "sentence_nll": row.sentence_nll,
        "sentence_tokens": row.sentence_tokens,
        "ppl_ratio_interval": row.interval,
    }
    absent = [name for name, part in parts.items() if part is None]
    if absent:
        message = f"{row.cell} has no {' and no '.join(absent)}, but the zero control has sentence sums"
        yield Finding("sweep-sums-absent", "warning", file, f"line {row.line}", message, fix=_AGAIN)


def _texts(study: Study, row: SweepRow, results: Results, file: str) -> Iterator[Finding]:
    if results.prompts is None:
        return
    asked = len(results.prompts) if study.sweep.n_prompts is None else study.sweep.n_prompts
    expected = asked if wants_text(study, row.cell) and not row.collapsed else 0
    if [text.prompt_idx for text in row.generations] != list(range(expected)):
        where, observed = f"line {row.line}: generations", len(row.generations)
        if expected:
            message = "not one text per prompt"
            yield Finding("sweep-texts", "error", file, where, message, expected, observed, _AGAIN)
        else:
            message = "a cell without text in the plan has some"
            yield Finding("sweep-texts", "warning", file, where, message, expected, observed)
