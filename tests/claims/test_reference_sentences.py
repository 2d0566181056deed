"""Sentences about the reference study that a sceptic made up: right ones are not contradicted, wrong ones not believed.

`reference_right.md` and `reference_wrong.md` hold one sentence or table a paragraph. In the second the wrong numbers
stand in braces; the rest is right.
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import pytest
from audited import evidence_of

from steer_eval.audit import Evidence

_WRONG = re.compile(r"\{([^{}]+)\}")


def sentences(name: str) -> list[str]:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip().split("\n\n")


@pytest.fixture(scope="module")
def evidence(upstream: Path) -> Evidence:
    return evidence_of(upstream / "model", upstream / "dataset")


@pytest.mark.parametrize("sentence", sentences("reference_right.md"))
def test_what_is_right_is_not_contradicted(sentence: str, evidence: Evidence) -> None:
    audit = evidence.audit(sentence, "draft")

    assert [place.verdict.checks for place in audit.places if place.verdict.word == "contradicted"] == []


@pytest.mark.parametrize("sentence", sentences("reference_wrong.md"))
def test_what_is_wrong_is_not_reproduced(sentence: str, evidence: Evidence) -> None:
    text, wrong = sentence, []
    while match := _WRONG.search(text):
        wrong.append(range(match.start(), match.end() - 2))
        text = text[: match.start()] + match[1] + text[match.end() :]
    begins = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    audit = evidence.audit(text, "draft")

    for number in wrong:
        about = [
            place.verdict.word
            for place in audit.places
            if set(range(place.start, place.end)) & {at - begins[place.line - 1] for at in number}
        ]
        assert about
        assert set(about) <= {"contradicted", "not-checkable"}


def test_most_of_them_are_understood(evidence: Evidence) -> None:
    """So that the tests above are of claims."""
    right = [evidence.audit(each, "draft") for each in sentences("reference_right.md")]
    wrong = [evidence.audit(_WRONG.sub(r"\1", each), "draft") for each in sentences("reference_wrong.md")]

    assert sum(place.verdict.word == "reproduced" for audit in right for place in audit.places) >= 100
    assert sum(any(each.verdict.word == "contradicted" for each in audit.places) for audit in wrong) >= 43
