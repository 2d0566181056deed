"""Best cells: by judge and model, with every tie.

Invariant: only cells whose texts a judge can have read take part. Which of several tied cells is shown first follows
from the cells alone, never from the order of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from steer_eval.claims.claim import Selector
from steer_eval.claims.facts import AXES, Facts

MEASURES = (*AXES, "margin")
_SAME = 1e-9


@dataclass(frozen=True)
class Score:
    """What a judge says of one cell.

    Args:
        layer: Layer of the cell.
        coef: Its coefficient.
        values: Score on each axis, and the margin.
        ratio: Perplexity ratio of the cell; None where no sweep has it.
        imputed: Whether there was no text to judge.
    """

    layer: int
    coef: float
    values: Mapping[str, float]
    ratio: float | None
    imputed: bool

    @property
    def cell(self) -> tuple[int, float]:
        """Layer and coefficient."""
        return self.layer, self.coef

    @property
    def margin(self) -> float:
        """Score on the wanted axis, less that on the unwanted one."""
        return self.values["margin"]


@dataclass(frozen=True)
class Judgement:
    """All that a judge says of one model.

    Args:
        model: Name of the model in file names.
        judge: Name of the judge in file names.
        scores: Its scores, in the order of the file.
    """

    model: str
    judge: str
    scores: tuple[Score, ...]

    @property
    def judged(self) -> tuple[Score, ...]:
        """Scores of cells with text."""
        return tuple(score for score in self.scores if not score.imputed)

    @property
    def best(self) -> tuple[Score, ...]:
        """The cells of the highest margin: first the one with the weakest steering, then the lowest layer."""
        judged = self.judged
        if not judged:
            return ()
        highest = max(score.margin for score in judged)
        tied = [score for score in judged if score.margin >= highest - _SAME]
        # Of +1 and -1 the positive one, so that the order is complete.
        return tuple(sorted(tied, key=lambda score: (abs(score.coef), score.layer, -score.coef)))


def judgements(facts: Facts, models: list[str]) -> list[Judgement]:
    """What each judge says of each model.

    Args:
        facts: The numbers of the study.
        models: Names of its models, in the order to keep.
    """
    margins = facts.find("margin", Selector())
    judges = sorted({fact.select.judge for fact in margins if fact.select.judge is not None})
    found = [Judgement(model, judge, tuple(_scores(facts, model, judge))) for model in models for judge in judges]
    return [judgement for judgement in found if judgement.scores]


def _scores(facts: Facts, model: str, judge: str) -> Iterator[Score]:
    of = Selector(model, "steered", judge=judge)
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for measure in MEASURES:
        for fact in facts.find(measure, of):
            rows.setdefault((fact.file, fact.where), {})[measure] = float(fact.value)
    seen: set[tuple[int, float]] = set()
    for fact in facts.find("margin", of):
        layer, coef = fact.select.layer, fact.select.coef
        # Of a cell that is judged twice the first row, as elsewhere.
        if layer is None or coef is None or (layer, coef) in seen:
            continue
        seen.add((layer, coef))
        ratios = facts.find("perplexity_ratio", Selector(model, "steered", layer, coef))
        ratio = float(ratios[0].value) if ratios else None
        yield Score(layer, coef, rows[fact.file, fact.where], ratio, bool(fact.note))
