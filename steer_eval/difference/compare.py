"""Comparing two sides.

Invariant: a pure function of the two. Files are compared by their checksums first, so that equal files are equal
whatever they hold; what differs in the others is said in the terms of their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

from steer_eval.claims.verdict import Verdict
from steer_eval.difference.cards import number_changes
from steer_eval.difference.changes import ABSENT, ArtifactChange, ClaimChange, Difference, Pair
from steer_eval.difference.content import field_changes, row_changes, tensor_changes
from steer_eval.difference.side import Entry, Side
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.strict_json import Row
from steer_eval.formats.transfer import TransferMap, TransferredVectors
from steer_eval.formats.vector import SteeringVector

_DEFAULTS: Mapping[str, dict[str, Any]] = {"sweep": {"label": "steered"}}
"""What rows of a kind say where they say nothing."""


def compare(old: Side, new: Side) -> Difference:
    """What differs between two sides.

    Args:
        old: The one that is taken for the earlier.
        new: The other.
    """
    pairs = list(_paired(old, new))
    artifacts = [artifact for ours, theirs in pairs if (artifact := _artifact(ours, theirs)) is not None]
    numbers = [each for repo in ("model", "dataset") for each in number_changes(repo, old.card(repo), new.card(repo))]
    claims = [
        claim
        for key in dict.fromkeys([*old.claims, *new.claims])
        if (claim := _claim(key, old.claims.get(key), new.claims.get(key))) is not None
    ]
    unchanged = len(pairs) - len(artifacts)
    return Difference(old.place, new.place, tuple(artifacts), tuple(numbers), tuple(claims), unchanged)


_Named = tuple[str, Entry]


def _paired(old: Side, new: Side) -> Iterator[tuple[_Named | None, _Named | None]]:
    """Files of one path; a value that went to another format under its name is still that value."""
    moved = _converted(old, new)
    taken = set(moved.values())
    for key in sorted({*old.entries, *new.entries} - taken | moved.keys()):
        repo = key[0]
        ours, theirs = old.entries.get(key), new.entries.get(moved.get(key, key))
        yield (repo, ours) if ours else None, (repo, theirs) if theirs else None


def _converted(old: Side, new: Side) -> dict[tuple[str, str], tuple[str, str]]:
    """New place by old place of values that are known by one name on either side, in other files; none is guessed."""

    def alone(side: Side, other: Side) -> dict[tuple[object, ...], list[tuple[str, str]]]:
        found: dict[tuple[object, ...], list[tuple[str, str]]] = {}
        for key, entry in side.entries.items():
            if key not in other.entries and isinstance(entry.value, _CONVERTIBLE):
                found.setdefault(_known_by(entry), []).append(key)
        return found

    before, after = alone(old, new), alone(new, old)
    names = [name for name in before.keys() & after.keys() if len(before[name]) == len(after[name]) == 1]
    return {before[name][0]: after[name][0] for name in names}


def _known_by(entry: Entry) -> tuple[object, ...]:
    """What a value keeps when it is converted: the name of its file, or of an SAE its model and layer."""
    value = entry.value
    if isinstance(value, TopKSae):
        return TopKSae, value.model, value.layer
    return type(value), PurePosixPath(entry.artifact.path).stem


_CONVERTIBLE = (SteeringVector, TopKSae, TransferMap, TransferredVectors)


def _artifact(old: _Named | None, new: _Named | None) -> ArtifactChange | None:
    repo, entry = old or new or ("", None)
    if entry is None or (old and new and _same(old[1], new[1])):
        return None
    ours, theirs = (named[1] if named else None for named in (old, new))
    change = ArtifactChange(
        repo,
        Pair(ours.artifact.path if ours else ABSENT, theirs.artifact.path if theirs else ABSENT),
        (theirs or entry).artifact.kind,
        Pair(ours.artifact.size if ours else ABSENT, theirs.artifact.size if theirs else ABSENT),
        troubles=tuple(dict.fromkeys(each for side in (ours, theirs) if side for each in side.troubles)),
    )
    if ours is None or theirs is None or ours.value is None or theirs.value is None:
        return change
    return _with_content(change, ours.value, theirs.value)


def _same(old: Entry, new: Entry) -> bool:
    return bool(old.sha256) and old.sha256 == new.sha256 and old.artifact.path == new.artifact.path


def _with_content(change: ArtifactChange, old: Any, new: Any) -> ArtifactChange:
    """A change with what differs in the content, in the terms of its type."""
    if type(old) is not type(new):
        return change
    if isinstance(old, tuple) and all(isinstance(row, Row) for row in (*old, *new)):
        return replace(change, rows=tuple(row_changes(old, new, _DEFAULTS.get(change.kind, {}))))
    if isinstance(old, dict | list):
        return replace(change, fields=tuple(field_changes(old, new)))
    if isinstance(old, FeatureTable):
        fields = tuple(field_changes(_table_settings(old), _table_settings(new)))
        return replace(change, fields=fields, rows=tuple(row_changes(_table_rows(old), _table_rows(new), {})))
    if isinstance(old, _CONVERTIBLE):
        tensors = tuple(tensor_changes(_tensors(old), _tensors(new)))
        return replace(change, tensors=tensors, fields=tuple(field_changes(_settings(old), _settings(new))))
    return change


def _tensors(value: Any) -> dict[str, Any]:
    match value:
        case SteeringVector():
            return {"vector": value.values}
        case TopKSae():
            return dict(value.tensors())
        case TransferMap():
            return {"W": value.ridge, "b": value.intercept, "R": value.orthogonal}
        case TransferredVectors():
            carried = {f"v_{method}": vector for method, vector in value.carried.items()}
            return {**carried, "v_small_native": value.native, "v_large_source": value.source}
    return {}


def _settings(value: Any) -> dict[str, Any]:
    """What an artifact says beside its tensors."""
    match value:
        case SteeringVector():
            return {"layer": value.layer, **value.provenance}
        case TopKSae():
            return {"k": value.k, "layer": value.layer, "model": value.model, **value.provenance}
        case TransferMap():
            layers = {"layer_large": value.layer_large, "layer_small": value.layer_small}
            return {**layers, "alpha": value.alpha, "dtype": value.dtype, **value.provenance}
        case TransferredVectors():
            settings = {"layer": value.layer, "coefficient": value.coefficient}
            return {**settings, "dtype": value.dtype, **value.provenance}
    return {}


def _table_settings(table: FeatureTable) -> dict[str, Any]:
    return {
        "model": table.model,
        "layer": table.layer,
        "coef": table.coefficient,
        "n_prompts": table.n_prompts,
    }


def _table_rows(table: FeatureTable) -> list[Row]:
    rows = []
    for index, row in enumerate(table.rows, start=1):
        value = asdict(row)
        rows.append(Row(index, {"feature_id": value.pop("feature"), **value}))
    return rows


def _claim(key: tuple[Any, ...], old: Verdict | None, new: Verdict | None) -> ClaimChange | None:
    words = _pair(old, new, lambda verdict: verdict.claim.words)
    expected = _pair(old, new, _expected)
    verdict = _pair(old, new, lambda verdict: verdict.word)
    observed = _pair(old, new, lambda verdict: verdict.checks[0].observed if verdict.checks else None)
    about = _pair(old, new, lambda verdict: (verdict.claim.measure, verdict.claim.select))
    # A card's words can be put in another way, and its claim is still the same.
    compared = (expected, verdict, about, *((words,) if key[0] == "study" else ()))
    if all(each.same for each in compared):
        return None
    name = str(key[1]) if key[0] == "study" else f"{key[1]} of {key[2]}"
    return ClaimChange(name, words, expected, verdict, observed)


def _expected(verdict: Verdict) -> Any:
    expected = verdict.claim.expected
    return expected if isinstance(expected, bool) else expected.text


def _pair(old: Verdict | None, new: Verdict | None, part: Callable[[Verdict], Any]) -> Pair:
    return Pair(*(ABSENT if side is None else part(side) for side in (old, new)))
