"""A judge that is a model on this machine, read by its probabilities instead of its words.

Invariant: a score is the expectation over the rubric's levels of the model's own next-token probabilities, renormalised
over the labels that stand for levels; where the labels carry little of the probability the model was not answering the
question, and the axis is unscored. Nothing is sampled, so asking twice gives the same score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steer_eval.errors import SteerEvalError
from steer_eval.judge.cache import CallLog, call_key
from steer_eval.judge.protocol import Prompt, prompt_of
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Ask, Judgement, ProtocolName
from steer_eval.model import LanguageModel

MIN_MASS = 0.5
MAX_LABELS = 9
"""Labels are the digits from 1 on: single tokens in every tokenizer that is around."""


@dataclass(frozen=True)
class _Labels:
    """Tokens that stand for the levels, lowest first."""

    tokens: tuple[int, ...]
    levels: tuple[float, ...]


class LocalJudge:
    """A Hugging Face model.

    Args:
        lm: The model, loaded.
        model: What it is called: a Hub id or a folder.
        revision: What identifies its weights at their source.
        weights_sha256: Checksum of its weights.
        texts: Checksums of what decides its tokens beside them, by name.
        name: What tables call the judge.
        log: Where scores are kept and found again.
    """

    checked: bool = True

    def __init__(
        self,
        lm: LanguageModel,
        *,
        model: str,
        revision: str,
        weights_sha256: str,
        texts: Mapping[str, str],
        name: str,
        log: CallLog,
    ) -> None:
        self.lm = lm
        self.model = model
        self.revision = revision
        self.weights_sha256 = weights_sha256
        self.texts = dict(texts)
        self.name = name
        self.log = log

    def identity(self) -> dict[str, Any]:
        """Model, weights and how they are read."""
        return {
            "kind": "local",
            "model": self.model,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256,
            **self.texts,
            "dtype": self.lm.dtype,
            "score": "expectation over label probabilities",
            "min_mass": MIN_MASS,
        }

    def judge(
        self, asks: Sequence[Ask], rubric: Rubric, protocol: ProtocolName, advance: Callable[[int], None]
    ) -> list[Judgement]:
        """Answer questions; see `Judge`.

        Raises:
            SteerEvalError: The rubric has more levels than there are labels, or a label is no single token.
        """
        labels = self._labels(rubric)
        judgements = []
        for ask in asks:
            judgements.append(self._answer(ask, rubric, protocol, labels))
            advance(1)
        return judgements

    def _labels(self, rubric: Rubric) -> _Labels:
        levels = rubric.levels
        if len(levels) > MAX_LABELS:
            raise SteerEvalError(
                f"rubric {rubric.name} has {len(levels)} levels, a local judge has labels for {MAX_LABELS}",
                "take a wider step, or --judge api",
            )
        tokens = []
        for label in range(1, len(levels) + 1):
            ids = self.lm.text_ids(str(label), special_tokens=False)
            if len(ids) != 1:
                raise SteerEvalError(f"{self.model} has no single token for the label {label}", "take another model")
            tokens.append(ids[0])
        return _Labels(tuple(tokens), levels)

    def _answer(self, ask: Ask, rubric: Rubric, protocol: ProtocolName, labels: _Labels) -> Judgement:
        scores: dict[str, float] = {}
        extra: dict[str, Any] = {}
        keys: list[str] = []
        for axis in ask.axes:
            single = Ask(ask.cell, ask.samples, (axis,), ask.repeat, ask.role)
            request = self._request(prompt_of(single, rubric, protocol), rubric, labels)
            key = call_key(request, repeat=f"{ask.role} {ask.repeat}", attempt=0)
            record = self.log.find(key)
            if record is None and self.log.is_replay:
                return Judgement(ask, reason="not-in-replay", calls=tuple(keys))
            if record is None:
                probabilities = self._probabilities(request, labels)
                record = {"kind": "call", "request": request, "reply": {"probabilities": probabilities}}
                self.log.add(key, record)
            keys.append(key)
            probabilities = record["reply"]["probabilities"]
            mass = math.fsum(probabilities)
            extra[axis] = {"mass": round(mass, 6), "probabilities": probabilities}
            if mass >= MIN_MASS:
                weighed = zip(probabilities, labels.levels, strict=True)
                scores[axis] = math.fsum(p * level for p, level in weighed) / mass
        raw = str({axis: extra[axis]["mass"] for axis in extra})
        lacking = [axis for axis in ask.axes if axis not in scores]
        if lacking:
            detail = ", ".join(f"{axis}: {extra[axis]['mass']:.3f}" for axis in lacking)
            return Judgement(ask, reason="low-mass", detail=detail, raw=raw, attempts=1, calls=tuple(keys), extra=extra)
        return Judgement(ask, scores, raw=raw, attempts=1, calls=tuple(keys), extra=extra)

    def _request(self, prompt: Prompt, rubric: Rubric, labels: _Labels) -> dict[str, Any]:
        """Everything that decides the probabilities."""
        table = ", ".join(f"{index} for {level:g}" for index, level in enumerate(rubric.levels, start=1))
        # The question and its texts without the form of the reply, which here is one label.
        question = prompt.user.rpartition("\n\n")[0]
        user = f"{question}\n\nAnswer with one label and nothing else. Labels: {table}."
        return {
            "weights": self.weights_sha256,
            **self.texts,
            "dtype": self.lm.dtype,
            "device": self.lm.device.type,
            "system": "You score texts on a rubric. You answer with one label.",
            "user": user,
            "labels": list(labels.tokens),
        }

    @torch.no_grad()
    def _probabilities(self, request: dict[str, Any], labels: _Labels) -> list[float]:
        """Probabilities of the labels as the first token of the reply."""
        ids = self.lm.chat_ids(request["user"], system=request["system"])
        hidden = self.lm.final_hidden(torch.tensor([ids]))
        logits = self.lm.logits(hidden[:, -1:])[0, -1].float()
        probabilities = torch.softmax(logits, dim=-1)[list(labels.tokens)]
        return [round(float(value), 8) for value in probabilities]
