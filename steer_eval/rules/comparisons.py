"""Rules on comparisons of methods.

Invariant: a comparison has exactly the cells of the plan, a method beside its control. What each row says of its edits
is what the study's published files give for that method, taken again without a model; its numbers agree with
themselves, with the unsteered row and with the cells of the sweep that are the same. Rows whose method can't be taken
again are named with the file that it lacks, and never passed over.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_eval.cells import Cell
from steer_eval.comparison.cells import (
    ADDITION,
    ANCHOR,
    PATCH_IDENTITY,
    UNSTEERED,
    comparison_cells,
)
from steer_eval.comparison.plan import ComparisonPlan
from steer_eval.consistency import row_conflicts
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding
from steer_eval.results import Results, Sweep, SweepRow
from steer_eval.rules.row_texts import prompt_findings, text_length_findings
from steer_eval.study import Study

if TYPE_CHECKING:
    from steer_eval.comparison.methods import Comparison

_AGAIN = "run `steer-eval compare` on the study; never edit measured rows"
_RELATIVE = 1e-6
_SAME_CELL = 1e-3
"""How far the perplexity of one cell may differ between two measurements of it on machines of one class."""
_NO_OP = 1e-4


def comparison_findings(
    study: Study,
    plan: ComparisonPlan,
    compared: Sweep,
    results: Results,
    *,
    repo: Path,
    prefix: str,
    left: Collection[str] = (),
) -> list[Finding]:
    """What is wrong with a model's comparison.

    Args:
        study: The study.
        plan: What it says of the comparison.
        compared: Its rows.
        results: The vectors, the prompts and the sweep, where they could be read.
        repo: The model repo, with SAEs and carried vectors.
        prefix: What to put before file names.
        left: Files of the model repo that were left on the Hub, so that what they hold is not known here.
    """
    file = prefix + compared.file
    cells = comparison_cells(study, plan.model)
    known = _described(study, plan, results, repo)
    findings: list[Finding] = []
    seen: dict[Cell, SweepRow] = {}
    unknown: dict[tuple[str, str], list[SweepRow]] = {}
    for row in compared.rows:
        where = f"line {row.line}"
        for conflict in row_conflicts(row, compared, study):
            place = f"{where}: {conflict.field}"
            message = str(conflict)
            findings.append(
                Finding("sweep-arithmetic", "error", file, place, message, conflict.expected, conflict.observed, _AGAIN)
            )
        if row.cell in seen:
            message = f"{row.cell} stands in line {seen[row.cell].line} already"
            findings.append(Finding("sweep-duplicate", "error", file, where, message, fix="remove one of the rows"))
        seen.setdefault(row.cell, row)
        findings += prompt_findings(study, row, results, file)
        findings += text_length_findings(study, row, file)
        if row.cell in cells:
            findings += _texts(study, plan, row, results, file)
            try:
                findings += _treatment(row, known, file)
            except SteerEvalError as error:
                if not _is_left(error, left):
                    unknown.setdefault((error.message, error.fix), []).append(row)
        else:
            message = f"the plan of the study has no cell {row.cell}"
            fix = "add it to comparisons in study.yaml, or remove the row"
            findings.append(Finding("sweep-unplanned", "warning", file, where, message, fix=fix))
    findings += _unchecked(unknown, file)
    fix = "run `steer-eval compare` on the study"
    absent = [cell for cell in cells if cell not in seen]
    findings += [Finding("sweep-missing", "error", file, "", f"no row for {cell}", fix=fix) for cell in absent]
    findings += _no_op(seen, plan.model, file)
    findings += _as_swept(study, plan, seen, results.sweeps.get(plan.model), file)
    return findings


def _texts(study: Study, plan: ComparisonPlan, row: SweepRow, results: Results, file: str) -> Iterator[Finding]:
    """One text per prompt of the comparison, and none where a cell collapses."""
    if results.prompts is None:
        return
    limits = [len(results.prompts), study.sweep.n_prompts, plan.prompts]
    expected = 0 if row.collapsed else min(limit for limit in limits if limit is not None)
    if [text.prompt_idx for text in row.generations] != list(range(expected)):
        message = "not one text per prompt" if expected else "a collapsed cell has texts"
        where, observed = f"line {row.line}: generations", len(row.generations)
        yield Finding("sweep-texts", "error", file, where, message, expected, observed, _AGAIN)


def _described(study: Study, plan: ComparisonPlan, results: Results, repo: Path) -> Comparison:
    """The methods, to be asked what they do."""
    from steer_eval.comparison.methods import Comparison

    first = results.prompts[0] if results.prompts else ""
    # To say what a method does takes files alone; only to do it takes the model.
    return Comparison(study, plan, None, results, repo, first)


def _treatment(row: SweepRow, known: Comparison, file: str) -> Iterator[Finding]:
    """A row's edits, system prompt and place of the corpus are those of its method.

    Raises:
        SteerEvalError: A file that the method needs is absent or bad.
    """
    treatment = known.treatment(row.cell)
    expected = treatment.to_json()
    where = f"line {row.line}"
    if row.system_prompt != treatment.system:
        order = "not the study's words in the order that the seed gives"
        which = order if row.cell.label == "random" and row.cell.variant == ANCHOR else "not the study's"
        message = f"the system prompt is {which}" if treatment.system else f"{row.cell} has a system prompt"
        yield Finding(
            "sweep-anchor",
            "error",
            file,
            f"{where}: system_prompt",
            message,
            treatment.system,
            row.system_prompt,
            _AGAIN,
        )
    after = None if treatment.after is None else 0
    if row.corpus_after != after:
        message = "only a method that edits the prompt alone is measured on the corpus after the first prompt"
        yield Finding(
            "comparison-edits", "error", file, f"{where}: corpus_after", message, after, row.corpus_after, _AGAIN
        )
    observed = row.edits or ()
    if len(observed) != len(expected):
        message = f"the study's {row.cell.variant} has {len(expected)} edits"
        yield Finding(
            "comparison-edits", "error", file, f"{where}: edits", message, len(expected), len(observed), _AGAIN
        )
        return
    for index, (wanted, edit) in enumerate(zip(expected, observed, strict=True)):
        for key, value in wanted.items():
            if not _same(value, edit.get(key)):
                message = f"the study and its files give another {key} for the {row.cell.label} {row.cell.variant}"
                yield Finding(
                    "comparison-edits",
                    "error",
                    file,
                    f"{where}: edits[{index}].{key}",
                    message,
                    value,
                    edit.get(key),
                    _AGAIN,
                )


def _is_left(error: SteerEvalError, left: Collection[str]) -> bool:
    """Whether a file is absent here because it was left on the Hub: itself, or one of the folder that it is."""
    name = error.file if isinstance(error, FormatError) else ""
    return bool(name) and any(path == name or path.startswith(f"{name}/") for path in left)


def _unchecked(unknown: Mapping[tuple[str, str], Sequence[SweepRow]], file: str) -> Iterator[Finding]:
    """Rows whose edits can't be taken again, those that lack the same thing together."""
    for (reason, fix), rows in unknown.items():
        cells = ", ".join(f"{row.cell.variant}{' (random)' * (row.cell.label == 'random')}" for row in rows)
        message = f"the edits of {cells} can't be checked: {reason}"
        yield Finding("comparison-unchecked", "warning", file, f"line {rows[0].line}", message, fix=fix)


def _same(expected: Any, observed: Any) -> bool:
    """Whether two descriptions are the same, floats up to the digits that are written."""
    if isinstance(expected, list) and isinstance(observed, list):
        return len(expected) == len(observed) and all(map(_same, expected, observed))
    if isinstance(expected, float) and isinstance(observed, float | int) and not isinstance(observed, bool):
        return math.isclose(expected, observed, rel_tol=_RELATIVE, abs_tol=_RELATIVE**2)
    return bool(expected == observed)


def _no_op(seen: Mapping[Cell, SweepRow], model: str, file: str) -> Iterator[Finding]:
    """A prompt that is patched with its own residuals is that prompt."""
    by_method = {(cell.variant, cell.label): row for cell, row in seen.items() if cell.model == model}
    patched, plain = by_method.get((PATCH_IDENTITY, "steered")), by_method.get((UNSTEERED, "zero"))
    if patched is None:
        return
    fix = "patch tokens of the prompt alone, and run `steer-eval compare` again"
    where = f"line {patched.line}"
    if abs(patched.ppl_ratio - 1) > _NO_OP:
        message = "a patch with the prompt's own residuals changes the perplexity"
        place = f"{where}: ppl_ratio"
        yield Finding("comparison-no-op", "error", file, place, message, 1.0, patched.ppl_ratio, fix)
    texts = {text.prompt_idx: text for text in plain.generations} if plain else {}
    for text in patched.generations:
        other = texts.get(text.prompt_idx)
        if other is not None and not other.same_as(text):
            message = "a patch with the prompt's own residuals changes the text"
            place = f"{where}: prompt {text.prompt_idx}"
            yield Finding("comparison-no-op", "error", file, place, message, other.gen, text.gen, fix)


def _as_swept(
    study: Study, plan: ComparisonPlan, seen: Mapping[Cell, SweepRow], sweep: Sweep | None, file: str
) -> Iterator[Finding]:
    """The unsteered model, plain addition and the anchor were measured in the sweep as well."""
    if sweep is None:
        return
    same = {
        UNSTEERED: next(sweep.labelled("zero"), None),
        ADDITION: sweep.find(Cell(plan.model, "steered", plan.layer, plan.coefficient)),
        ANCHOR: next(sweep.labelled("anchor"), None),
    }
    for cell, row in seen.items():
        other = same.get(cell.variant or "")
        if other is None or cell.label == "random":
            continue
        # A row that contradicts itself is a finding of its own, and says nothing of another.
        if row_conflicts(other, sweep, study) or row.line is None:
            continue
        if not math.isclose(row.ppl, other.ppl, rel_tol=_SAME_CELL):
            message = f"line {other.line} of {sweep.file} has another perplexity for the same cell"
            yield Finding(
                "comparison-sweep", "error", file, f"line {row.line}: ppl", message, other.ppl, row.ppl, _AGAIN
            )
        swept = {(text.prompt_idx, text.prompt): text for text in other.generations}
        for text in row.generations:
            before = swept.get((text.prompt_idx, text.prompt))
            if before is not None and not text.same_as(before):
                message = f"line {other.line} of {sweep.file} has another text for the same cell and prompt"
                where = f"line {row.line}: prompt {text.prompt_idx}"
                yield Finding("comparison-sweep", "error", file, where, message, before.gen, text.gen, _AGAIN)
