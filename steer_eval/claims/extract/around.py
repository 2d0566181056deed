"""What the words around a table say of all its rows.

Invariant: the nearest words decide, and where they disagree nothing is taken from them. Words that may change what is
measured are kept, so that no row is taken for something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from steer_eval.claims.claim import Label
from steer_eval.claims.extract.context import Context, Found
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.meanings import compares, qualifying
from steer_eval.claims.extract.named_files import NamedFile, file_named_by

LABELS: dict[str, Label] = {
    "steered": "steered",
    "zero": "zero",
    "unsteered": "zero",
    "random": "random",
    "anchor": "anchor",
}
"""What a text calls the kinds of cells."""

_RANDOM = re.compile(r"\brandom[ -](?:direction|vector|control)s?\b", re.IGNORECASE)
_BOTH = re.compile(r"\b(?:vs|versus|against|than|and|or|not|no|without|steered|unlike|instead|except)\b", re.IGNORECASE)
_OF_RANDOM = frozenset({"random", "control", "seed"})


@dataclass(frozen=True)
class Around:
    """What the words around a table say of all its rows.

    Args:
        model: The model.
        judge: The judge.
        label: The kind of cells, unless the rows say it.
        qualifying: Words that may change what is measured, and that `label` doesn't explain.
        file: The file that the heading or the caption names, if it names one.
    """

    model: Found
    judge: str | None
    label: Label
    qualifying: frozenset[str]
    file: NamedFile

    @classmethod
    def of(cls, placed: PlacedTable, titles: Sequence[str], context: Context) -> Around:
        """What the words around a table say.

        Args:
            placed: The table and where it stands.
            titles: The words of its header.
            context: What the data has.
        """
        header = " | ".join(titles)
        if context.names.mentioned(header):
            # Where columns name their models, one that the data does not have is a column's own matter.
            header = " | ".join(title for title in titles if not context.names.strangers(title))
        headings = placed.heading.split("\n")[::-1]
        model = context.model(header, *headings[:1], placed.before, *headings[1:])
        nearer = context.model(placed.before)
        if nearer.name and model.name and nearer.name != model.name:
            # The heading and the words before the table disagree.
            model = Found()
        near = f"{headings[0]}\n{placed.before}"
        words, label = qualifying(near), "steered"
        if words <= _OF_RANDOM and _RANDOM.search(near) and not _BOTH.search(near) and not compares(near):
            words, label = set(), "random"
        judge = context.judge(header, placed.before, *headings)
        file = file_named_by(placed.before, context) or file_named_by(headings[0], context) or NamedFile()
        if file.model:
            named = context.names.mentioned(near)
            model = Found(file.model) if set(named) <= {file.model} and not model.stranger else Found()
        return cls(model, file.judge or judge, LABELS[label], frozenset(words), file)
