"""Rules on sweep files that no study plans.

Invariant: without a plan, a sweep is held to itself: every row follows from its own numbers, the cells are a full grid
of the layers and coefficients that occur, each once, and what other files copy from it is equal to it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from steer_eval.cells import Cell
from steer_eval.consistency import collapse_conflict, ratio_conflict, same_or_rounded
from steer_eval.findings import Finding
from steer_eval.inventory import Artifact, Inventory
from steer_eval.results import SweepRow
from steer_eval.results_files import row_from_json
from steer_eval.rules.rounding import agrees_with_quotient
from steer_eval.rules.vector_files import published_norms, vectors_by_model

COLLAPSE_RATIO = 3.0
"""Where a study names none: the ratio above which the reference study calls a cell collapsed."""

_TOLERATED = 0.1
_AGAIN = "measure the sweep again; never edit measured rows"
_SUMMARISE = "make the summary again from the sweeps and the vectors"


@dataclass(frozen=True, eq=False)
class SweepFile:
    """A sweep as it stands in a repo.

    Args:
        artifact: The file.
        model: The model that its name gives.
        rows: Its good rows.
    """

    artifact: Artifact
    model: str
    rows: tuple[SweepRow, ...]

    def at(self, layer: Any, coefficient: float) -> SweepRow | None:
        """The first steered row of a layer and coefficient."""
        return self._by_cell.get(Cell(self.model, "steered", layer, coefficient))

    @cached_property
    def _by_cell(self) -> dict[Cell, SweepRow]:
        # Of several rows of a cell the first, so in reverse.
        return {row.cell: row for row in reversed(self.rows)}

    @cached_property
    def missing(self) -> tuple[Cell, ...]:
        """Cells of the grid that the steered rows span and that have no row.

        None where the file has bad rows, whose cells are not missing but unreadable, and none where so many are missing
        that the plan was no grid.
        """
        steered = {row.cell for row in self.rows if row.cell.label == "steered" and row.cell.layer is not None}
        layers = sorted({cell.layer for cell in steered if cell.layer is not None})
        coefficients = sorted({cell.coef for cell in steered})
        absent = len(layers) * len(coefficients) - len(steered)
        if self.artifact.troubles or not absent or 2 * absent > len(steered):
            return ()
        grid = (Cell(self.model, "steered", layer, coefficient) for layer in layers for coefficient in coefficients)
        return tuple(cell for cell in grid if cell not in steered)

    def knows_nothing_of(self, layer: Any, coefficient: float) -> bool:
        """Whether a cell is none of this sweep's: neither measured, nor named as missing, nor in a bad row."""
        cell = Cell(self.model, "steered", layer, coefficient)
        return self.at(layer, coefficient) is None and cell not in self.missing and not self.artifact.troubles


def sweep_files(inventory: Inventory) -> dict[str, SweepFile]:
    """The sweeps by the model in their names."""
    found = {}
    for artifact in inventory.of("sweep"):
        model = artifact.name.removeprefix("sweep_").removesuffix(".jsonl")
        rows = tuple(row_from_json(row.value, model, row.line) for row in artifact.value)
        found[model] = SweepFile(artifact, model, rows)
    return found


def model_called(name: str, models: Iterable[str]) -> str | None:
    """The model that a short name means: `large` is `qwen_large`; None if no model or several fit."""
    fitting = [model for model in models if model == name or model.endswith(f"_{name}")]
    exact = [model for model in fitting if model == name]
    return (exact or fitting)[0] if len(exact or fitting) == 1 else None


def collapse_ratio_of(sweeps: Mapping[str, SweepFile]) -> float:
    """The collapse ratio that the flags of some sweeps were set by.

    The reference study's, unless more than a tenth of the flags speak against it; then the one that most bear out.
    """
    rows = [row for sweep in sweeps.values() for row in sweep.rows]

    def wrong(ratio: float) -> int:
        return sum((row.ppl_ratio > ratio) != row.collapsed for row in rows)

    if wrong(COLLAPSE_RATIO) <= _TOLERATED * len(rows):
        return COLLAPSE_RATIO
    return min([COLLAPSE_RATIO, *sorted({row.ppl_ratio for row in rows})], key=wrong)


def collapsed_values(row: SweepRow, collapse_ratio: float) -> tuple[bool, ...]:
    """The mark of collapse that a row has, and the one that it should have.

    Where the two differ, that is a finding of its own, and who copied either made no mistake.
    """
    return (row.collapsed, row.ppl_ratio > collapse_ratio)


def sweep_file_findings(
    inventory: Inventory, sweeps: Mapping[str, SweepFile], planned: frozenset[str]
) -> list[Finding]:
    """What is wrong with sweep files.

    Args:
        inventory: What the repos hold.
        sweeps: The sweeps, by model.
        planned: Paths of sweeps that a study plans; these are held to the plan elsewhere.
    """
    collapse_ratio = collapse_ratio_of(sweeps)
    prompts = next((table for table in inventory.of("eval_prompts") if not table.troubles), None)
    texts = None if prompts is None else tuple(row.value["scenario"] for row in prompts.value)
    findings: list[Finding] = []
    for sweep in sweeps.values():
        if sweep.artifact.path in planned:
            continue
        findings += _rows(sweep, collapse_ratio)
        findings += _grid(sweep)
        findings += _generations(sweep, collapse_ratio, texts, prompts.path if prompts else "")
    for artifact in inventory.of("size_comparison"):
        findings += _summary(artifact, sweeps, collapse_ratio)
        findings += _summary_of_vectors(artifact, inventory)
    return findings


def _rows(sweep: SweepFile, collapse_ratio: float) -> Iterator[Finding]:
    file = sweep.artifact.file
    usual = Counter(row.base_ppl for row in sweep.rows).most_common(1)
    for row in sweep.rows:
        base = usual[0][0]
        odd = not math.isclose(row.base_ppl, base, rel_tol=1e-9)
        # The ratio of a row whose base alone is wrong follows from the right one.
        follows = any(agrees_with_quotient(row.ppl_ratio, row.ppl, each) for each in {base, row.base_ppl})
        for conflict in (None if follows else ratio_conflict(row), collapse_conflict(row, collapse_ratio)):
            if conflict is not None:
                where, message = f"line {row.line}: {conflict.field}", str(conflict)
                yield Finding(
                    "sweep-arithmetic", "error", file, where, message, conflict.expected, conflict.observed, _AGAIN
                )
        if odd:
            message = "most rows have another unsteered perplexity, though the model is the same"
            yield Finding(
                "sweep-base", "error", file, f"line {row.line}: base_ppl", message, base, row.base_ppl, _AGAIN
            )


def _grid(sweep: SweepFile) -> Iterator[Finding]:
    """Cells of the steered rows: each once, and all of the grid that they span."""
    file = sweep.artifact.file
    seen: dict[Cell, SweepRow] = {}
    for row in sweep.rows:
        if row.cell in seen:
            message = f"{row.cell} stands in line {seen[row.cell].line} already"
            yield Finding("sweep-duplicate", "error", file, f"line {row.line}", message, fix="remove one of the rows")
        seen.setdefault(row.cell, row)
    for cell in sweep.missing:
        message = f"there is no row for {cell}, though other rows have its layer and its coefficient"
        where, fix = f"L={cell.layer} c={cell.coef:g}", "measure the cell, or put its row back"
        yield Finding("sweep-missing", "error", file, where, message, fix=fix)


def _generations(
    sweep: SweepFile, collapse_ratio: float, prompts: tuple[str, ...] | None, prompt_file: str
) -> Iterator[Finding]:
    file = sweep.artifact.file
    counts = Counter(len(row.generations) for row in sweep.rows if not row.collapsed)
    usual = counts.most_common(1)[0][0] if counts else 0
    for row in sweep.rows:
        where = f"line {row.line}: generations"
        speaks = row.cell.label == "steered" and not any(collapsed_values(row, collapse_ratio))
        if speaks and len(row.generations) != usual:
            message = f"the cell has {len(row.generations)} texts, most have {usual}"
            yield Finding("sweep-texts", "error", file, where, message, usual, len(row.generations), _AGAIN)
        for text in row.generations:
            if prompts is not None and (text.prompt_idx >= len(prompts) or prompts[text.prompt_idx] != text.prompt):
                known = prompts[text.prompt_idx] if text.prompt_idx < len(prompts) else None
                message = f"the prompt is not number {text.prompt_idx} of {prompt_file}"
                yield Finding("sweep-prompt", "error", file, where, message, known, text.prompt, _AGAIN)


def _summary(artifact: Artifact, sweeps: Mapping[str, SweepFile], collapse_ratio: float) -> Iterator[Finding]:
    """A summary of sweeps copies their numbers."""
    for name, summary in artifact.value.items():
        model = model_called(name, sweeps)
        if model is None:
            continue
        sweep = sweeps[model]
        path = sweep.artifact.path
        for layer, cells in summary["per_layer"].items():
            for coefficient, cell in cells.items():
                where = f"{name}.per_layer.{layer}.{coefficient}"
                row = sweep.at(int(layer), float(coefficient))
                if row is not None:
                    yield from _copies(artifact, where, cell, row, path, collapse_ratio)
                elif sweep.knows_nothing_of(int(layer), float(coefficient)):
                    message = f"{path} has no row of that cell"
                    yield Finding("summary-differs", "error", artifact.file, where, message, fix=_SUMMARISE)


def _copies(
    artifact: Artifact, where: str, cell: Mapping[str, Any], row: SweepRow, path: str, collapse_ratio: float
) -> Iterator[Finding]:
    """What a summary copies from a row is what stands there, or what should stand there if the row has a mistake."""
    right: dict[str, tuple[Any, ...]] = {
        "ppl": (row.ppl, row.ppl_ratio * row.base_ppl),
        "ppl_ratio": (row.ppl_ratio, row.ppl / row.base_ppl),
        "collapsed": collapsed_values(row, collapse_ratio),
    }
    for key, values in right.items():
        if not any(same_or_rounded(value, cell[key]) for value in values):
            message = f"line {row.line} of {path} has another value"
            place = f"{where}.{key}"
            yield Finding("summary-differs", "error", artifact.file, place, message, values[0], cell[key], _SUMMARISE)


def _summary_of_vectors(artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """A summary copies the norms and shapes of the vectors."""
    vectors = vectors_by_model(inventory)
    for name, summary in artifact.value.items():
        owner = model_called(name, vectors)
        for layer, recorded in summary.get("vectors", {}).items():
            vector = vectors[owner].get(int(layer)) if owner else None
            if vector is None:
                continue
            norms, shape = published_norms(vector.value), list(vector.value.values.shape)
            for key, expected, same in (
                ("norm", norms[0], any(same_or_rounded(norm, recorded["norm"]) for norm in norms)),
                ("shape", shape, shape == recorded["shape"]),
            ):
                if not same:
                    where, message = f"{name}.vectors.{layer}.{key}", f"{vector.path} has another value"
                    yield Finding(
                        "summary-differs", "error", artifact.file, where, message, expected, recorded[key], _SUMMARISE
                    )
