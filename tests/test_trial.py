"""Trials against the serial path, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import BLOCKS, FREQUENT_EOS, HIDDEN, random_vector, tiny_language_model

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.serial import generate_serial
from steer_eval.formats.vector import SteeringVector, read_vector
from steer_eval.steering.interventions import Add
from steer_eval.trial import UNSTEERED, Answer, Trial, Variant, answer, requests

PROMPTS = ("Why?", "Was it the rain in the valley that woke her?")
COEFS = (1.0, -1.5)
NAME = "lab/tiny"


def vector(layer: int, *, size: int = HIDDEN, **provenance: str) -> SteeringVector:
    return SteeringVector(random_vector(layer, size=size).numpy(), layer, provenance)


def trial(
    prompts=PROMPTS, layers=(2, 0), coefs=COEFS, *, max_new_tokens=8, system=None, size=HIDDEN, **provenance
) -> Trial:
    vectors = {layer: vector(layer, size=size, **provenance) for layer in layers}
    return Trial(prompts, vectors, coefs, max_new_tokens, system)


def run(what: Trial, lm) -> list[tuple[Answer, ...]]:
    return answer(what, lm, requests(what, lm, model=NAME), model=NAME)


def serial(what: Trial, lm, prompt: str, variant: Variant):
    """The same continuation, put together from the prompt and the vector alone."""
    edits = ()
    if variant.layer is not None:
        edits = (Add(variant.layer, torch.tensor(what.vectors[variant.layer].values), variant.coef),)
    request = Request(tuple(lm.chat_ids(prompt, system=what.system)), edits)
    return generate_serial(lm, request, max_new_tokens=what.max_new_tokens)


def assert_as_serial(what: Trial, lm, answers: list[tuple[Answer, ...]]) -> None:
    for prompt, row in zip(what.prompts, answers, strict=True):
        for each in row:
            expected = serial(what, lm, prompt, each.variant)
            text = lm.decode(expected.ids)
            if expected.tie_at is None:
                assert (each.gen, each.n_tokens, each.stop) == (text, len(expected.ids), expected.stop)
            else:
                determined = lm.decode(expected.ids[: expected.tie_at])
                assert each.gen.startswith(determined)


def test_the_unsteered_model_comes_first_then_layers_and_coefficients_as_given() -> None:
    assert trial().variants == (
        UNSTEERED,
        Variant(2, 1.0),
        Variant(2, -1.5),
        Variant(0, 1.0),
        Variant(0, -1.5),
    )
    assert [str(variant) for variant in trial(coefs=(2.0,)).variants] == [
        "unsteered",
        "layer 2, c = +2",
        "layer 0, c = +2",
    ]


def test_answers_are_those_of_the_serial_path(tiny) -> None:
    answers = run(trial(), tiny)
    assert [[each.variant for each in row] for row in answers] == [list(trial().variants)] * len(PROMPTS)
    assert_as_serial(trial(), tiny, answers)
    for row in answers:
        assert len({each.gen for each in row}) > 2


@pytest.mark.parametrize("system", [None, "Be firm.", ""])
def test_rows_that_end_by_themselves(system: str | None) -> None:
    lm = tiny_language_model(eos_ids=FREQUENT_EOS)
    what = trial(prompts=(*PROMPTS, "The dogs were quiet."), max_new_tokens=12, system=system)
    answers = run(what, lm)
    assert_as_serial(what, lm, answers)
    assert {each.stop for row in answers for each in row} == {"eos", "length"}


def test_the_system_prompt_is_read() -> None:
    lm = tiny_language_model()
    assert run(trial(system="Be firm."), lm)[0][0].gen != run(trial(), lm)[0][0].gen


def test_coefficient_zero_is_the_unsteered_text() -> None:
    [row] = run(trial(PROMPTS[:1], coefs=(0.0,)), tiny_language_model())
    assert len({each.gen for each in row}) == 1


def test_finished_rows_are_counted() -> None:
    done: list[int] = []
    lm, what = tiny_language_model(), trial()
    answer(what, lm, requests(what, lm, model=NAME), model=NAME, on_rows=done.append)
    assert sum(done) == len(PROMPTS) * len(what.variants)


def test_an_undetermined_text_says_up_to_where_it_is_determined() -> None:
    lm = tiny_language_model()
    with torch.no_grad():
        # All logits are equal, so that the first token is a tie already.
        lm.module.lm_head.weight.zero_()
    [row] = run(trial(PROMPTS[:1]), lm)
    assert {each.determined for each in row} == {0}
    assert {each.determined for row in run(trial(), tiny_language_model()) for each in row} == {None}


@pytest.mark.parametrize("coef", [float("nan"), float("inf"), float("-inf")])
def test_a_coefficient_that_is_no_number_is_refused(coef: float) -> None:
    with pytest.raises(SteerEvalError, match=f"coefficient {coef} is no finite number"):
        trial(coefs=(1.0, coef))


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(SteerEvalError, match="prompt 2 is empty"):
        trial(prompts=("Why?", prompt))


@pytest.mark.parametrize(
    ("broken", "name"), [({"prompts": ("Why?", "\udcff")}, "prompt 2"), ({"system": "a\udcff"}, "system prompt")]
)
def test_bytes_that_are_no_text_are_refused(broken: dict[str, object], name: str) -> None:
    with pytest.raises(SteerEvalError, match=f"{name} is not UTF-8 text"):
        trial(**broken)


def test_a_layer_beyond_the_model_is_refused() -> None:
    with pytest.raises(SteerEvalError, match=f"no layer {BLOCKS}: {NAME} has {BLOCKS} decoder blocks, 0 to 3"):
        run(trial(layers=(0, BLOCKS)), tiny_language_model())
    assert run(trial(PROMPTS[:1], layers=(BLOCKS - 1,)), tiny_language_model())


@pytest.mark.parametrize("size", [1, HIDDEN - 1, 2 * HIDDEN])
def test_a_vector_of_another_width_is_refused(size: int) -> None:
    message = f"layer 2 has {size} values, but the hidden size of {NAME} is {HIDDEN}; .* it is of lab/other"
    with pytest.raises(SteerEvalError, match=message):
        run(trial(size=size, model="lab/other"), tiny_language_model())


@pytest.mark.parametrize("coef", [1e39, -1e39, 1e300])
def test_a_multiple_beyond_float32_is_refused(coef: float) -> None:
    with pytest.raises(SteerEvalError, match="too large for float32"):
        run(trial(coefs=(coef,)), tiny_language_model())


def test_logits_that_are_no_numbers_are_refused_and_the_variant_named() -> None:
    lm = tiny_language_model("gpt2")
    values = np.full(HIDDEN, 1e38, dtype=np.float32)
    what = Trial(PROMPTS[:1], {2: SteeringVector(values, 2, {})}, (1e-38, 3.0), 4)
    with pytest.raises(SteerEvalError, match=r"layer 2, c = \+3: the logits of lab/tiny are not finite") as caught:
        run(what, lm)
    assert "smaller coefficient" in caught.value.fix


def test_a_prompt_that_is_too_long_is_refused() -> None:
    lm = tiny_language_model("gpt2")
    tokens = len(lm.chat_ids(PROMPTS[1]))
    fitting = lm.module.config.n_positions - tokens
    with pytest.raises(SteerEvalError, match=f"prompt 2 has {tokens} tokens .* has 256 positions"):
        requests(trial(max_new_tokens=fitting + 1), lm, model=NAME)
    what = trial(PROMPTS[1:], layers=(0,), coefs=(1.0,), max_new_tokens=fitting)
    assert {each.n_tokens for row in run(what, lm) for each in row} == {fitting}


def test_a_template_that_refuses_a_system_turn_says_so() -> None:
    lm = tiny_language_model()
    lm.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + lm.tokenizer.chat_template
    )
    assert run(trial(), lm)
    with pytest.raises(SteerEvalError, match="System role not supported") as caught:
        run(trial(system="Be firm."), lm)
    assert caught.value.fix.startswith("leave out the system prompt")


def test_a_model_without_a_chat_template_says_so() -> None:
    with pytest.raises(SteerEvalError, match="no chat template"):
        run(trial(), tiny_language_model(chat=False))


@pytest.mark.slow
def test_the_packaged_vector_on_the_real_model_as_on_the_serial_path(smollm2, packaged_study) -> None:
    published = read_vector(packaged_study / "vectors" / "smollm2_L18_caa.safetensors")
    prompts = ("You lost my order again, and nobody called me back.", "Why?")
    what = Trial(prompts, {18: published}, (2.0, -2.0), 12)
    answers = run(what, smollm2)
    assert_as_serial(what, smollm2, answers)
    assert all(len({each.gen for each in row}) == 3 for row in answers)
