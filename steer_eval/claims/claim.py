"""What a claim is.

Invariant: a claim is data, never code: words, a named measure, what it is measured on, and the number as printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steer_eval.claims.printed import Printed

Label = Literal["steered", "zero", "random", "anchor"]
"""Kinds of cell: steered ones, and the three controls."""


def pair_of(first: str, second: str) -> str:
    """What two vectors are called together, whichever is named first: `native and ridge`, `L=6 and L=14`."""
    one, other = sorted((first, second), key=lambda name: (len(name) if name.startswith("L=") else 0, name))
    return f"{one} and {other}"


@dataclass(frozen=True)
class Selector:
    """What a measure is taken on; a part that a measure does not use stays None."""

    model: str | None = None
    label: Label | None = None
    layer: int | None = None
    coef: float | None = None
    judge: str | None = None
    feature: int | None = None
    variant: str | None = None
    file: str | None = None
    rule: str | None = None

    def __str__(self) -> str:
        parts = [self.model, self.label, self.variant]
        if self.layer is not None:
            parts.append(f"L={self.layer}")
        if self.coef is not None:
            parts.append(f"c={self.coef:+g}")
        if self.feature is not None:
            parts.append(f"feature {self.feature}")
        if self.judge is not None:
            parts.append(f"judged by {self.judge}")
        if self.file is not None:
            parts.append(self.file)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Claim:
    """One claim of a study.

    Args:
        id: Name, unique within the study.
        text: The claim in words, with placeholders (see `words`).
        measure: Name of the measure in the registry.
        select: What it is measured on.
        expected: The truth value, or the number as it is printed.
    """

    id: str
    text: str
    measure: str
    select: Selector
    expected: bool | Printed

    @property
    def words(self) -> str:
        """The claim in words, with what it expects and what it is on filled in.

        That is `{expected}`, `{model}`, `{label}`, `{layer}`, `{coef}`, `{feature}` and `{variant}`. A claim that
        leaves its numbers to these can't say anything else than what is checked.
        """
        parts = {
            "expected": str(self.expected).lower() if isinstance(self.expected, bool) else self.expected.text,
            "model": self.select.model,
            "label": self.select.label,
            "layer": self.select.layer,
            "coef": None if self.select.coef is None else f"{self.select.coef:+g}",
            "feature": self.select.feature,
            "variant": self.select.variant,
        }
        text = self.text
        for name, value in parts.items():
            if value is not None:
                text = text.replace(f"{{{name}}}", str(value))
        return text
