from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.judge.fluency import likelihood_share, novelty
from steer_eval.judge.likelihood import reply_nll
from steer_eval.model import LanguageModel

PAIRS = [
    ("Who is there?", "The river rose."),
    ("Look.", "No."),
    ("Where?", ""),
    ("Why?", "Nobody spoke of it that night. " * 4),
]


def test_batched_likelihoods_are_those_of_one_text_after_the_other(tiny: LanguageModel) -> None:
    found = dict(reply_nll(tiny, PAIRS))

    assert sorted(found) == [0, 1, 3]
    for index, value in found.items():
        prompt, reply = (tiny.chat_ids(PAIRS[index][0]), tiny.text_ids(PAIRS[index][1], special_tokens=False))
        labels = torch.tensor([[-100] * len(prompt) + reply])
        with torch.no_grad():
            loss = tiny.module(input_ids=torch.tensor([prompt + reply]), labels=labels).loss
        assert value == pytest.approx(float(loss), abs=2e-4)


def test_a_loop_is_not_novel_and_a_plain_sentence_is() -> None:
    assert novelty("I waited an hour, and nobody came to the desk.") == 1.0
    assert novelty("I am a machine. " * 20) < 0.1
    assert novelty("No.") == 1.0


@settings(deadline=None)
@given(st.text())
def test_novelty_is_a_share(text: str) -> None:
    assert 0 < novelty(text) <= 1


def test_likelihood_falls_from_usual_text_to_noise() -> None:
    uniform = math.log(49152)

    assert likelihood_share(1.0, 4.8, uniform) == 1.0
    assert likelihood_share(4.8, 4.8, uniform) == 1.0
    assert 0 < likelihood_share(8.0, 4.8, uniform) < 1
    assert likelihood_share(uniform, 4.8, uniform) == 0.0
    assert likelihood_share(99.0, 4.8, uniform) == 0.0
