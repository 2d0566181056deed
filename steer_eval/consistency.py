"""Whether results agree with themselves.

Invariant: every number that can be computed from others beside it is, and a difference beyond rounding is a conflict.
Validation reports conflicts as findings; claims that rest on conflicting rows are contradicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from steer_eval.evaluation.perplexity import Floats, Interval, ratio_interval
from steer_eval.formats.vector import SteeringVector
from steer_eval.results import Sweep, SweepRow, sentence_perplexity
from steer_eval.study import PerplexityProtocol, Study

RELATIVE = 1e-5
"""Difference that rounding of the published decimals may cause."""

NORM_RELATIVE = 1e-6
"""Difference between a norm taken in float32, as studies record it, and one taken in float64."""

_NORM_RELATIVE_STORED = {"float16": 1e-3, "bfloat16": 1e-2}
"""The same where the values were rounded to a narrower dtype after the norm was taken, by that dtype."""

_FEWEST_DIGITS, _ALL_DIGITS = 6, 17


@dataclass(frozen=True)
class Conflict:
    """One number that does not follow from those beside it.

    Args:
        field: The field as recorded.
        formula: What it should follow from.
        expected: What follows.
        observed: What is recorded.
    """

    field: str
    formula: str
    expected: Any
    observed: Any

    def __str__(self) -> str:
        expected, observed = shown_apart(self.expected, self.observed)
        return f"{self.field} is {observed}, {self.formula} gives {expected}"


def row_conflicts(row: SweepRow, sweep: Sweep, study: Study) -> list[Conflict]:
    """What a sweep row records that does not follow from its other fields or from the zero control.

    Args:
        row: The row.
        sweep: The sweep it stands in; its zero control carries the unsteered model's sentence sums, from which every
            row's `base_ppl` must follow.
        study: Collapse ratio and bootstrap settings.
    """
    found = [ratio_conflict(row)]
    if row.sentence_nll is not None and row.sentence_tokens is not None:
        sentences, counts = len(row.sentence_nll), len(row.sentence_tokens)
        if sentences != counts:
            found.append(Conflict("sentence_tokens", "one count per sentence of sentence_nll", sentences, counts))
    from_sentences = sentence_perplexity(row)
    if from_sentences is not None:
        found.append(_compared("ppl", "exp(sum of sentence_nll / sum of sentence_tokens)", from_sentences, row.ppl))
    found.append(collapse_conflict(row, study.sweep.collapse_ratio))
    # The mark stands beside the recorded interval; leaving that out does not free the mark.
    interval = row.interval or ratio_interval_of(row, sweep, study)
    if row.undecided is not None and interval is not None:
        spans = interval.spans(study.sweep.collapse_ratio)
        if spans != row.undecided:
            formula = f"whether ppl_ratio_interval spans {study.sweep.collapse_ratio:g}"
            found.append(Conflict("collapse_undecided", formula, spans, row.undecided))
    zero = next(sweep.labelled("zero"), None)
    if row.base_sentence_nll is not None:
        found.append(_base_conflict(row, row.base_sentence_nll))
    elif zero is not None:
        unsteered = sentence_perplexity(zero) or zero.ppl
        found.append(_compared("base_ppl", "the zero control", unsteered, row.base_ppl))
    found.extend(_interval_conflicts(row, _unsteered_sums(row, sweep), study))
    return [conflict for conflict in found if conflict is not None]


def ratio_conflict(row: SweepRow) -> Conflict | None:
    """A perplexity ratio that is not `ppl / base_ppl`."""
    return _compared("ppl_ratio", "ppl / base_ppl", row.ppl / row.base_ppl, row.ppl_ratio)


def collapse_conflict(row: SweepRow, collapse_ratio: float) -> Conflict | None:
    """A mark of collapse that the ratio does not bear out."""
    collapsed = row.ppl_ratio > collapse_ratio
    formula = f"ppl_ratio > {collapse_ratio:g}"
    return None if collapsed == row.collapsed else Conflict("collapsed", formula, collapsed, row.collapsed)


def ratio_interval_of(row: SweepRow, sweep: Sweep, study: Study) -> Interval | None:
    """The interval of a row's perplexity ratio: what the sentence sums give, else what is recorded.

    Args:
        row: The row.
        sweep: The sweep it stands in; its zero control carries the unsteered model's sentence sums.
        study: Bootstrap settings.

    Returns:
        None where there is neither an interval nor the sums for one.
    """
    return _bootstrapped(row, _unsteered_sums(row, sweep), study) or row.interval


def vector_conflicts(vector: SteeringVector) -> list[Conflict]:
    """What a vector's provenance records that its values do not give."""
    recorded = float(vector.provenance.get("norm", "nan"))
    conflict = _compared("norm", "the vector", vector.norm, recorded, tolerance=_norm_tolerance(vector))
    return [] if conflict is None or math.isnan(recorded) else [conflict]


def _norm_tolerance(vector: SteeringVector) -> float:
    """How far a recorded norm may be from that of the values, by the dtype in which these were stored."""
    provenance = vector.provenance
    # The dtype in a safetensors file that was not converted is that of the model: the values are float32.
    if "format" in provenance and "source_format" not in provenance:
        return NORM_RELATIVE
    return _NORM_RELATIVE_STORED.get(provenance.get("dtype", ""), NORM_RELATIVE)


def _unsteered_sums(row: SweepRow, sweep: Sweep) -> Floats | None:
    """Sums per sentence of the unsteered model, as the row was compared with: its own, else the zero control's."""
    if row.base_sentence_nll is not None:
        return row.base_sentence_nll
    zero = next(sweep.labelled("zero"), None)
    return None if zero is None else zero.sentence_nll


def _base_conflict(row: SweepRow, base_nll: Floats) -> Conflict | None:
    """An unsteered perplexity that does not follow from the sums beside it."""
    formula = "exp(sum of base_sentence_nll / sum of sentence_tokens)"
    if row.sentence_tokens is None or len(base_nll) != len(row.sentence_tokens):
        sentences = 0 if row.sentence_tokens is None else len(row.sentence_tokens)
        return Conflict("base_sentence_nll", "one sum per sentence of sentence_tokens", sentences, len(base_nll))
    with np.errstate(over="ignore"):
        unsteered = float(np.exp(base_nll.sum() / row.sentence_tokens.sum()))
    return _compared("base_ppl", formula, unsteered, row.base_ppl)


def _interval_conflicts(row: SweepRow, base_nll: Floats | None, study: Study) -> list[Conflict | None]:
    expected = None if row.interval is None else _bootstrapped(row, base_nll, study)
    if row.interval is None or expected is None:
        return []
    formula = "the sentence bootstrap"
    return [
        _compared("ppl_ratio_interval[0]", formula, expected.low, row.interval.low),
        _compared("ppl_ratio_interval[1]", formula, expected.high, row.interval.high),
    ]


def _bootstrapped(row: SweepRow, base_nll: Floats | None, study: Study) -> Interval | None:
    """The interval that the sentence sums of a row and of the unsteered model give; None where they don't fit."""
    if (
        row.sentence_nll is None
        or row.sentence_tokens is None
        or base_nll is None
        or not len(base_nll) == len(row.sentence_nll) == len(row.sentence_tokens)
    ):
        return None
    return _interval_of_bytes(
        row.sentence_nll.astype(np.float64).tobytes(),
        base_nll.astype(np.float64).tobytes(),
        row.sentence_tokens.astype(np.int64).tobytes(),
        study.perplexity,
    )


@lru_cache(maxsize=1024)
def _interval_of_bytes(nll: bytes, base_nll: bytes, tokens: bytes, protocol: PerplexityProtocol) -> Interval:
    """The bootstrap of one row, once: several rules and claims ask for it."""
    return ratio_interval(
        np.frombuffer(nll, dtype=np.float64),
        np.frombuffer(base_nll, dtype=np.float64),
        np.frombuffer(tokens, dtype=np.int64),
        resamples=protocol.resamples,
        confidence=protocol.confidence,
        seed=protocol.seed,
    )


def same_or_rounded(expected: float, observed: float) -> bool:
    """Whether a copied number is the original, or the original rounded to the decimals that the copy has."""
    if math.isclose(expected, observed, rel_tol=NORM_RELATIVE):
        return True
    _, _, decimals = repr(observed).partition(".")
    # One decimal is what Python prints of whole numbers, so it says nothing about rounding.
    return 2 <= len(decimals) <= 4 and abs(expected - observed) <= 0.5000001 * 10.0 ** -len(decimals)


def _compared(
    field: str, formula: str, expected: float, observed: float, *, tolerance: float = RELATIVE
) -> Conflict | None:
    if math.isclose(expected, observed, rel_tol=tolerance):
        return None
    return Conflict(field, formula, expected, observed)


def shown_apart(expected: Any, observed: Any) -> tuple[str, str]:
    """Two values that differ, as texts that differ: six digits of a number, or as many as it takes."""
    shown = _shown(expected, _FEWEST_DIGITS), _shown(observed, _FEWEST_DIGITS)
    for digits in range(_FEWEST_DIGITS + 1, _ALL_DIGITS + 1):
        if shown[0] != shown[1]:
            break
        shown = _shown(expected, digits), _shown(observed, digits)
    return shown


def _shown(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
