import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.cli.printable import printable


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b]0;title\x07", "a\rb", "\x9b31m", "\u202egnp.exe", "\x00"])
def test_a_text_can_not_command_the_terminal(text: str) -> None:
    shown = printable(text)
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert len(shown) == len(text)
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e\x00")


@given(st.text())
def test_only_what_is_not_printed_changes(text: str) -> None:
    for before, after in zip(text, printable(text), strict=True):
        assert before == after or unicodedata.category(before) in {"Cc", "Cf"}


def test_letters_of_all_scripts_lines_and_tabs_stay() -> None:
    text = "naïve 怒り γ → ±\n\tשלום"
    assert printable(text) == text
