"""What a text may refer to, and how its words are understood.

Invariant: a `Context` is what is known before a text is read: the models, judges and files of the data. It decides no
verdict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from steer_eval.claims.names import ModelNames

CELL = re.compile(
    r"\b(?:L|layer)\s*[=:]?\s*(?P<layer>[0-9]{1,4})\b[\s,;/`*]*(?:at\s+)?(?:with\s+)?"
    r"(?:c|coef|coefficient|α|alpha)\s*[=:]?\s*(?P<coef>[+\-−]?[0-9]+(?:\.[0-9]+)?)",
    re.IGNORECASE,
)
LAYER = re.compile(r"\b(?:L\s*=?\s*|layers?\s*\[?\s*)(?P<layer>[0-9]{1,4})\b", re.IGNORECASE)
COEFFICIENT = re.compile(
    r"\b(?:c|coef|coefficient)\s*(?:=|:|of)?\s*(?:`?c\s*=\s*)?(?P<coef>[+\-−]?[0-9]+(?:\.[0-9]+)?)", re.IGNORECASE
)

AXES = {
    "mature_anger": ("mature_anger", "mature anger", "mature"),
    "juvenile_rage": ("juvenile_rage", "juvenile rage", "juvenile"),
    "coherence": ("coherence", "coherent"),
    "margin": ("margin",),
}
"""Words for the judge's axes."""


def signed(text: str) -> float:
    """A number in a cell, with any of the minus signs that people use."""
    return float(text.replace("−", "-"))


@dataclass(frozen=True)
class Context:
    """What is known of the data that a text speaks about.

    Args:
        names: The models.
        judges: Names of judges in file names.
        files: Paths of the files.
        vector_files: Path to model and layer of each vector.
        feature_models: Feature ids to the models in whose table they stand.
    """

    names: ModelNames
    judges: tuple[str, ...]
    files: tuple[str, ...]
    vector_files: Mapping[str, tuple[str, int]]
    feature_models: Mapping[int, tuple[str, ...]]

    def judge(self, *texts: str) -> str | None:
        """The judge that texts speak of, the nearest first; the only judge there is; None if it stays open.

        A judge may be called like a model that is steered, so `X-judged` or `judged by X` outweighs a mere mention.
        """
        for form in (r"\b{0}[\w.-]*[ -]judg|judg\w*\W+(?:by|is|was)?\W*{0}\b", r"\b{0}\b(?![.-]?[0-9])"):
            for text in texts:
                found = [j for j in self.judges if re.search(form.format(re.escape(j)), text, re.IGNORECASE)]
                if len(found) == 1:
                    return found[0]
        return self.judges[0] if len(self.judges) == 1 else None

    def model(self, text: str) -> str | None:
        """The only model that a text mentions; the only one of the data; None if it stays open."""
        mentioned = self.names.mentioned(text)
        if len(mentioned) == 1:
            return mentioned[0]
        known = list(self.names.base_models)
        return known[0] if len(known) == 1 and not mentioned else None
