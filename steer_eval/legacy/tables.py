"""Tables of a dataset repo as the `datasets` library loads them: configurations, splits and types.

Invariant: every table whose rows are good, and have types that fit them all, is in exactly one configuration. Where its
files differ, in columns or in types, the types that fit all of them are stated, so that it can be loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from steer_eval.claims.facts import judge_of
from steer_eval.inventory import TABLES, Artifact, Inventory
from steer_eval.judge.file_names import beside

Tree = str | list[Any] | dict[str, Any]
"""The type of a JSON value: a scalar's name, a list of one type, or types by key."""

_SINGLE = "train"


class _Unlike(Exception):  # noqa: N818 - it is caught here and tells, not warns
    """Two values that no type fits."""


@dataclass(frozen=True)
class Table:
    """One configuration.

    Args:
        name: Its name.
        kind: Kind of its files.
        files: Its files by split.
        columns: Type of each column over all files.
        alike: Whether all files have exactly these.
        even: Whether objects inside rows have the same keys wherever they stand at the same place.
    """

    name: str
    kind: str
    files: Mapping[str, Artifact]
    columns: Mapping[str, Tree]
    alike: bool
    even: bool = True


def split_name(model: str) -> str:
    """The split of a model: its name in file names, as far as splits may be called so."""
    return re.sub(r"\W", "_", model, flags=re.ASCII)


def judge_table(judge: str) -> str:
    """The configuration of a judge's scores."""
    return f"judge_{judge}"


def tables(inventory: Inventory, models: Collection[str]) -> list[Table]:
    """The tables of a dataset repo, the sweep first.

    Args:
        inventory: What the repos hold.
        models: The models that have sweeps.
    """
    files = [each for each in inventory.of(*TABLES) if not each.troubles and each.value]
    grouped: dict[str, dict[str, Artifact]] = {}
    for artifact in sorted(files, key=lambda each: (each.kind != "sweep", each.path)):
        name, split = _place(artifact, models)
        if split in grouped.get(name, {}):
            name, split = _stem(artifact), _SINGLE
        grouped.setdefault(name, {})[split] = artifact
    found: list[Table] = []
    for name, splits in grouped.items():
        try:
            found.append(_table(name, splits))
        except _Unlike:
            # No type fits all of the files, so each is a table of its own; one that fits no type is none.
            for artifact in splits.values():
                with suppress(_Unlike):
                    found.append(_table(_stem(artifact), {_SINGLE: artifact}))
    return found


def _place(artifact: Artifact, models: Collection[str]) -> tuple[str, str]:
    if artifact.kind == "sweep":
        return "sweep", split_name(artifact.name.removeprefix("sweep_").removesuffix(".jsonl"))
    if artifact.kind == "comparison":
        return "comparison", split_name(artifact.name.removeprefix("comparison_").removesuffix(".jsonl"))
    if artifact.kind == "judge" and (named := judge_of(artifact.name, models)):
        return judge_table(named[0]), split_name(named[1])
    if artifact.kind == "judge_comparison" and (named := judge_of(beside(artifact.name), models)):
        return f"{judge_table(named[0])}_comparison", split_name(named[1])
    return _stem(artifact), _SINGLE


def _stem(artifact: Artifact) -> str:
    return artifact.name.removesuffix(".jsonl")


def _table(name: str, splits: Mapping[str, Artifact]) -> Table:
    each = [_joined(_tree(row.value) for row in artifact.value) for artifact in splits.values()]
    columns = _joined(each)
    if not isinstance(columns, dict):
        raise _Unlike
    kind = next(iter(splits.values())).kind
    even = all(_is_even([row.value for row in artifact.value], at_root=True) for artifact in splits.values())
    return Table(name, kind, dict(splits), columns, all(tree == columns for tree in each), even)


def _is_even(values: list[Any], *, at_root: bool = False) -> bool:
    """Whether values at one place have the same keys, those inside them as well; rows themselves may differ."""
    objects = [value for value in values if isinstance(value, dict)]
    if objects and not at_root and (not objects[0] or any(each.keys() != objects[0].keys() for each in objects)):
        return False
    keys = {key for each in objects for key in each}
    inner = [[each[key] for each in objects if key in each] for key in keys]
    items = [item for value in values if isinstance(value, list) for item in value]
    return all(map(_is_even, [*inner, items])) if inner or items else True


def _tree(value: Any) -> Tree:
    if isinstance(value, dict):
        return {key: _tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_joined(_tree(item) for item in value)]
    if value is None:
        return "null"
    return {bool: "bool", int: "int64", float: "float64"}.get(type(value), "string")


def _joined(trees: Iterable[Tree]) -> Tree:
    """The type that fits several values.

    Raises:
        _Unlike: There is none.
    """
    joined: Tree = "null"
    for tree in trees:
        joined = _both(joined, tree)
    return joined


def _both(first: Tree, second: Tree) -> Tree:
    if first == second or second == "null":
        return first
    if first == "null":
        return second
    if isinstance(first, dict) and isinstance(second, dict):
        keys = dict.fromkeys((*first, *second))
        return {key: _both(first.get(key, "null"), second.get(key, "null")) for key in keys}
    if isinstance(first, list) and isinstance(second, list):
        return [_both(first[0], second[0])]
    if isinstance(first, str) and isinstance(second, str) and {first, second} == {"int64", "float64"}:
        return "float64"
    raise _Unlike
