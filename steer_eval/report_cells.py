"""The cells of a report page: what was measured and scored, with names to call it by.

Invariant: every row of a sweep and of the files beside it is one cell with an anchor of its own, also where files of
strangers say one thing twice. A score stands at the cell that it is of, or it is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.claims.facts import judge_of
from steer_eval.inventory import Artifact, Inventory
from steer_eval.judge.file_names import beside
from steer_eval.results import SweepRow
from steer_eval.results_files import comparison_row_from_json
from steer_eval.rules.compared_scores import comparisons, key_of
from steer_eval.rules.sweep_files import SweepFile, model_called
from steer_eval.study import Study

NOT_AXES = frozenset({"layer", "coef", "margin", "ppl_ratio", "alpha"})
UNNAMED_JUDGE = "unnamed judge"


SECTIONS = (
    *("top", "verdicts", "findings", "saes", "features", "transfers", "variants", "compare"),
    *("left", "right", "pairs", "page-data"),
)
"""Anchors that the page itself has."""


class Naming:
    """Anchors that are unique within a page."""

    def __init__(self) -> None:
        self._taken = set(SECTIONS)

    def anchor(self, words: str) -> str:
        """An anchor that says these words in letters that an address may hold."""
        stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", words).strip("-")[:80] or "part"
        anchor, number = stem, 1
        while anchor.lower() in self._taken:
            number += 1
            anchor = f"{stem}-{number}"
        self._taken.add(anchor.lower())
        return anchor


@dataclass(frozen=True)
class Generation:
    """One text.

    Args:
        prompt: What was asked.
        gen: What the model said.
        stop: Why it ended, where known: `eos` or `length`.
    """

    prompt: str
    gen: str
    stop: str | None = None


@dataclass(frozen=True)
class Score:
    """What a judge gave one cell.

    Args:
        judge: Which judge.
        margin: The margin, where there is one.
        axes: The scores by axis.
        notes: The judge's words.
        imputed: Whether there was no text to judge.
        best: Whether no cell of this judge and sweep has a larger margin; several cells may.
    """

    judge: str
    margin: float | None
    axes: Mapping[str, float]
    notes: str = ""
    imputed: bool = False
    best: bool = False


@dataclass(frozen=True)
class Cell:
    """One row of a sweep or of a file beside it.

    Args:
        identity: Its anchor in the page.
        name: What it is called.
        label: Kind of cell, or the label of a variant.
        line: Line in its file.
        texts: Its texts.
        scores: What judges gave it.
        layer: Steered block, where there is one.
        coef: Coefficient, where there is one.
        ppl: Perplexity, where it was measured.
        ratio: Perplexity ratio, where it was measured.
        interval: Interval of the ratio, where it was published.
        collapsed: Whether the row says that the language broke.
        undecided: Whether the interval spans the collapse ratio.
        system_prompt: System prompt, where there is one.
    """

    identity: str
    name: str
    label: str
    line: int
    texts: tuple[Generation, ...]
    scores: tuple[Score, ...] = ()
    layer: int | None = None
    coef: float | None = None
    ppl: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    collapsed: bool = False
    undecided: bool = False
    system_prompt: str = ""


@dataclass(frozen=True)
class Sweep:
    """The cells of one model.

    Args:
        identity: Its anchor in the page.
        title: What it is called.
        model: Name of the model.
        base_model: Hub id of the model, where a study says it.
        source: Where it was measured: empty, `published data` or `re-run`.
        file: The file.
        cells: One for each row.
        judges: Who scored it.
    """

    identity: str
    title: str
    model: str
    base_model: str
    source: str
    file: str
    cells: tuple[Cell, ...]
    judges: tuple[str, ...]

    def grid(self, label: str) -> dict[tuple[int, float], Cell]:
        """Cells of a kind by layer and coefficient; of two rows for one cell the first."""
        found: dict[tuple[int, float], Cell] = {}
        for cell in self.cells:
            if cell.label == label and cell.layer is not None and cell.coef is not None:
                found.setdefault((cell.layer, cell.coef), cell)
        return found


@dataclass(frozen=True)
class LabelledFile:
    """Variants of one file beside the sweeps: transferred vectors, patches, prompts, or all methods of a comparison."""

    identity: str
    title: str
    file: str
    cells: tuple[Cell, ...]

    @property
    def judges(self) -> tuple[str, ...]:
        """Who scored any of them."""
        return tuple(dict.fromkeys(score.judge for cell in self.cells for score in cell.scores))


def sweeps_of(
    source: str, inventory: Inventory, files: Mapping[str, SweepFile], study: Study | None, naming: Naming
) -> Iterator[Sweep]:
    """The sweeps of some repos, with their scores.

    Args:
        source: Where they were measured.
        inventory: What the repos hold.
        files: Their sweeps, by model.
        study: The study, where there is one.
        naming: Names what has an anchor.
    """
    for model, file in files.items():
        scores = _scores(inventory, files, model)
        title = f"{model}, {source}" if source else model
        identity = naming.anchor(f"model-{title}")
        stem = identity.removeprefix("model-")
        reference = study.models.get(model) if study else None
        cells = tuple(_cell(row, stem, scores, naming) for row in file.rows)
        yield Sweep(
            identity,
            title,
            model,
            reference.base_model if reference else "",
            source,
            file.artifact.path,
            cells,
            tuple(scores),
        )


def _cell(row: SweepRow, stem: str, scores: Mapping[str, _Scored], naming: Naming) -> Cell:
    cell = row.cell
    place = "" if cell.layer is None else f"L={cell.layer} c={cell.coef:+g}"
    kind = {"steered": "", "zero": "unsteered", "random": "random direction", "anchor": "system prompt"}[cell.label]
    anchor = {"steered": "", "zero": "zero", "random": "random-", "anchor": "anchor"}[cell.label]
    if cell.label in {"steered", "random"}:
        anchor += f"L{cell.layer}-c{cell.coef:g}"
        kind = f"{kind} {place}".strip()
    judged: tuple[Score, ...] = ()
    if cell.label == "steered":
        found = [(judge, each, each.at(cell.layer, cell.coef)) for judge, each in scores.items()]
        judged = tuple(
            _score(judge, value, bool(row.generations), each.best) for judge, each, value in found if value is not None
        )
    return Cell(
        naming.anchor(f"{stem}-{anchor}"),
        kind or "steered",
        cell.label,
        row.line or 0,
        tuple(Generation(text.prompt, text.gen, text.stop) for text in row.generations),
        judged,
        cell.layer,
        cell.coef,
        row.ppl,
        row.ppl_ratio,
        (row.interval.low, row.interval.high) if row.interval else None,
        row.collapsed,
        bool(row.undecided),
        row.system_prompt or "",
    )


@dataclass(frozen=True)
class _Scored:
    """One judge's scores of one sweep, and the largest margin that was given to a text."""

    rows: Mapping[tuple[object, float], Mapping[str, Any]]
    best: float | None

    def at(self, layer: int | None, coef: float) -> Mapping[str, Any] | None:
        return self.rows.get((layer, coef))


def _scores(inventory: Inventory, files: Mapping[str, SweepFile], model: str) -> dict[str, _Scored]:
    """The scores of a model's sweep, by judge."""
    found: dict[str, _Scored] = {}
    for artifact in inventory.of("judge"):
        judge, judged = _judge_and_model(artifact.name, files)
        if judged != model:
            continue
        rows: dict[tuple[object, float], Mapping[str, Any]] = {}
        for row in artifact.value:
            rows.setdefault((row.value["layer"], float(row.value["coef"])), row.value)
        spoken = {(row.cell.layer, row.cell.coef) for row in files[model].rows if row.generations and not row.collapsed}
        margins = [margin for at, value in rows.items() if at in spoken and (margin := margin_of(value)) is not None]
        name = judge
        while name in found:
            name += "′"
        found[name] = _Scored(rows, max(margins, default=None))
    return found


def _judge_and_model(name: str, models: Mapping[str, Any]) -> tuple[str, str | None]:
    """Who scored what, told by a file name; a file that only names its model has an unnamed judge."""
    named = judge_of(name, models)
    if named is not None:
        return named
    return UNNAMED_JUDGE, model_called(name.removeprefix("judge_").removesuffix(".jsonl"), models)


def margin_of(value: Mapping[str, Any]) -> float | None:
    """A score's margin as recorded, else what the two axes of the rubric give."""
    margin, mature, juvenile = (value.get(key) for key in ("margin", "mature_anger", "juvenile_rage"))
    if margin is None and mature is not None and juvenile is not None:
        margin = mature - juvenile
    return None if margin is None else float(margin)


def _score(judge: str, value: Mapping[str, Any], spoken: bool, best: float | None) -> Score:
    axes = {
        name: float(part)
        for name, part in value.items()
        if name not in NOT_AXES and isinstance(part, int | float) and not isinstance(part, bool)
    }
    margin = margin_of(value)
    notes = value.get("notes")
    is_best = spoken and margin is not None and margin == best
    return Score(judge, margin, axes, notes if isinstance(notes, str) else "", not spoken, is_best)


def labelled_files(source: str, inventory: Inventory, naming: Naming) -> Iterator[LabelledFile]:
    """Files of labelled variants, with their scores.

    Args:
        source: Where they were measured.
        inventory: What the repos hold.
        naming: Names what has an anchor.
    """
    for artifact in inventory.of("transfer_eval", "phase_i"):
        title = artifact.name.removesuffix(".jsonl") + (f", {source}" if source else "")
        identity = naming.anchor(f"variants-{title}")
        cells = tuple(_variant(row.value, row.line, artifact, inventory, title, naming) for row in artifact.value)
        yield LabelledFile(identity, title, artifact.path, cells)
    for model, artifact in comparisons(inventory).items():
        title = f"comparison of methods, {model}" + (f", {source}" if source else "")
        identity = naming.anchor(f"variants-{title}")
        yield LabelledFile(identity, title, artifact.path, tuple(_methods(artifact, model, inventory, title, naming)))


def _methods(artifact: Artifact, model: str, inventory: Inventory, title: str, naming: Naming) -> Iterator[Cell]:
    """The methods of a comparison, each before its control."""
    judged = {
        named[0]: {key_of(row.value): row.value for row in reversed(scores.value)}
        for scores in inventory.of("judge_comparison")
        if (named := judge_of(beside(scores.name), [model])) is not None
    }
    for each in artifact.value:
        row = comparison_row_from_json(each.value, model, each.line)
        method, control = str(row.cell.variant), row.cell.label == "random"
        found = [(judge, rows.get(key_of(each.value))) for judge, rows in judged.items()]
        yield Cell(
            naming.anchor(f"{title}-{method}" + ("-random" if control else "")),
            f"{method}, random control" if control else method,
            method,
            each.line,
            tuple(Generation(text.prompt, text.gen, text.stop) for text in row.generations),
            tuple(_score(judge, value, bool(row.generations), None) for judge, value in found if value is not None),
            row.cell.layer,
            row.cell.coef,
            row.ppl,
            row.ppl_ratio,
            (row.interval.low, row.interval.high) if row.interval else None,
            row.collapsed,
            bool(row.undecided),
            row.system_prompt or "",
        )


def _variant(
    value: Mapping[str, Any], line: int, artifact: Artifact, inventory: Inventory, title: str, naming: Naming
) -> Cell:
    label = value["label"]
    texts = tuple(
        Generation(text["prompt"], text["gen"], text.get("stop"))
        for text in value["generations"]
        if text["gen"] is not None
    )
    scores = []
    for judged in inventory.of("judge_labels"):
        stem = judged.name.removeprefix("judge_").removesuffix(".jsonl")
        name = re.sub(r"_?(transfer|phase_i)$", "", stem) or UNNAMED_JUDGE
        for row in judged.value:
            if row.value["label"] == label and row.value.get("source", "transfer_eval.jsonl") == artifact.name:
                scores.append(_score(name, row.value, bool(texts), None))
                break
    return Cell(
        naming.anchor(f"{title}-{label}"),
        label,
        label,
        line,
        texts,
        tuple(scores),
        _whole(value.get("layer")),
        _number(value.get("coef")),
        _number(value.get("ppl")),
        _number(value.get("ppl_ratio")),
        None,
        bool(value.get("collapsed")),
        False,
        value.get("system_prompt") or "",
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
