"""Numbers are found with exactly their characters, and read only where they can be read in one way."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steer_eval.claims.extract.masks import masked
from steer_eval.claims.extract.numbers import find_numbers, one_number

SPELLINGS = [
    # text, value, rounding, unit, bound
    ("+2.5", 2.5, 0.05, "", ""),
    ("-2", -2, 0.5, "", ""),
    ("−2", -2, 0.5, "", ""),
    ("–2", -2, 0.5, "", ""),
    ("**+2.5**", 2.5, 0.05, "", ""),
    ("`0.113`", 0.113, 0.0005, "", ""),
    (".05", 0.05, 0.005, "", ""),
    ("1.13x", 1.13, 0.005, "x", ""),
    ("1.13×", 1.13, 0.005, "x", ""),
    ("1.13 ×", 1.13, 0.005, "x", ""),
    ("15.8-fold", 15.8, 0.05, "x", ""),
    ("16 times", 16, 0.5, "x", ""),
    ("~16x", 16, 1.6, "x", ""),
    ("≈ 16", 16, 1.6, "", ""),
    ("<10 KB", 10, 0.5, "KB", "<"),
    ("<= 10 kB", 10, 0.5, "kB", "<"),
    ("≥3", 3, 0.5, "", ">"),
    ("24 MB", 24, 0.5, "MB", ""),
    ("27,063 bytes", 27063, 0.5, "bytes", ""),
    ("100%", 100, 0.5, "%", ""),
    ("93 per cent", 93, 0.5, "%", ""),
    ("1,040", 1040, 0.5, "", ""),
    ("1,051.33", 1051.33, 0.005, "", ""),
    ("5e3", 5000, 500, "", ""),
    ("1.5E-3", 0.0015, 0.00005, "", ""),
    ("1-5", 3, 2.5, "", ""),
    ("1--5", 3, 2.5, "", ""),
    ("1.0 to 1.2", 1.1, 0.15, "", ""),
]


@pytest.mark.parametrize(("text", "value", "rounding", "unit", "bound"), SPELLINGS, ids=[each[0] for each in SPELLINGS])
def test_spellings(text: str, value: float, rounding: float, unit: str, bound: str) -> None:
    number = one_number(f"  {text} ")

    assert number is not None
    assert number.readable
    assert number.printed.value == pytest.approx(value)
    assert number.printed.rounding == pytest.approx(rounding)
    assert (number.unit, number.bound) == (unit, bound)
    assert f"  {text} "[number.start : number.end] == number.text


@pytest.mark.parametrize(
    "text", ["2,5", "0,113", "1.234,56", "6,10,14", "1.3×10^3", "1.3 x 10^-3", "2·10⁵", "1e999", "9" * 400, "1e-999"]
)
def test_numbers_that_can_be_read_in_two_ways_are_found_and_not_read(text: str) -> None:
    [number] = find_numbers(text)

    assert number.text == text
    assert not number.readable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18.94 → 21.31", ["18.94", "21.31"]),
        ("18.94 -> 21.31", ["18.94", "21.31"]),
        ("28/30 prompts", ["28", "30"]),
        ("L=14 c=+1", ["14", "+1"]),
        ("layers[14]", ["14"]),
        ("2.5 ± 0.3", ["2.5", "0.3"]),
        ("shape: (2048,)", ["2048"]),
        ("top-30", ["30"]),
        ("<b>12</b> cells", ["12"]),
        ("feature #31, latent #7", ["31", "7"]),
        ("it has 5.", ["5"]),
        ("from 1,2 and 3", ["1,2", "3"]),
    ],
)
def test_several_numbers(text: str, expected: list[str]) -> None:
    assert [number.text for number in find_numbers(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "GPT-2",
        "Qwen3.5",
        "0.8B",
        "v1.2.3 and 1.2.3",
        "12.11.2026",
        "2026-11-12",
        "`vectors/fox_L5.pt`",
        "saes/14/cfg",
        "`table_2.jsonl`",
        "https://example.org/5?a=6",
        '[paper](https://example.org/(7)/8 "9")',
        "![plot](plot-3.png)",
        "<img src=a width=600>",
        "<!-- 17 -->",
        "a claim[^3] and another [12]",
        "arXiv:2308.10248",
        "issue #31",
        "user@5",
        "3D 2-stage",
        "&#8594;",
    ],
)
def test_names_paths_and_addresses_hold_no_numbers(text: str) -> None:
    assert find_numbers(text) == []


@pytest.mark.parametrize(("text", "bound"), [("at least 2", ">"), ("up to 2", "<"), ("less than 2", "<"), ("a 2", "")])
def test_words_that_make_a_number_a_bound(text: str, bound: str) -> None:
    assert find_numbers(text)[0].bound == bound


@pytest.mark.parametrize("word", ["about", "around", "roughly", "approximately", "ca."])
def test_words_that_make_a_number_rough(word: str) -> None:
    assert find_numbers(f"{word} 50 things")[0].printed.rounding == 5.0


@pytest.mark.parametrize("text", ["", "—", "1 and 2", "about 3 or so", "none"])
def test_not_exactly_one_number(text: str) -> None:
    assert one_number(text) is None


PROSE = st.text(st.sampled_from("0123456789.,+-−–~<>x×% eEkKBaL=c*`|()[]{}/#_\n:;!\"'^→$&@"), max_size=80)


@example("0_×")
@given(PROSE)
def test_every_number_is_its_characters_and_none_overlap(text: str) -> None:
    found = find_numbers(text)

    assert all(text[number.start : number.end] == number.text for number in found)
    assert all(first.end <= second.start for first, second in pairwise(found))
    assert all(number.printed.rounding > 0 for number in found if number.readable)


@given(PROSE)
def test_masks_keep_every_place(text: str) -> None:
    hidden = masked(text)

    assert len(hidden) == len(text)
    assert all(after in (before, " ") for before, after in zip(text, hidden, strict=True))


@given(st.lists(st.from_regex(r"\A(?:[+-]?(?:0|[1-9][0-9]{0,4})(?:\.[0-9]{1,4})?)\Z"), min_size=1, max_size=12))
def test_every_number_between_words_is_found(numbers: list[str]) -> None:
    """Also beside the punctuation that prose has around them."""
    text = " then ".join(f"({number})" if index % 3 else f"{number}," for index, number in enumerate(numbers))

    assert [number.text for number in find_numbers(text)] == numbers
    assert [number.printed.value for number in find_numbers(text)] == [float(number) for number in numbers]


@given(PROSE)
def test_digits_that_stand_alone_are_found(text: str) -> None:
    """Whole numbers between spaces are found whatever stands elsewhere, unless a mask reaches over them."""
    hidden = masked(text)
    alone = {match.start() for match in re.finditer(r"(?<=\s)[0-9]+(?=\s)", hidden)}
    inside = {place for number in find_numbers(text) for place in range(number.start, number.end)}

    assert alone <= inside
