"""The cells of a comparison: which methods there are, in which order, and which of them has a control.

Invariant: a method stands here with all that it needs. One whose ingredients the study does not plan is left out; what
is planned and absent is an error when it is measured. Every method is followed by its control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steer_eval.cells import Cell
from steer_eval.claims.claim import Label
from steer_eval.comparison.plan import ComparisonPlan
from steer_eval.study import Study
from steer_eval.transfer.plan import TransferPlan

UNSTEERED = "unsteered"
ADDITION = "addition"
ROTATION = "rotation"
STACK = "stack"
FEATURES = "features"
ANCHOR = "anchor"
ANCHOR_ADDITION = "anchor+addition"
PATCH = "patch"
PATCH_IDENTITY = "patch-identity"
CARRIED = {"carried-ridge": "ridge", "carried-procrustes": "procrustes"}
"""Methods that try a carried vector, and by which kind of map it was carried."""


@dataclass(frozen=True)
class Method:
    """One method of a comparison.

    Args:
        name: What its cells are called.
        place: Layer and coefficient of its cells; None where it has none, or several.
        is_planned: Whether a study plans what it needs.
        has_control: Whether it has a random control.
    """

    name: str
    place: Callable[[Study, ComparisonPlan], tuple[int | None, float]]
    is_planned: Callable[[Study, ComparisonPlan], bool]
    has_control: bool = True


def transfer_of(study: Study, plan: ComparisonPlan) -> TransferPlan | None:
    """The transfer whose carried vectors are compared, if there is one."""
    return next((transfer for transfer in study.transfers if transfer.name == plan.transfer), None)


def _nowhere(_study: Study, _plan: ComparisonPlan) -> tuple[None, float]:
    return None, 0.0


def _at_layer(_study: Study, plan: ComparisonPlan) -> tuple[int, float]:
    return plan.layer, plan.coefficient


def _without_coefficient(_study: Study, plan: ComparisonPlan) -> tuple[int, float]:
    return plan.layer, 0.0


def _at_target(study: Study, plan: ComparisonPlan) -> tuple[int | None, float]:
    transfer = transfer_of(study, plan)
    return (None, 0.0) if transfer is None else (transfer.target.layer, transfer.coefficient)


def _always(_study: Study, _plan: ComparisonPlan) -> bool:
    return True


def _has_anchor(study: Study, _plan: ComparisonPlan) -> bool:
    return study.sweep.anchor is not None


METHODS = (
    Method(UNSTEERED, _nowhere, _always, has_control=False),
    Method(ADDITION, _at_layer, _always),
    Method(ROTATION, _at_layer, _always),
    # It acts at several layers, and pushes as hard as addition does at one.
    Method(STACK, lambda _study, plan: (None, plan.coefficient), lambda _study, plan: bool(plan.stack)),
    Method(FEATURES, _without_coefficient, lambda _study, plan: plan.features is not None),
    Method(ANCHOR, _nowhere, _has_anchor),
    Method(ANCHOR_ADDITION, _at_layer, _has_anchor),
    Method(PATCH, _without_coefficient, _has_anchor),
    Method(PATCH_IDENTITY, _without_coefficient, _has_anchor, has_control=False),
    *(Method(name, _at_target, lambda study, plan: transfer_of(study, plan) is not None) for name in CARRIED),
)


def comparison_cells(study: Study, model: str) -> list[Cell]:
    """All cells of the comparison on a model, each method before its control; none if the study compares nothing."""
    plan = study.comparison(model)
    if plan is None:
        return []
    cells = []
    for method in METHODS:
        if method.is_planned(study, plan):
            layer, coefficient = method.place(study, plan)
            label: Label = "zero" if method.name == UNSTEERED else "steered"
            cells.append(Cell(model, label, layer, coefficient, method.name))
            if method.has_control:
                cells.append(Cell(model, "random", layer, coefficient, method.name))
    return cells
