"""Rules on sweep files that no study plans.

Invariant: without a plan, a sweep is held to itself: every row follows from its own numbers, the cells are a full grid
of the layers and coefficients that occur, each once, and what other files copy from it is equal to it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.cells import Cell
from steer_eval.consistency import collapse_conflict, ratio_conflict, same_or_rounded
from steer_eval.findings import Finding
from steer_eval.inventory import Artifact, Inventory
from steer_eval.results import SweepRow
from steer_eval.results_files import row_from_json
from steer_eval.rules.vector_files import vectors_by_model

COLLAPSE_RATIO = 3.0
"""Where a study names none: the ratio above which the reference study calls a cell collapsed."""

_TOLERATED = 0.1
_AGAIN = "measure the sweep again; never edit measured rows"


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
        wanted = Cell(self.model, "steered", layer, coefficient)
        return next((row for row in self.rows if row.cell == wanted), None)


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
    candidates = sorted({row.ppl_ratio for row in rows})
    return min(candidates, key=wrong)


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
        findings += _generations(sweep, texts, prompts.path if prompts else "")
    for artifact in inventory.of("size_comparison"):
        findings += _summary(artifact, sweeps, inventory)
    return findings


def _rows(sweep: SweepFile, collapse_ratio: float) -> Iterator[Finding]:
    file = sweep.artifact.file
    base = Counter(row.base_ppl for row in sweep.rows).most_common(1)
    for row in sweep.rows:
        for conflict in (ratio_conflict(row), collapse_conflict(row, collapse_ratio)):
            if conflict is not None:
                where, message = f"line {row.line}: {conflict.field}", str(conflict)
                yield Finding(
                    "sweep-arithmetic", "error", file, where, message, conflict.expected, conflict.observed, _AGAIN
                )
        if not math.isclose(row.base_ppl, base[0][0], rel_tol=1e-9):
            message = "the unsteered perplexity is not that of most rows, though the model is the same"
            yield Finding(
                "sweep-base", "error", file, f"line {row.line}: base_ppl", message, base[0][0], row.base_ppl, _AGAIN
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
    steered = [cell for cell in seen if cell.label == "steered"]
    layers = sorted({cell.layer for cell in steered if cell.layer is not None})
    coefficients = sorted({cell.coef for cell in steered})
    absent = [
        cell
        for layer in layers
        for coefficient in coefficients
        if (cell := Cell(sweep.model, "steered", layer, coefficient)) not in seen
    ]
    # A bad row is a finding of its own, and its cell is not missing but unreadable; a ragged plan is no mistake.
    if sweep.artifact.troubles or 2 * len(absent) > len(steered):
        return
    for cell in absent:
        message = f"no row for {cell}, though its layer and its coefficient occur"
        yield Finding("sweep-missing", "error", file, f"L={cell.layer} c={cell.coef:g}", message, fix=_AGAIN)


def _generations(sweep: SweepFile, prompts: tuple[str, ...] | None, prompt_file: str) -> Iterator[Finding]:
    file = sweep.artifact.file
    counts = Counter(len(row.generations) for row in sweep.rows if not row.collapsed)
    usual = counts.most_common(1)[0][0] if counts else 0
    for row in sweep.rows:
        where = f"line {row.line}: generations"
        if not row.collapsed and row.cell.label == "steered" and len(row.generations) != usual:
            message = "the cell has another number of texts than most"
            yield Finding("sweep-texts", "error", file, where, message, usual, len(row.generations), _AGAIN)
        for text in row.generations:
            if prompts is not None and (text.prompt_idx >= len(prompts) or prompts[text.prompt_idx] != text.prompt):
                known = prompts[text.prompt_idx] if text.prompt_idx < len(prompts) else None
                message = f"the prompt is not number {text.prompt_idx} of {prompt_file}"
                yield Finding("sweep-prompt", "error", file, where, message, known, text.prompt, _AGAIN)


def _summary(artifact: Artifact, sweeps: Mapping[str, SweepFile], inventory: Inventory) -> Iterator[Finding]:
    """A summary of sweeps copies their numbers and the norms of the vectors."""
    fix = "make the summary again from the sweeps and the vectors"
    vectors = vectors_by_model(inventory)
    for name, summary in artifact.value.items():
        model = model_called(name, sweeps)
        sweep = sweeps.get(model) if model else None
        for layer, cells in summary["per_layer"].items() if sweep else ():
            for coefficient, cell in cells.items():
                where = f"{name}.per_layer.{layer}.{coefficient}"
                row = sweep.at(int(layer), float(coefficient)) if sweep else None
                if row is None:
                    message = f"{sweep.artifact.path if sweep else ''} has no row of that cell"
                    yield Finding("summary-differs", "error", artifact.file, where, message, fix=fix)
                    continue
                for key, value in (("ppl", row.ppl), ("ppl_ratio", row.ppl_ratio), ("collapsed", row.collapsed)):
                    if not same_or_rounded(value, cell[key]):
                        message = f"line {row.line} of {sweep.artifact.path if sweep else ''} has another value"
                        yield Finding(
                            "summary-differs", "error", artifact.file, f"{where}.{key}", message, value, cell[key], fix
                        )
        owner = model_called(name, vectors)
        for layer, recorded in summary.get("vectors", {}).items() if owner else ():
            vector = vectors[owner].get(int(layer)) if owner else None
            if vector is None:
                continue
            norm, shape = vector.value.norm, list(vector.value.values.shape)
            for key, expected, same in (
                ("norm", norm, same_or_rounded(norm, recorded["norm"])),
                ("shape", shape, shape == recorded["shape"]),
            ):
                if not same:
                    where = f"{name}.vectors.{layer}.{key}"
                    message = f"{vector.path} has another value"
                    yield Finding(
                        "summary-differs", "error", artifact.file, where, message, expected, recorded[key], fix
                    )
