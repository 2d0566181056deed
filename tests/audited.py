"""What texts are held to in tests: a small made-up context, and what is found in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from steer_eval.audit import Audit, Evidence
from steer_eval.claims.extract.context import Context
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.extract.layout import lay_out
from steer_eval.claims.extract.model_index import model_index_claims
from steer_eval.claims.extract.sentences import part_claims
from steer_eval.claims.extract.tables import table_claims
from steer_eval.claims.names import ModelNames
from steer_eval.repository import open_target
from steer_eval.validate import validate

NAMES = ModelNames({"fox_large": "den/Fox1.5-3B", "fox_small": "den/Fox1.5-0.5B"})
CONTEXT = Context(
    names=NAMES,
    judges=("fox", "owl"),
    files=("vectors/fox_large_L5_caa.pt",),
    vector_files={"vectors/fox_large_L5_caa.pt": ("fox_large", 5)},
    feature_models={31: ("fox_large",), 7: ("fox_large", "fox_small")},
    variants=("native", "ridge", "prompt_only"),
)


def extracted(text: str, context: Context = CONTEXT) -> list[Extracted]:
    """Everything that is found in a text, in its order."""
    layout = lay_out(text)
    found = list(model_index_claims(text, context))
    found += [each for part in layout.parts for each in part_claims(part, context)]
    found += [each for placed in layout.tables for each in table_claims(placed, context)]
    return sorted(found, key=lambda each: (each.line, each.start))


def claims(text: str, context: Context = CONTEXT) -> list[tuple[str, str, str]]:
    """The claims of a text as (characters, measure, what it is about); steered cells are not called so."""
    lines = text.split("\n")
    return [
        (
            lines[each.line - 1][each.start : each.end],
            each.claim.measure,
            re.sub(r"\bsteered ?", "", str(each.claim.select)),
        )
        for each in extracted(text, context)
        if each.claim.measure
    ]


def evidence_of(model: Path, data: Path) -> Evidence:
    """What two repos hold, as an audit takes it."""
    validation = validate(open_target(str(model), str(data)))
    return Evidence.of(validation.inventory, validation.findings)


def words(audit: Audit, text: str) -> list[tuple[str, str]]:
    """The numbers of an audited text with their verdicts."""
    lines = text.split("\n")
    return [(lines[place.line - 1][place.start : place.end], place.verdict.word) for place in audit.places]


def overlapping(found: Sequence[Extracted]) -> Iterator[tuple[Extracted, Extracted]]:
    """Neighbours of which the one begins before the other ends."""
    for first, second in pairwise(found):
        if first.line == second.line and second.start < first.end:
            yield first, second
