"""Fluency: what a text looks like to the unsteered model, and to itself.

Invariant: fluency is the smaller of two shares, each 1 for sound text. Likelihood: 1 up to what the unlikeliest of the
study's own contrast texts have (their 95 % quantile), falling to 0 at a uniform draw from the vocabulary. Novelty:
the share of a text's word 4-grams that are no repetition. Likelihood alone would praise loops, which are the
likeliest text of all; novelty alone would praise noise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_eval.cells import text_checksums
from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.judge.cache import CallLog, call_key
from steer_eval.judge.cases import Case
from steer_eval.judge.models import model_named
from steer_eval.model import LanguageModel, load_model
from steer_eval.model_reference import ModelReference
from steer_eval.progress import progress_bar
from steer_eval.weights import Weights, fetch

FLUENCY = "fluency"
GRAM = 4
QUANTILE = 0.95
_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FluencyModel:
    """A model for likelihoods, loaded when it is first needed.

    Args:
        reference: Which model.
        weights: Its weights.
        dtype: Precision.
    """

    reference: ModelReference
    weights: Weights
    dtype: str

    @property
    def texts(self) -> dict[str, str]:
        """Checksums of what decides its tokens beside its weights."""
        return text_checksums(self.weights, self.reference.chat_template)

    def load(self) -> LanguageModel:
        """The model."""
        return load_model(self.weights.folder, dtype=self.dtype, chat_template=self.reference.chat_template)


class Fluency:
    """Fluency of replies.

    Args:
        model: For likelihoods.
        pairs: Contrast pairs: what sound text looks like.
        log: Where likelihoods are kept and found again.
    """

    def __init__(self, model: FluencyModel, pairs: Sequence[ContrastPair], log: CallLog) -> None:
        self.model = model
        self.log = log
        self._known: dict[tuple[str, str], float | None] = {}
        self._lm: LanguageModel | None = None
        references = [(pair.scenario, text) for pair in pairs for text in (pair.positive, pair.negative)]
        self.prepare(references)
        known = [value for reference in references if (value := self._known.get(reference)) is not None]
        self.usual = float(np.quantile(known, QUANTILE)) if known else None
        self.uniform = self._uniform()

    def identity(self) -> dict[str, Any]:
        """Model, weights and the two ends of its scale."""
        return {
            "model": self.model.reference.base_model,
            "revision": self.model.weights.revision,
            "weights_sha256": self.model.weights.sha256,
            **self.model.texts,
            "usual_nll": None if self.usual is None else round(self.usual, 6),
            "uniform_nll": round(self.uniform, 6),
        }

    def prepare(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Find the likelihoods of `(prompt, reply)` pairs in the log, and compute the others, if this is no replay."""
        missing = []
        for pair in dict.fromkeys(pairs):
            if pair in self._known:
                continue
            record = self.log.find(self._key(pair))
            if record is not None:
                self._known[pair] = record["reply"]["nll"]
            elif not pair[1].strip():
                self._known[pair] = None
            elif not self.log.is_replay:
                missing.append(pair)
        if missing:
            self._compute(missing)

    def share(self, prompt: str, text: str) -> float | None:
        """Fluency between 0 and 1; None where the likelihood is not known. An empty text has none."""
        if not text.strip():
            return 0.0
        nll = self._known.get((prompt, text))
        if nll is None or self.usual is None:
            return None
        return min(likelihood_share(nll, self.usual, self.uniform), novelty(text))

    def _compute(self, pairs: Sequence[tuple[str, str]]) -> None:
        from steer_eval.judge.likelihood import reply_nll

        self._lm = self._lm or self.model.load()
        with progress_bar("fluency", len(pairs)) as advance:
            for index, value in reply_nll(self._lm, pairs):
                pair = pairs[index]
                # Rounded, so that scores don't depend on whether they came from the log.
                self._known[pair] = nll = round(value, 6)
                record = {"kind": "likelihood", "request": self._request(pair), "reply": {"nll": nll}}
                self.log.add(self._key(pair), record)
                advance(1)

    def _request(self, pair: tuple[str, str]) -> dict[str, Any]:
        model = {"weights": self.model.weights.sha256, **self.model.texts, "dtype": self.model.dtype}
        return {**model, "prompt": pair[0], "text": pair[1]}

    def _key(self, pair: tuple[str, str]) -> str:
        return call_key(self._request(pair), repeat=FLUENCY, attempt=0)

    def _uniform(self) -> float:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.model.weights.folder).get_text_config()
        return math.log(config.vocab_size)


def likelihood_share(nll: float, usual: float, uniform: float) -> float:
    """Likelihood between 0 and 1.

    Args:
        nll: Mean negative log-likelihood per token, in nats.
        usual: Of text that is sound.
        uniform: Of tokens drawn at random.
    """
    if uniform <= usual:
        return float(nll <= usual)
    return min(1.0, max(0.0, (uniform - nll) / (uniform - usual)))


def novelty(text: str) -> float:
    """Share of a text's word 4-grams that occur in it for the first time; 1 for a text too short to have two."""
    words = _WORDS.findall(text.lower())
    grams = [tuple(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def load_fluency(case: Case, named: str | None, log: CallLog, tell: Callable[[str], None]) -> Fluency:
    """Fluency under the unsteered model of a study, or under one that the user names.

    Args:
        case: What is judged.
        named: The user's name of a model; by default the study's own, if it has one.
        log: The log.
        tell: Takes what is said to the user.

    Raises:
        SteerEvalError: The model can't be had, or the study has several.
    """
    if named is None and len(case.models) > 1:
        raise SteerEvalError(
            f"{case.name} has several models: {', '.join(case.models)}",
            "scores of several models stand in one table only under one fluency model: name it with --fluency-model",
        )
    reference, folder = _named(case, named)
    try:
        weights = fetch(reference, study_folder=folder)
    except SteerEvalError as error:
        raise SteerEvalError(error.message, f"{error.fix}, or name another model with --fluency-model") from error
    tell(f"fluency by {reference.base_model}")
    return Fluency(FluencyModel(reference, weights, reference.dtype), case.pairs, log)


def _named(case: Case, named: str | None) -> tuple[ModelReference, Path]:
    return (case.study.models[case.models[0]], case.folder) if named is None else model_named(named)
