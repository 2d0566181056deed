from __future__ import annotations

import time

import legacy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legacy_edits import CARD, words

from steer_eval.rules.card_files import MAX_NAMES, expanded, size_agrees

PATHS = {
    "a.pt": ["a.pt"],
    "a{1,2}.pt": ["a1.pt", "a2.pt"],
    "{a,b}/{1,2}.pt": ["a/1.pt", "a/2.pt", "b/1.pt", "b/2.pt"],
    "a{,b}.pt": ["a.pt", "ab.pt"],
    "{a,b{1,2}}.pt": ["a.pt", "b1.pt", "a.pt", "b2.pt"],
    "v_{layer}.pt": ["v_*.pt"],
    "v_{2..9}.pt": ["v_*.pt"],
    "*_{a,b}.json": ["*_a.json", "*_b.json"],
}


@pytest.mark.parametrize(("path", "paths"), PATHS.items(), ids=PATHS)
def test_braces_stand_for_what_a_shell_makes_of_them(path, paths):
    assert set(expanded(path)) >= set(paths[:1])
    assert set(expanded(path)) == set(paths)


@pytest.mark.parametrize("path", ["{a,b}" * 40, "{" + "," * 5000 + "}.pt", "{a,b,c,d}" * 5 + "{" + "x," * 9000 + "}"])
def test_braces_that_stand_for_too_many_stand_for_anything(path):
    start = time.monotonic()

    assert len(expanded(path)) == 1
    assert "*" in expanded(path)[0]
    assert time.monotonic() - start < 1


@given(st.text("a{},*", max_size=30))
def test_no_braces_that_can_be_expanded_are_left(path):
    paths = expanded(path)

    assert 1 <= len(paths) <= MAX_NAMES


SIZES = [
    ("9.55 kB", 9550, True),
    ("9.55 KB", 9550, True),
    ("10 KB", 9550, True),
    ("~10 KB", 9550, True),
    ("~10 KB", 9000, True),
    ("~10 KB", 8900, False),
    ("~10 KB", 11300, False),
    ("10 KB", 8990, False),
    ("9.3 KiB", 9550, True),
    ("9.4 KiB", 9550, True),
    ("9.2 KiB", 9550, False),
    ("<10 KB", 9550, True),
    ("≤ 10 KB", 10_240, True),
    ("<10 KB", 10_241, False),
    ("33 MB", 33_574_912, True),
    ("34 MB", 33_574_912, True),
    ("32 MB", 33_574_912, True),
    ("35 MB", 33_574_912, False),
    ("1,234 bytes", 1234, True),
    ("1,234 bytes", 1235, False),
    ("1.2 GB", 1_200_000_000, True),
    ("0.5 GiB", 2**29, True),
    ("no size", 5, True),
]


@pytest.mark.parametrize(("stated", "size", "agrees"), SIZES)
def test_a_size_as_printed_is_that_of_a_file_or_not(stated, size, agrees):
    assert size_agrees(stated, size) is agrees


@given(st.integers(1, 10**11), st.sampled_from(["KB", "MB", "GB"]), st.integers(0, 2), st.sampled_from([1000, 1024]))
def test_a_size_that_is_rounded_to_the_nearest_or_up_agrees(size, unit, decimals, base):
    value = size / base ** " KMG".index(unit[0])
    for shown in (round(value, decimals), round(value + 0.499999 * 10.0**-decimals, decimals)):
        assert size_agrees(f"{shown:.{decimals}f} {unit}", size)


@given(st.integers(10**4, 10**11), st.floats(1.12, 50), st.booleans())
def test_a_size_that_is_far_off_does_not_agree(size, factor, more):
    stated = size * factor * 1.03 if more else size / factor / 1.03
    for about in ("", "~"):
        # In binary units a number stands for up to 7 % more.
        assert not size_agrees(f"{about}{stated * (1.074 if more else 1 / 1.074):.0f} bytes", size)


@pytest.mark.parametrize(
    "row",
    [
        "| `https://example.org/v.pt` | elsewhere | 5 MB |",
        "| vectors/absent.pt | no code | 5 MB |",
        "| `python run.py --out x.pt` | a command | |",
        "| `vectors/` | a folder | 5 MB |",
        "| `../outside.exe` | not a kind of file | |",
    ],
)
def test_only_paths_in_code_are_taken_for_files(tmp_path, row):
    place = legacy.build(tmp_path)
    words(CARD, "| `saes/*_features.json`", f"{row}\n| `saes/*_features.json`")(place)

    assert place.findings() == legacy.MANIFESTS


def test_a_table_without_a_column_of_paths_names_no_files(tmp_path):
    place = legacy.build(tmp_path)
    words(CARD, "| Model | Best cell |", "| Thing | Best cell |")(place)
    words(CARD, "| 0.5B | L=2 c=+2.5 |", "| `absent.pt` | 9 KB |")(place)

    assert place.findings() == legacy.MANIFESTS
