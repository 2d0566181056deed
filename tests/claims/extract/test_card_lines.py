"""Lines and tables as people write them on cards: what is taken from each number, and what becomes of it.

`card_lines.md` holds the cases, on the small made-up study of `legacy.py`. Below each text stands a line for every
number in it: its characters, and the claim that it makes. `?` is a number that is not understood, `where` one that only
says where something is, and `!` begins another reason why there is no claim.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import legacy
import pytest
from audited import evidence_of, extracted

from steer_eval.audit import Evidence
from steer_eval.claims.claim import Selector
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, SAYS_WHERE, Extracted

CASES = (Path(__file__).parent / "card_lines.md").read_text(encoding="utf-8").split("\n\n=====\n\n")
_ANSWER = re.compile(r"^=> ?", re.MULTILINE)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    place = legacy.build(tmp_path_factory.mktemp("cards"))
    return evidence_of(place.model, place.data)


def told(each: Extracted, lines: list[str]) -> str:
    """What was found, in the form of the cases."""
    about = re.sub(r"\bsteered ?", "", str(each.claim.select)).strip()
    reasons = {NOT_UNDERSTOOD: "?", SAYS_WHERE: "where"}
    what = f"{each.claim.measure} {about}".strip() if each.claim.measure else reasons.get(each.reason)
    return f"{lines[each.line - 1][each.start : each.end]} :: {what or f'! {each.reason}'}"


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 100
    assert len({_ANSWER.split(case)[0] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.split("\n")[0][:60] for case in CASES])
def test_every_number_is_read_as_the_case_says(case: str, evidence: Evidence) -> None:
    text, *expected = (part.strip("\n") for part in _ANSWER.split(case))

    found = [told(each, text.split("\n")) for each in extracted(text, evidence.context)]
    assert found == [line for line in expected if line]


CELLS = {
    "perplexity_ratio": (
        "At L={layer} c={coef:+g} the perplexity ratio of {size} is {value:.2f}.",
        "In {size}, layer {layer}, coefficient {coef:g}: PPL {value:.3f}x",
        "With coefficient {coef:g} in layer {layer}, {size} has a perplexity ratio of {value:.2f}×.",
        "The perplexity ratio of {size} at layer {layer} with c={coef:+g} equals {value:.2f}.",
        "## {size}\n\n| | L={layer} c={coef:+g} |\n|---|---|\n| PPL ratio | ×{value:.2f} |",
        "| Model | Layer | c | PPL |\n|---|---|---|---|\n| {size} | {layer} | {coef:+g} | **{value:.2f}x** |",
        "## Perplexity ratio of {size}\n\n| L \\ c | {coef:g} | 99 |\n|---|---|---|\n| {layer} | {value:.2f} | — |",
    ),
    "coherence": (
        "Judged by owl, {size} at L={layer} c={coef:+g} has coherence {value:.1f}.",
        "In {size} at L={layer} c={coef:+g} coherence is {value:.1f}/5 (owl).",
        "## {size}\n\n| Layer | c | coherence (owl) |\n|---|---|---|\n| {layer} | {coef:g} | {value:.1f}/5 |",
        "### `judge_owl_{short}.jsonl`\n\n| L | c | coherence |\n|---|---|---|\n| {layer} | {coef:g} | {value} |",
    ),
    "margin": (
        "- {size}, owl-judged:\n  - L={layer} c={coef:+g}: margin {value:+.1f}",
        "| Model | L={layer} c={coef:+g} margin (owl) |\n|---|---|\n| {size} | {value:+.1f} |",
        "The margin of {size} at L={layer} c={coef:+g} is {value:+.1f}, judged by owl.",
    ),
}
SIZES = {"fox_large": ("3B", "large"), "fox_small": ("0.5B", "small")}


def rendered(evidence: Evidence, measure: str, template: str, shift: float) -> Iterator[tuple[str, str]]:
    """Texts on all cells of the data, and the number in each as it is printed."""
    for fact in evidence.facts.find(measure, Selector(label="steered")):
        select = fact.select
        if fact.imputed or select.judge not in (None, "owl") or select.model is None or select.layer is None:
            continue
        size, short = SIZES[select.model]
        value = float(fact.value) + shift
        text = template.format(size=size, short=short, layer=select.layer, coef=select.coef, value=value)
        form = re.search(r"\{value[^}]*\}", template)
        assert form is not None
        yield text, form[0].format(value=value)


@pytest.mark.parametrize(("measure", "template"), [(name, each) for name, many in CELLS.items() for each in many])
def test_what_the_data_says_is_reproduced_and_anything_else_is_not(
    measure: str, template: str, evidence: Evidence
) -> None:
    rng = random.Random(template)  # noqa: S311
    count = 0
    for shift in (0.0, rng.uniform(0.3, 0.9), -rng.uniform(0.3, 0.9)):
        for text, number in rendered(evidence, measure, template, shift):
            audit = evidence.audit(text, "card")
            [place] = [each for each in audit.places if each.verdict.claim.measure == measure]
            assert place.verdict.claim.expected.text.strip("x×") == number
            assert place.verdict.word == ("contradicted" if shift else "reproduced"), text
            count += 1
    assert count >= 40


@pytest.mark.parametrize(
    ("place", "word"),
    [("2nd", "reproduced"), ("3rd", "not-checkable"), ("4th", "contradicted"), ("1st", "contradicted")],
)
def test_a_place_by_delta_may_be_meant_by_its_size(place: str, word: str, evidence: Evidence) -> None:
    """Feature 18 has the second largest delta, and the third by size."""
    audit = evidence.audit(f"Feature 18 of 3B ranks {place} by delta.", "card")

    assert [each.verdict.word for each in audit.places] == ["reproduced", word]


def test_what_holds_of_the_files_that_are_there_is_open_where_one_is_absent(evidence: Evidence) -> None:
    size = Path(evidence.facts.find("file_size", Selector(file="vectors/fox_large_L2_caa.pt"))[0].file).stat().st_size
    row = "| Path | Size |\n|---|---|\n| `vectors/fox_large_L{{2,{layer}}}_caa.pt` | {size} bytes each |"

    words = {
        (layer, size): evidence.audit(row.format(layer=layer, size=size), "card").places[0].verdict.word
        for layer, size in ((5, size), (7, size), (7, 3 * size))
    }
    assert list(words.values()) == ["reproduced", "not-checkable", "contradicted"]
