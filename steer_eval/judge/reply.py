"""From a judge's reply to scores, or to the reason why there are none.

Invariant: scores come only from one complete JSON object of the reply that has every axis as a number on the scale. A
reply that repeats what it was shown is no answer, whatever numbers stand in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from steer_eval.judge.protocol import NOTES, Prompt
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Ask

MAX_CHARACTERS = 100_000
_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_REFUSED = re.compile(
    r"\b(?:I can(?:no|')t|I am unable to|I'm unable to|I will not|I won't|I must decline)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Reply:
    """What an endpoint sent back.

    Args:
        content: The text; None if there was none.
        finish: Why it ended, as the endpoint has it (`stop`, `length`, `content_filter`, …).
        refusal: What the endpoint gave as a refusal.
    """

    content: str | None
    finish: str | None = "stop"
    refusal: str | None = None


@dataclass(frozen=True)
class Answer:
    """Scores by axis, or the reason why there are none."""

    scores: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""
    notes: str = ""


class _NoJsonError(ValueError):
    """Text that is no strict JSON."""


def completion_to_json(completion: Any) -> dict[str, Any]:
    """What is kept of a chat completion.

    Args:
        completion: As the SDK has it; its parts may be of any type, or absent.

    Raises:
        ValueError: It is none.
        AttributeError, TypeError, LookupError: A part of it is absent.
    """
    choice = completion.choices[0]
    content, reasoning = choice.message.content, getattr(choice.message, "reasoning_content", None)
    if content is not None and not isinstance(content, str):
        raise ValueError("the content is no text")
    usage = completion.usage.model_dump() if completion.usage is not None else {}
    return {
        "content": None if content is None else encodable(content),
        "finish": _text(choice.finish_reason),
        "refusal": _text(getattr(choice.message, "refusal", None)),
        "reasoning_characters": len(reasoning) if isinstance(reasoning, str) else 0,
        "served_model": _text(completion.model),
        "fingerprint": _text(getattr(completion, "system_fingerprint", None)),
        "usage": {key: value for key, value in usage.items() if isinstance(value, int) and value >= 0},
    }


def encodable(text: str) -> str:
    """A text that UTF-8 can say: JSON can hold halves of characters, and a file can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _text(value: Any) -> str | None:
    return encodable(value) if isinstance(value, str) else None


def read_reply(reply: Reply, prompt: Prompt, ask: Ask, rubric: Rubric) -> Answer:
    """Read a reply.

    Args:
        reply: What came back.
        prompt: What was sent.
        ask: The question; its texts may not be the source of the answer.
        rubric: The rubric.
    """
    if reply.refusal:
        return Answer(reason="refusal", detail=reply.refusal[:200])
    if reply.finish == "content_filter":
        return Answer(reason="filtered")
    if reply.finish == "length":
        return Answer(reason="truncated")
    text = _THINKING.sub("", (reply.content or "")[:MAX_CHARACTERS]).strip()
    if not text:
        return Answer(reason="empty")
    if prompt.mark in text.lower():
        return Answer(reason="echo", detail="the fence of the prompt stands in the reply")
    wanted = {key for key, _ in prompt.keys}
    found = [(value, source) for value, source in _objects(text) if wanted & set(value)]
    if not found:
        refused = _REFUSED.search(text)
        return Answer(reason="refusal" if refused else "no-json", detail=text[:200])
    distinct = {json.dumps([value.get(key) for key in sorted(wanted)]) for value, _ in found}
    if len(distinct) > 1:
        return Answer(reason="ambiguous", detail=f"{len(found)} objects")
    value, source = found[0]
    shown = [_folded(part) for sample in ask.samples for part in (sample.text, sample.prompt)]
    if any(_folded(source) in part for part in shown):
        return Answer(reason="echo", detail="a judged text holds the same object")
    return _scores(value, prompt, rubric)


def _scores(value: dict[str, Any], prompt: Prompt, rubric: Rubric) -> Answer:
    scores = {}
    for key, axis in prompt.keys:
        score = value.get(key)
        if isinstance(score, bool) or not isinstance(score, int | float):
            return Answer(reason="incomplete", detail=f"{key} is {json.dumps(score)[:80]}")
        if not rubric.on_scale(float(score)):
            return Answer(reason="off-scale", detail=f"{key} is {score}")
        scores[axis] = float(score)
    notes = value.get(NOTES)
    return Answer(scores, notes=_text(notes) or "")


def _objects(text: str) -> list[tuple[dict[str, Any], str]]:
    """The outermost JSON objects of a text, each with its source."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
    found = []
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position = text.find("{", position + 1)
            continue
        found.append((value, text[position:end]))
        position = text.find("{", end)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _NoJsonError("a key stands twice")
    return value


def _refuse(constant: str) -> NoReturn:
    raise _NoJsonError(constant)


def _folded(text: str) -> str:
    return "".join(text.split())
