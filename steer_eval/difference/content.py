"""What two contents of the same kind differ in: fields, rows and tensors.

Invariant: what is reported is exactly what differs, with both values; nothing is rounded, and two orders of the same
rows are no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steer_eval.difference.changes import ABSENT, FieldChange, Pair, RowChange, TensorChange, equal

if TYPE_CHECKING:
    from steer_eval.formats.strict_json import Row

KEYS = ("model", "judge", "label", "variant", "method", "layer", "coef", "feature_id", "prompt_idx", "scenario")
"""Fields that rows are found by, as far as a row has them."""

_CHUNK = 2**20
"""Values that are compared at a time: an SAE can be most of the memory there is."""


def field_changes(old: Any, new: Any, where: str = "") -> Iterator[FieldChange]:
    """Fields of two JSON values that differ; lists of plain values are compared as wholes.

    Args:
        old: The old value.
        new: The new one.
        where: Where the values stand.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from field_changes(old.get(key, ABSENT), new.get(key, ABSENT), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and any(isinstance(each, dict) for each in [*old, *new]):
        for index in range(max(len(old), len(new))):
            before, after = (side[index] if index < len(side) else ABSENT for side in (old, new))
            yield from field_changes(before, after, f"{where}[{index}]")
    elif not equal(old, new):
        yield FieldChange(where, Pair(old, new))


def row_changes(old: Sequence[Row], new: Sequence[Row], defaults: Mapping[str, Any]) -> Iterator[RowChange]:
    """Rows of two tables that differ, found by their keys; rows of one key are taken in their order.

    Args:
        old: The old rows.
        new: The new ones.
        defaults: Fields that a row without them has all the same.
    """
    before, after = _keyed(old, defaults), _keyed(new, defaults)
    for key in dict.fromkeys([*before, *after]):
        ours, theirs = before.get(key), after.get(key)
        lines = Pair(ours.line if ours else ABSENT, theirs.line if theirs else ABSENT)
        named = {name: value for name, value in key if name}
        if ours is None or theirs is None:
            yield RowChange(named, lines)
            continue
        fields = tuple(field_changes({**defaults, **ours.value}, {**defaults, **theirs.value}))
        if fields:
            yield RowChange(named, lines, fields)


def _keyed(rows: Sequence[Row], defaults: Mapping[str, Any]) -> dict[tuple[tuple[str, Any], ...], Row]:
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
    found = {}
    for row in rows:
        value = {**defaults, **row.value}
        parts = [(name, value[name]) for name in KEYS if isinstance(value.get(name), str | int | float)]
        key = tuple(parts) or (("line", row.line),)
        # The same key again is another row; its number tells them apart and is no part of the name.
        found[(*key, ("", counts[key]))] = row
        counts[key] += 1
    return found


def tensor_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[TensorChange]:
    """Tensors that differ.

    Args:
        old: The old arrays or tensors, by name.
        new: The new ones.
    """
    for name in dict.fromkeys([*old, *new]):
        ours, theirs = old.get(name), new.get(name)
        shapes = Pair(_shape(ours), _shape(theirs))
        if ours is None or theirs is None or not shapes.same:
            yield TensorChange(name, shapes)
        else:
            change = _measured(name, shapes, ours, theirs)
            if change.max_difference:
                yield change


def _shape(values: Any) -> Any:
    return ABSENT if values is None else [int(side) for side in values.shape]


def _measured(name: str, shapes: Pair, old: Any, new: Any) -> TensorChange:
    import numpy as np
    import torch

    flat = [torch.as_tensor(each).reshape(-1) for each in (old, new)]
    product = before = after = largest = 0.0
    for start in range(0, flat[0].numel(), _CHUNK):
        a, b = (each[start : start + _CHUNK].to(torch.float64).numpy() for each in flat)
        product, before, after = product + float(a @ b), before + float(a @ a), after + float(b @ b)
        largest = max(largest, float(np.abs(a - b).max()))
    comparable = before > 0 and after > 0
    return TensorChange(
        name,
        shapes,
        cosine=product / (before**0.5 * after**0.5) if comparable else None,
        norm_ratio=(after / before) ** 0.5 if comparable else None,
        max_difference=largest,
    )
