"""What a measure is.

Invariant: a measure is a named, documented, pure function from results to one number or truth value. It says which
evidence it can use and what a re-run must measure for it; when it can't be taken it says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal

from steer_eval.cells import Cell
from steer_eval.claims.claim import Selector
from steer_eval.results import Results
from steer_eval.study import Study, Tolerance

Evidence = Literal["published data", "re-run"]


class NotCheckable(Exception):  # noqa: N818 - a verdict, not an error
    """Why a measure can't be taken on some results."""


@dataclass(frozen=True)
class Observation:
    """What a measure found.

    Args:
        value: The number or truth value.
        file: File that it was read from.
        where: Line or key in it.
        undecided: Why the data can't settle the value, where it can't.
        conflict: Where the data contradicts itself about the value, how.
        note: What a reader should know beside the value.
    """

    value: float | bool
    file: str
    where: str
    undecided: str = ""
    conflict: str = ""
    note: str = ""


@dataclass(frozen=True)
class Needs:
    """What a re-run must measure.

    Args:
        perplexity: Cells whose perplexity is needed.
        text: Cells whose generations are needed.
        vectors: (model, layer) of vectors to derive again.
        saes: (model, layer) of SAEs whose quality is to be measured again.
        features: (model, layer) of feature tables to make again.
        transfers: (name, protocol) of transfers to diagnose again.
    """

    perplexity: frozenset[Cell] = frozenset()
    text: frozenset[Cell] = frozenset()
    vectors: frozenset[tuple[str, int]] = frozenset()
    saes: frozenset[tuple[str, int]] = frozenset()
    features: frozenset[tuple[str, int]] = frozenset()
    transfers: frozenset[tuple[str, str]] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(**{part.name: getattr(self, part.name) | getattr(other, part.name) for part in fields(self)})


@dataclass(frozen=True)
class Case:
    """What a measure is taken on.

    Args:
        study: The study.
        select: The claim's selector.
        results: The results to measure.
        published: The published results when `results` are of a re-run, else None.
    """

    study: Study
    select: Selector
    results: Results
    published: Results | None = None

    @property
    def model(self) -> str:
        """The selected model; the study's only one by default.

        Raises:
            NotCheckable: The claim leaves it open.
        """
        return selected_model(self.study, self.select)


def selected_model(study: Study, select: Selector) -> str:
    """The selected model of a study; its only one by default.

    Raises:
        NotCheckable: The claim leaves it open.
    """
    if select.model is not None:
        return select.model
    if len(study.models) != 1:
        raise NotCheckable(f"the claim names none of the models {', '.join(study.models)}")
    return next(iter(study.models))


@dataclass(frozen=True)
class Measure:
    """One entry of the registry.

    Args:
        name: Name that claims use.
        definition: What is measured.
        unit: Unit of the value; `count` values are compared exactly.
        observe: Takes the measure; raises `NotCheckable`.
        needs: What a re-run must measure for it; raises `NotCheckable`.
        evidence: Which evidence it can use.
        is_judged: Whether it rests on the scores of a judge, so that on new generations only that judge can check it.
        is_rerun: Whether a re-run of a study takes it, if it can use that evidence at all.
        tolerance: How far a re-run may lie from a claim, where the study does not say.
    """

    name: str
    definition: str
    unit: str
    observe: Callable[[Case], Observation]
    needs: Callable[[Study, Selector], Needs] = field(default=lambda _study, _select: Needs())
    evidence: frozenset[Evidence] = frozenset({"published data", "re-run"})
    is_judged: Callable[[Selector], bool] = field(default=lambda _select: False)
    is_rerun: Callable[[Study, Selector], bool] = field(default=lambda _study, _select: True)
    tolerance: Tolerance | None = None

    @property
    def exact(self) -> bool:
        """Whether a printed value has no rounding."""
        return self.unit in {"count", "coefficient", "truth value"}
