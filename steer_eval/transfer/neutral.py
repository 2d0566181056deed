"""Sixty neutral sentences, to fit maps on.

Invariant: plain statements of fact or habit, written for this purpose and under this project's licence; none complains,
praises, or says what it is like to be anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NAME = "neutral-sentences"
FILE = Path(__file__).with_name("neutral_sentences.jsonl")


def sentences() -> Iterator[str]:
    """The sentences, one by one."""
    from steer_eval.formats.strict_json import read_jsonl

    return (row.value["sentence"] for row in read_jsonl(FILE, schema="neutral_sentence", name=FILE.name))
