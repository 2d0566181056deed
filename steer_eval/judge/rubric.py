"""Rubrics: what texts are scored on, as data.

Invariant: a score lies on the rubric's scale, which all its axes share; the margin is derived from two axes and never
asked for. A rubric's digest is over everything a judge reads of it, so that scores can say what they were given on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.digest import sha256_value
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats import schema, strict_yaml
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.formats.text import read_text
from steer_eval.resources import folder as shipped_folder

DEFAULT = "mature-anger"
STUDY_AXES = ("mature_anger", "juvenile_rage", "coherence")
"""Axes of files `judge_<judge>_<model>.jsonl`, as `schemas/judge_row.schema.json` has them."""

MARGIN = "margin"
MAX_BYTES = 256 * 1024
MAX_LEVELS = 101
_CLOSE = 1e-9


@dataclass(frozen=True)
class Axis:
    """One thing that is scored.

    Args:
        name: Its key in replies and rows.
        question: What the judge is asked.
        levels: Anchors `(score, what a text of that score is like)`, lowest first.
        probe: What the offline judge learns it from: `positive`, `negative`, `fluency`, the name of a file of texts
            beside the rubric, or None if it can't.
    """

    name: str
    question: str
    levels: tuple[tuple[float, str], ...]
    probe: str | None = None


@dataclass(frozen=True)
class Rubric:
    """Axes on one scale.

    Args:
        name: Short name.
        title: What it is called in tables.
        task: What the texts are, for the judge.
        axes: In the order in which they are asked.
        low: Lowest score.
        high: Highest score.
        step: Distance of neighbouring scores.
        margin: `(plus, minus)`: the axes whose difference is the margin; None if it has none.
        folder: Where its files of texts are.
        sha256: Digest of its content.
    """

    name: str
    title: str
    task: str
    axes: tuple[Axis, ...]
    low: float
    high: float
    step: float
    margin: tuple[str, str] | None
    folder: Path
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.name for axis in self.axes)

    @property
    def levels(self) -> tuple[float, ...]:
        """Every score that can be given, lowest first."""
        count = round((self.high - self.low) / self.step) + 1
        return tuple(round(self.low + index * self.step, 9) for index in range(count))

    def axis(self, name: str) -> Axis:
        """The axis of a name."""
        return next(axis for axis in self.axes if axis.name == name)

    def on_scale(self, score: float) -> bool:
        """Whether a number is one of the levels."""
        return any(math.isclose(score, level, abs_tol=_CLOSE) for level in self.levels)

    def nearest(self, value: float) -> float:
        """The level nearest to a number; of two equally near ones the lower."""
        return min(self.levels, key=lambda level: (round(abs(level - value), 9), level))

    def margin_of(self, scores: dict[str, float]) -> float | None:
        """The margin of some scores, or None where it is not defined."""
        if self.margin is None or not all(name in scores for name in self.margin):
            return None
        plus, minus = self.margin
        return round(scores[plus] - scores[minus], 9)

    def margin_definition(self) -> str:
        """The margin in words."""
        return f"{self.margin[0]} - {self.margin[1]}" if self.margin else ""


def load_rubric(named: str = DEFAULT) -> Rubric:
    """Read and check a rubric.

    Args:
        named: Name of one that ships with the package, or path of a YAML file.

    Raises:
        SteerEvalError: There is no such rubric.
        FormatError: It breaks `schemas/rubric.schema.json` or contradicts itself.
    """
    shipped = {path.stem: path for path in sorted(shipped_folder("rubrics").glob("*.yaml"))}
    path = shipped.get(named) or Path(named)
    if not path.is_file():
        raise SteerEvalError(
            f"there is no rubric {named}", f"give a YAML file, or one that ships: {', '.join(shipped)}"
        )
    name = named if named in shipped else str(path)
    document = strict_yaml.parse(read_text(path, name, limit=MAX_BYTES), name)
    schema.check(document, "rubric", file=name)
    rubric = _from_document(document, path.parent)
    _check(rubric, name)
    return rubric


def probe_texts(rubric: Rubric, file: str) -> list[str]:
    """The texts of a file beside the rubric, one `{"text": …}` per line.

    Raises:
        FormatError: The file is absent, leaves the folder, or a row of it is bad.
    """
    return [row.value["text"] for row in read_jsonl(inside(rubric.folder, file), schema="probe_text", name=file)]


def _from_document(document: dict[str, Any], folder: Path) -> Rubric:
    scale = document["scale"]
    axes = []
    for name, value in document["axes"].items():
        probe = value.get("probe")
        levels = tuple((float(level["score"]), level["text"].strip()) for level in value["levels"])
        axes.append(
            Axis(
                name,
                value["question"].strip(),
                tuple(sorted(levels)),
                probe["file"] if isinstance(probe, dict) else probe,
            )
        )
    margin = document.get("margin")
    seen = {key: document[key] for key in ("scale", "axes", "margin", "task") if key in document}
    return Rubric(
        name=document["name"],
        title=document["title"].strip(),
        task=document.get("task", "").strip(),
        axes=tuple(axes),
        low=float(scale["low"]),
        high=float(scale["high"]),
        step=float(scale["step"]),
        margin=None if margin is None else (margin["plus"], margin["minus"]),
        folder=folder,
        sha256=sha256_value(seen),
    )


def _check(rubric: Rubric, file: str) -> None:
    steps = (rubric.high - rubric.low) / rubric.step
    if steps < 1 - _CLOSE or not math.isclose(steps, round(steps), abs_tol=1e-6):
        raise FormatError(file, "scale", "from `low` to `high` is no whole number of steps", fix="mend the scale")
    if round(steps) >= MAX_LEVELS:
        raise FormatError(file, "scale", f"the scale has more than {MAX_LEVELS} levels", fix="take a wider step")
    for axis in rubric.axes:
        where = f"axes.{axis.name}"
        if axis.name == MARGIN:
            raise FormatError(file, where, "an axis can't be called margin, which is derived", fix="rename it")
        scores = [score for score, _ in axis.levels]
        strays = [score for score in scores if not rubric.on_scale(score)]
        if strays:
            raise FormatError(
                file, f"{where}.levels", "a score is not on the scale", expected=list(rubric.levels), observed=strays
            )
        if len(set(scores)) < len(scores):
            raise FormatError(file, f"{where}.levels", "a score is described twice", observed=scores)
        if scores[0] != rubric.low or scores[-1] != rubric.high:
            message = "the lowest and the highest score must be described"
            raise FormatError(file, f"{where}.levels", message, expected=[rubric.low, rubric.high], observed=scores)
    for name in rubric.margin or ():
        if name not in rubric.names:
            raise FormatError(file, "margin", f"there is no axis {name}", expected=list(rubric.names), observed=name)
