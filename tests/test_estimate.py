"""What a re-run needs is worked out from the plan and the machine, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compared import study_of
from studies import build

from steer_eval.cells import plan, wants_text
from steer_eval.comparison.cells import comparison_cells
from steer_eval.estimate import (
    PROMPT_TOKENS,
    TOKENS_PER_WORD,
    estimate,
    machine_flops,
    machine_gigabytes,
    parameters,
    why_left_out,
)
from steer_eval.results import Results

FLOPS = 1e11


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen3.5-0.8B", 0.8e9),
        ("Qwen/Qwen3.5-2B", 2e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("google/gemma-3-270m", None),
        ("openai-community/gpt2", None),
        ("lab/8Bit-model", None),
        ("mistralai/Mixtral-8x7B", None),
    ],
)
def test_a_size_is_read_from_the_name_or_not_known(name, size):
    assert parameters(name) == (None if size is None else pytest.approx(size))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"))


def wanted(place, base_model, **plan_changes):
    study = place.study()
    study = replace(study, sweep=replace(study.sweep, **plan_changes))
    reference = replace(study.models["tiny"], base_model=base_model)
    cells = plan(study, "tiny")
    text = [cell for cell in cells if wants_text(study, cell)]
    return estimate(study, reference, cells, text, place.results(), flops=FLOPS), cells, text


def test_tokens_are_those_of_the_plan(place):
    found, cells, text = wanted(place, "lab/tiny-2B")

    corpus = int(13 * TOKENS_PER_WORD)
    assert found.texts == 3 * len(text)
    assert found.tokens == (len(cells) + 1) * corpus + found.texts * (PROMPT_TOKENS + 80)
    # Two operations per parameter and token, at four fifths of the machine's speed.
    assert found.minutes == pytest.approx(2 * 2e9 * found.tokens / (0.8 * FLOPS) / 60)
    assert found.gigabytes == pytest.approx(2 * 4 * 1.3)


def test_fewer_prompts_need_fewer_texts(place):
    assert wanted(place, "lab/tiny-2B", n_prompts=1)[0].texts * 3 == wanted(place, "lab/tiny-2B")[0].texts


def test_a_model_of_unknown_size_is_never_left_out(place):
    found, *_ = wanted(place, "lab/tiny-base")

    assert (found.minutes, found.gigabytes) == (None, None)
    assert "not known" in str(found)
    assert why_left_out(found, minutes_left=0, gigabytes=0.1) == ""


def test_what_is_too_large_or_too_long_is_left_out_with_the_reason(place):
    found, *_ = wanted(place, "lab/tiny-2B")

    assert "GB of memory" in why_left_out(found, minutes_left=1e9, gigabytes=1.0)
    assert "minutes" in why_left_out(found, minutes_left=0.001, gigabytes=None)
    assert why_left_out(found, minutes_left=1e9, gigabytes=64) == ""


def test_the_machine_is_measured():
    assert machine_flops() > 1e8
    memory = machine_gigabytes()
    assert memory is None or memory > 0.5


def test_a_comparison_has_texts_on_its_own_prompts(tmp_path):
    study = study_of(tmp_path, prompts=2)
    cells = comparison_cells(study, "tiny")
    published = Results({}, {}, prompts=("a", "b", "c"), corpus="one two")
    found = estimate(study, study.models["tiny"], cells, cells, published, flops=FLOPS)

    assert (found.cells, found.texts) == (len(cells), 2 * len(cells))
