"""Fields, rows and tensors: what differs is said, exactly, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steer_eval.difference.changes import ABSENT, Pair, equal
from steer_eval.difference.content import field_changes, row_changes, tensor_changes
from steer_eval.formats.strict_json import Row

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner),
    max_leaves=8,
)


def applied(old: Any, new: Any) -> Any:
    """`old` with the changes made to it, read as pointers; an oracle for what the changes say."""
    result = {"root": json.loads(json.dumps(old))}
    removed = []
    for change in field_changes(old, new, "root"):
        *path, last = [
            int(part) if number else part
            for piece in change.field.split(".")
            for part, number in [(piece.split("[")[0], False), *((each[:-1], True) for each in piece.split("[")[1:])]
        ]
        place: Any = result
        for part in path:
            place = place[part]
        if change.values.new is ABSENT:
            removed.append((place, last))
        elif isinstance(place, list) and last == len(place):
            place.append(change.values.new)
        else:
            place[last] = change.values.new
    for place, last in reversed(removed):
        del place[last]
    return result["root"]


@given(VALUES, VALUES)
def test_the_changes_are_the_whole_difference(old: Any, new: Any) -> None:
    assert equal(applied(old, new), new)
    assert equal(old, new) == (not list(field_changes(old, new)))


@given(VALUES)
def test_equal_values_have_no_changes(value: Any) -> None:
    assert not list(field_changes(value, json.loads(json.dumps(value))))


def test_true_is_not_one_and_one_is_one_point_zero() -> None:
    assert not equal(True, 1)
    assert equal([1], [1.0])
    assert [each.values for each in field_changes({"a": 1}, {"a": True})] == [Pair(1, True)]


def rows(*values: dict[str, Any]) -> list[Row]:
    return [Row(line, value) for line, value in enumerate(values, start=1)]


def changes(old: list[Row], new: list[Row], **defaults: Any) -> list[dict[str, Any]]:
    return [each.to_json() for each in row_changes(old, new, defaults)]


def test_rows_are_found_by_their_keys() -> None:
    old = rows({"layer": 1, "coef": 2.0, "ppl": 3.0}, {"layer": 1, "coef": 4.0, "ppl": 5.0}, {"layer": 9, "coef": 1})
    new = rows({"layer": 1, "coef": 4.0, "ppl": 6.0}, {"layer": 1, "coef": 2, "ppl": 3.0}, {"layer": 7, "coef": 1})

    assert changes(old, new) == [
        {
            "change": "changed",
            "key": {"layer": 1, "coef": 4.0},
            "line": {"old": 2, "new": 1},
            "fields": [{"field": "ppl", "old": 5.0, "new": 6.0}],
        },
        {"change": "removed", "key": {"layer": 9, "coef": 1}, "line": {"old": 3}, "fields": []},
        {"change": "added", "key": {"layer": 7, "coef": 1}, "line": {"new": 3}, "fields": []},
    ]


def test_a_default_that_is_written_out_is_no_difference() -> None:
    assert changes(rows({"layer": 1}), rows({"layer": 1, "label": "steered"}), label="steered") == []
    assert len(changes(rows({"layer": 1}), rows({"layer": 1, "label": "steered"}))) == 2


def test_rows_of_one_key_are_taken_in_order() -> None:
    old = rows({"label": "a", "x": 1}, {"label": "a", "x": 2})

    assert changes(old, old) == []
    assert changes(old, old[:1]) == [{"change": "removed", "key": {"label": "a"}, "line": {"old": 2}, "fields": []}]


def test_rows_without_a_key_are_found_by_their_lines() -> None:
    [change] = changes(rows({"gen": "a"}, {"gen": "b"}), rows({"gen": "a"}, {"gen": "c"}))

    assert change["fields"] == [{"field": "gen", "old": "b", "new": "c"}]


@given(st.permutations([{"layer": layer, "coef": coef, "ppl": layer * coef} for layer in (1, 2) for coef in (1, 2, 4)]))
def test_the_order_of_rows_is_no_difference(shuffled: list[dict[str, Any]]) -> None:
    ordered = rows(*sorted(shuffled, key=lambda row: (row["layer"], row["coef"])))

    assert changes(ordered, rows(*shuffled)) == []


FLOATS = arrays(np.float32, st.shared(st.integers(1, 40), key="n"), elements=st.floats(-100, 100, width=32))


@given(FLOATS, FLOATS)
def test_what_is_measured_of_tensors_is_what_numpy_says(old: np.ndarray, new: np.ndarray) -> None:
    found = list(tensor_changes({"v": old}, {"v": new}))
    if np.array_equal(old, new):
        assert found == []
        return
    [change] = found
    a, b = old.astype(np.float64), new.astype(np.float64)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    assert change.max_difference == pytest.approx(np.abs(a - b).max())
    if all(norms):
        assert change.norm_ratio == pytest.approx(norms[1] / norms[0])
        assert change.cosine == pytest.approx(a @ b / (norms[0] * norms[1]))
    else:
        assert change.cosine is change.norm_ratio is None


def test_large_tensors_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    old = torch.arange(12.0).reshape(3, 4)
    new = old.to(torch.bfloat16).clone()
    new[2, 3] = 8
    whole = list(tensor_changes({"W": old}, {"W": new}))
    monkeypatch.setattr("steer_eval.difference.content._CHUNK", 5)

    assert [each.to_json() for each in tensor_changes({"W": old}, {"W": new})] == [each.to_json() for each in whole]
    assert whole[0].max_difference == 3


def test_other_shapes_and_names_are_changes_of_their_own() -> None:
    old, new = {"a": np.ones(2), "b": np.ones(3)}, {"a": np.ones((2, 1)), "c": np.ones(3)}
    found = {each.name: each.to_json() for each in tensor_changes(old, new)}

    assert found["a"]["shape"] == {"old": [2], "new": [2, 1]}
    assert found["a"]["max_difference"] is None
    assert {name: change["change"] for name, change in found.items()} == {"a": "changed", "b": "removed", "c": "added"}
