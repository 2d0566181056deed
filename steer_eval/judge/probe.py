"""A judge without a language model's opinion: a small text classifier, and fluency for coherence.

Invariant: equal texts give equal scores on every run, for nothing and offline. The classifier is fitted on texts whose
class is known by construction (the study's contrast texts, and texts that the rubric brings), never on another judge's
scores; so its agreement with a published judge is evidence, and its cross-validated accuracy says what it can tell
apart. What it tells apart is wording: it does not know what a text means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.contrast import ContrastPair
from steer_eval.digest import sha256_value
from steer_eval.errors import SteerEvalError
from steer_eval.judge.fluency import FLUENCY, Fluency
from steer_eval.judge.rubric import Rubric, probe_texts
from steer_eval.judge.subjects import Ask, Judgement, ProtocolName

FOLDS = 5
BACKGROUND = "negative"
"""The class of ordinary replies, at the bottom of every axis."""

INVERSE_PENALTY = 10.0
DECIMALS = 6
_CONTRACTIONS = (
    (re.compile(r"\bcan't\b", re.IGNORECASE), "can not"),
    (re.compile(r"\bwon't\b", re.IGNORECASE), "will not"),
    (re.compile(r"n't\b", re.IGNORECASE), " not"),
    (re.compile(r"\b(it|that|what|there|here|he|she|who)'s\b", re.IGNORECASE), r"\1 is"),
    (re.compile(r"'m\b", re.IGNORECASE), " am"),
    (re.compile(r"'re\b", re.IGNORECASE), " are"),
    (re.compile(r"'ve\b", re.IGNORECASE), " have"),
    (re.compile(r"'ll\b", re.IGNORECASE), " will"),
    (re.compile(r"'d\b", re.IGNORECASE), " would"),
)
"""Whoever writes "I'm" is no angrier than who writes "I am"; but the texts of one class may well do so more often."""


@dataclass(frozen=True)
class Validation:
    """How well the classifier tells its classes apart on texts that it was not fitted on.

    Args:
        accuracy: Share of texts put into their class.
        by_class: That share, for each class.
        texts: How many texts there are of each class.
        folds: How many times it was fitted; replies to one scenario are never on both sides.
    """

    accuracy: float
    by_class: dict[str, float]
    texts: dict[str, int]
    folds: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "accuracy": round(self.accuracy, DECIMALS),
            "by_class": {name: round(value, DECIMALS) for name, value in self.by_class.items()},
            "texts": self.texts,
            "folds": self.folds,
        }


class ProbeJudge:
    """The classifier, fitted.

    Args:
        pairs: The study's contrast pairs.
        rubric: Says what each axis is learnt from.
        fluency: Scores fluency; None if no axis asks for it, or no model can be had.
        name: What tables call the judge.
    """

    checked: bool = False

    def __init__(
        self, pairs: Sequence[ContrastPair], rubric: Rubric, fluency: Fluency | None, *, name: str = "probe"
    ) -> None:
        self.name = name
        self._classes, texts, labels, groups = _training(pairs, rubric)
        self._fluency = fluency
        self._digest = sha256_value([texts, labels])
        self.validation = _validate(texts, labels, groups, self._classes)
        self._pipeline = _pipeline().fit(texts, labels)
        self._known: dict[str, NDArray[np.float64]] = {}

    def identity(self) -> dict[str, Any]:
        """Texts, versions and what validates it."""
        import sklearn

        return {
            "kind": "probe",
            "model": "TF-IDF of words and characters, logistic regression",
            "training_sha256": self._digest,
            "scikit_learn": sklearn.__version__,
            "cross_validation": self.validation.to_json(),
            "fluency": self._fluency.identity() if self._fluency else None,
        }

    def judge(
        self, asks: Sequence[Ask], rubric: Rubric, protocol: ProtocolName, advance: Callable[[int], None]
    ) -> list[Judgement]:
        """Answer questions; see `Judge`.

        Raises:
            SteerEvalError: The protocol shows several texts at once.
        """
        if protocol != "sample":
            raise SteerEvalError("the probe scores texts one by one", "judge with --protocol sample")
        new = list(
            dict.fromkeys(sample.text for ask in asks for sample in ask.samples if sample.text not in self._known)
        )
        if new:
            probabilities = self._pipeline.predict_proba([expanded(text) for text in new])
            self._known |= dict(zip(new, probabilities, strict=True))
        if self._fluency is not None:
            self._fluency.prepare([(sample.prompt, sample.text) for ask in asks for sample in ask.samples])
        judgements = []
        for ask in asks:
            judgements.append(self._answer(ask, rubric))
            advance(1)
        return judgements

    def _answer(self, ask: Ask, rubric: Rubric) -> Judgement:
        [sample] = ask.samples
        scores = {}
        for axis in ask.axes:
            source = rubric.axis(axis).probe
            if source == FLUENCY:
                if self._fluency is None:
                    return Judgement(ask, reason="no-model", detail=axis)
                share = self._fluency.share(sample.prompt, sample.text)
                if share is None:
                    return Judgement(ask, reason="not-in-replay", detail=axis)
            else:
                share = above_chance(self._known[sample.text], self._classes.index(source or ""))
            scores[axis] = round(rubric.low + (rubric.high - rubric.low) * share, DECIMALS)
        return Judgement(ask, scores, attempts=1)


def expanded(text: str) -> str:
    """A text with its contractions written out."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for pattern, words in _CONTRACTIONS:
        text = pattern.sub(words, text)
    return text


def above_chance(probabilities: NDArray[np.float64], index: int) -> float:
    """A class's probability on a scale where chance is 0 and certainty is 1.

    A text with none of the words that tell classes apart gets about equal probabilities; it shows nothing, and must lie
    at the bottom of every axis.
    """
    chance = 1 / len(probabilities)
    return float(max(0.0, (probabilities[index] - chance) / (1 - chance)))


def _training(pairs: Sequence[ContrastPair], rubric: Rubric) -> tuple[list[str], list[str], list[int], list[int]]:
    """Classes, texts, the class of each text, and the group that it may not be parted from in validation."""
    if not pairs:
        raise SteerEvalError("the probe has no contrast pairs to learn from", "judge a study that publishes its pairs")
    sources: list[str] = []
    for axis in rubric.axes:
        if axis.probe is None:
            raise SteerEvalError(
                f"axis {axis.name} of rubric {rubric.name} names nothing that the probe can learn it from",
                f"add axes.{axis.name}.probe to the rubric, or use another judge",
            )
        if axis.probe != FLUENCY and axis.probe not in sources:
            sources.append(axis.probe)
    classes = [*sources, *([] if BACKGROUND in sources else [BACKGROUND])]
    texts: list[str] = []
    labels: list[int] = []
    groups: list[int] = []
    for label, source in enumerate(classes):
        if source in ("positive", BACKGROUND):
            chosen = [pair.positive if source == "positive" else pair.negative for pair in pairs]
            numbers = list(range(len(pairs)))
        else:
            chosen = probe_texts(rubric, source)
            start = max(groups, default=0) + len(pairs) + 1
            numbers = list(range(start, start + len(chosen)))
        texts += [expanded(text) for text in chosen]
        labels += [label] * len(chosen)
        groups += numbers
    if len(classes) < 2:
        raise SteerEvalError(f"rubric {rubric.name} gives the probe one class of texts", "it needs two to tell apart")
    return classes, texts, labels, groups


def _pipeline() -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    except ImportError as error:
        raise SteerEvalError("the probe needs scikit-learn", "pip install 'steer-eval[judge]'") from error
    # Capitals and exclamation marks are what some classes are told by, so characters keep their case.
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, lowercase=False),
    )
    # Without an intercept a text with no known feature is no likelier in one class than in another.
    classifier = LogisticRegression(
        C=INVERSE_PENALTY, max_iter=2000, class_weight="balanced", fit_intercept=False, tol=1e-6
    )
    return make_pipeline(features, classifier)


def _validate(texts: list[str], labels: list[int], groups: list[int], classes: list[str]) -> Validation:
    from sklearn.model_selection import GroupKFold, cross_val_predict

    folds = min(FOLDS, len(set(groups)))
    if folds < 2:
        raise SteerEvalError("the probe has too few contrast pairs to be validated", "it needs at least two")
    given = np.array(labels)
    predicted = cross_val_predict(_pipeline(), texts, given, groups=groups, cv=GroupKFold(folds))
    right = predicted == given
    return Validation(
        float(right.mean()),
        {name: float(right[given == index].mean()) for index, name in enumerate(classes)},
        {name: int((given == index).sum()) for index, name in enumerate(classes)},
        folds,
    )
