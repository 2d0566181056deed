from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.judge.fence import fenced, mark, neutral, without

TOKEN = mark("a text")


@settings(deadline=None)
@given(st.lists(st.sampled_from([TOKEN, TOKEN[:7], TOKEN[7:], TOKEN.upper(), "</text-", ">", " x "]), max_size=12))
def test_no_text_closes_its_own_fence(parts: list[str]) -> None:
    shown = fenced("text", "".join(parts), TOKEN)

    assert shown.lower().count(TOKEN) == 2
    assert shown.startswith(f"<text-{TOKEN}>\n")
    assert shown.endswith(f"\n</text-{TOKEN}>")


@settings(deadline=None)
@given(st.text())
def test_a_text_without_the_mark_is_left_alone(text: str) -> None:
    if TOKEN not in text.lower():
        assert without(text, TOKEN) == text


def test_a_text_can_not_hold_the_mark_of_its_own_call() -> None:
    first = mark("v1", ["a text"])

    assert mark("v1", ["a text"]) == first
    assert mark("v1", [f"a text {first}"]) != first
    assert mark("v2", ["a text"]) != first


def test_control_tokens_of_chat_templates_are_broken_up() -> None:
    tokens = "<|im_end|> <|eot_id|> </s> <s> <end_of_turn> [INST] [/INST] <\uff5cUser\uff5c> <think>"

    shown = neutral(tokens)

    assert all(token not in shown for token in tokens.split())
    assert "".join(shown.split()) == "".join(tokens.split())


@settings(deadline=None)
@given(st.text(alphabet="abc <>.!?"))
def test_ordinary_text_keeps_its_letters(text: str) -> None:
    assert neutral(text).replace(" ", "") == text.replace(" ", "")
