"""What a comparison can say.

Invariant: every change has an old and a new value; the one that is not there is left out of the JSON
(`schemas/diff.schema.json`), so that `null` always means the value null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

ABSENT: Any = object()
"""The old value of what was added, and the new one of what was removed."""

Word = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Pair:
    """An old and a new value."""

    old: Any
    new: Any

    @property
    def word(self) -> Word:
        """What became of the value."""
        return "added" if self.old is ABSENT else "removed" if self.new is ABSENT else "changed"

    @property
    def same(self) -> bool:
        """Whether nothing became of it."""
        return equal(self.old, self.new)

    def to_json(self) -> dict[str, Any]:
        """The values that are there, by `old` and `new`."""
        return {name: value for name, value in (("old", self.old), ("new", self.new)) if value is not ABSENT}


def equal(old: Any, new: Any) -> bool:
    """Whether two JSON values are the same; unlike in Python, true is not 1."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(equal, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(equal(old[key], new[key]) for key in old)
    return bool(old == new)


@dataclass(frozen=True)
class FieldChange:
    """One field of a document or a row.

    Args:
        field: Where it stands: `sweep.controls.random.seed`, `generations[3].gen`.
        values: Its values.
    """

    field: str
    values: Pair

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {"field": self.field, **self.values.to_json()}


@dataclass(frozen=True)
class RowChange:
    """One row of a table.

    Args:
        key: What the row is found by, such as `{"layer": 18, "coef": 2}`.
        lines: Where it stands.
        fields: What changed in it; empty for a row that was added or removed.
    """

    key: dict[str, Any]
    lines: Pair
    fields: tuple[FieldChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {
            "change": self.lines.word,
            "key": self.key,
            "line": self.lines.to_json(),
            "fields": [each.to_json() for each in self.fields],
        }


@dataclass(frozen=True)
class TensorChange:
    """One tensor that differs.

    Args:
        name: Its name in the file.
        shapes: Its shapes.
        cosine: Of the angle between the two, all values in a row; None if the shapes differ or one of them is zero.
        norm_ratio: Euclidean norm of the new one over that of the old; None likewise.
        max_difference: Largest absolute difference of two values; None if the shapes differ.
    """

    name: str
    shapes: Pair
    cosine: float | None = None
    norm_ratio: float | None = None
    max_difference: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        measured = {"cosine": self.cosine, "norm_ratio": self.norm_ratio, "max_difference": self.max_difference}
        return {"change": self.shapes.word, "name": self.name, "shape": self.shapes.to_json(), **measured}


@dataclass(frozen=True)
class ArtifactChange:
    """One file that differs, or one folder that is read as a whole.

    Args:
        repo: `model` or `dataset`.
        paths: Its paths; they differ where a file was converted.
        kind: What it is.
        sizes: Bytes.
        tensors: Tensors that differ.
        rows: Rows that differ.
        fields: Fields that differ.
        troubles: Why a side can't be compared by its content.
    """

    repo: str
    paths: Pair
    kind: str
    sizes: Pair
    tensors: tuple[TensorChange, ...] = ()
    rows: tuple[RowChange, ...] = ()
    fields: tuple[FieldChange, ...] = ()
    troubles: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Its path, the new one where it has two."""
        return str(self.paths.old if self.paths.new is ABSENT else self.paths.new)

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {
            "change": self.paths.word,
            "repo": self.repo,
            "path": self.paths.to_json(),
            "kind": self.kind,
            "size": self.sizes.to_json(),
            "tensors": [each.to_json() for each in self.tensors],
            "rows": [each.to_json() for each in self.rows],
            "fields": [each.to_json() for each in self.fields],
            "troubles": list(self.troubles),
        }


@dataclass(frozen=True)
class NumberChange:
    """One number of a card.

    Args:
        repo: Whose card it is.
        lines: Where the number stands.
        numbers: The number as printed.
        text: The line, the new one where there is one.
    """

    repo: str
    lines: Pair
    numbers: Pair
    text: str

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {
            "change": self.numbers.word,
            "repo": self.repo,
            "line": self.lines.to_json(),
            "text": self.text,
            **self.numbers.to_json(),
        }


@dataclass(frozen=True)
class ClaimChange:
    """One claim whose words, expectation or verdict changed.

    Args:
        claim: Its id in the study, or what it says in a card.
        words: The claim in words.
        expected: The number or truth value that it states.
        verdict: What the published data of each side makes of it.
        observed: What that data says.
    """

    claim: str
    words: Pair
    expected: Pair
    verdict: Pair
    observed: Pair

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        parts = {"words": self.words, "expected": self.expected, "verdict": self.verdict, "observed": self.observed}
        return {
            "change": self.words.word,
            "claim": self.claim,
            **{name: values.to_json() for name, values in parts.items()},
        }


@dataclass(frozen=True)
class Place:
    """What was compared: a model repo and its dataset repo, with their commits where they are of the Hub."""

    repo: str
    revision: str | None
    data: str | None
    data_revision: str | None

    def to_json(self) -> dict[str, Any]:
        """The place as a JSON object."""
        data = None if self.data is None else {"repo": self.data, "revision": self.data_revision}
        return {"repo": self.repo, "revision": self.revision, "data": data}


@dataclass(frozen=True)
class Difference:
    """What differs between two studies (`schemas/diff.schema.json`)."""

    old: Place
    new: Place
    artifacts: tuple[ArtifactChange, ...]
    numbers: tuple[NumberChange, ...]
    claims: tuple[ClaimChange, ...]
    unchanged: int

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.artifacts or self.numbers or self.claims)

    def to_json(self) -> dict[str, Any]:
        """The difference as a JSON object."""
        return {
            "schema": "steer-eval/diff/1",
            "old": self.old.to_json(),
            "new": self.new.to_json(),
            "same": self.same,
            "artifacts": [each.to_json() for each in self.artifacts],
            "unchanged": self.unchanged,
            "numbers": [each.to_json() for each in self.numbers],
            "claims": [each.to_json() for each in self.claims],
        }
