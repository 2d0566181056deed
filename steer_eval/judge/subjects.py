"""What is judged, what is asked about it, and what came of that.

Invariant: these are plain values. A subject is a cell with texts; collapsed cells have none and are no subjects, so
that nothing can be scored where there is nothing to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from steer_eval.cells import Cell
from steer_eval.results import SweepRow

Role = Literal["cell", "duplicate", "canary", "canary-bait"]
ProtocolName = Literal["paper-cell", "sample"]

REASONS = {
    "empty": "the reply is empty",
    "truncated": "the reply was cut off at the token limit",
    "filtered": "the endpoint withheld the reply",
    "refusal": "the judge refused",
    "no-json": "the reply holds no JSON object with the axes",
    "ambiguous": "the reply holds several answers that differ",
    "incomplete": "an axis is missing from the reply, or is no number",
    "off-scale": "a score is none of the rubric's levels",
    "echo": "the reply repeats the prompt or a judged text",
    "low-mass": "the labels carry too little of the probability",
    "transport": "no reply could be had",
    "not-asked": "the limit on calls or cost was reached",
    "not-in-replay": "the replayed calls hold no reply to this request",
    "no-model": "there is no model to tell this axis from",
}
"""Why something is unscored."""


@dataclass(frozen=True)
class Sample:
    """One text with what it answers.

    Args:
        prompt_idx: Index of the prompt.
        prompt: What the user said.
        text: The generated reply.
    """

    prompt_idx: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Subject:
    """A cell and its texts, in the order of the prompts."""

    cell: Cell
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Ask:
    """One question to a judge.

    Args:
        cell: Whose texts are shown; the judge is never told. None for a canary.
        samples: The texts, in the order in which they are shown.
        axes: What to score them on.
        repeat: Which repetition, from 0.
        role: Whether it counts, or is a check on the judge.
    """

    cell: Cell | None
    samples: tuple[Sample, ...]
    axes: tuple[str, ...]
    repeat: int = 0
    role: Role = "cell"


@dataclass(frozen=True)
class Judgement:
    """What came of an `Ask`.

    Args:
        ask: The question.
        scores: By axis; empty if unscored. On the rubric's levels, except where a judge's own scores are continuous.
        reason: Key of `REASONS`; empty if scored.
        detail: More on the reason.
        raw: The reply as it came, None if there was none.
        notes: What the judge remarked.
        attempts: How often it was asked.
        calls: Content keys of the calls, for the log.
        extra: What else is known of how the scores came about.
    """

    ask: Ask
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""
    raw: str | None = None
    notes: str = ""
    attempts: int = 0
    calls: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return not self.reason


def subjects_of(rows: Iterable[SweepRow]) -> list[Subject]:
    """The measured cells that have texts."""
    return [
        Subject(row.cell, tuple(Sample(text.prompt_idx, text.prompt, text.gen) for text in row.generations))
        for row in rows
        if row.generations
    ]


def judgement_to_json(judgement: Judgement) -> dict[str, Any]:
    """A judgement as a row of `judgements_<judge>_<model>.jsonl`, or of the comparison's file."""
    ask = judgement.ask
    return {
        "role": ask.role,
        **({"variant": ask.cell.variant} if ask.cell and ask.cell.variant else {}),
        "label": ask.cell.label if ask.cell else None,
        "layer": ask.cell.layer if ask.cell else None,
        "coef": ask.cell.coef if ask.cell else None,
        "prompts": [sample.prompt_idx for sample in ask.samples],
        "repeat": ask.repeat,
        "axes": list(ask.axes),
        "status": "scored" if judgement.scored else "unscored",
        "scores": dict(judgement.scores),
        **({} if judgement.scored else {"reason": judgement.reason, "detail": judgement.detail}),
        **({"notes": judgement.notes} if judgement.notes else {}),
        "raw": judgement.raw,
        "attempts": judgement.attempts,
        "calls": list(judgement.calls),
        **({"extra": dict(judgement.extra)} if judgement.extra else {}),
    }
