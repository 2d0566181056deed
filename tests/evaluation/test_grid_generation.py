import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from more_models import another_language_model
from tiny_models import (
    ARCHITECTURES,
    BLOCKS,
    FREQUENT_EOS,
    SLIDING_WINDOW,
    add,
    fingerprint,
    random_vector,
    tiny_language_model,
)

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.generation import Generation, Request
from steer_eval.evaluation.grid_generation import _best, _reading_order, generate_grid
from steer_eval.evaluation.row_cache import can_join
from steer_eval.evaluation.serial import generate_serial
from steer_eval.steering.interventions import Add

TOKENS = SLIDING_WINDOW + 3
CELLS = [
    (),
    (add(0, 0.0),),
    (add(1, 1.0),),
    (add(2, -1.5),),
    (add(BLOCKS - 1, 1.0),),
    (add(0, 1.0), add(2, -2.0)),
    (add(3, 0.5), add(1, 0.5)),
    (add(1, 1.0), add(1, 2.0, seed=1)),
]
PROMPTS = ["Why?", "The dogs were quiet", "Was it the rain in the valley?", "Who?"]
"""Of three lengths: the first and the last have as many tokens."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def ending(request):
    """A model whose rows end at different times."""
    return tiny_language_model(request.param, eos_ids=FREQUENT_EOS)


def requests_of(lm, prompts=PROMPTS, cells=CELLS) -> list[Request]:
    return [Request(tuple(lm.chat_ids(prompt)), cell) for prompt in prompts for cell in cells]


def grid(lm, requests, *, max_new_tokens=TOKENS, **options) -> list[Generation]:
    finished = list(generate_grid(lm, requests, max_new_tokens=max_new_tokens, **options))
    assert sorted(index for index, _ in finished) == list(range(len(requests)))
    return [generation for _, generation in sorted(finished, key=lambda item: item[0])]


def steps_of(rows: list[int], places: int) -> list[int]:
    """How many rows each decoding step has, if rows come in as soon as a quarter of the places is free.

    Args:
        rows: Tokens of the texts, in the order in which rows come in.
        places: Most rows at one time.
    """
    waiting, there, steps = rows, [], []
    while waiting or there:
        if there:
            steps.append(len(there))
        free = places - len(there)
        coming = waiting[:free] if not there or free >= max(1, places // 4) else []
        waiting = waiting[len(coming) :]
        # The first token of a text comes from reading its prompt.
        there = [tokens - 1 for tokens in [*there, *coming] if tokens > 1]
    return steps


def assert_same(serial: Generation, generation: Generation) -> None:
    assert serial.agrees_with(generation.ids)
    assert len(generation.gaps) == len(generation.ids) + (generation.stop == "eos")
    if serial.tie_at is None:
        assert generation.stop == serial.stop
        assert generation.gaps == pytest.approx(serial.gaps, abs=1e-3)


def assert_as_serial(lm, requests, *, max_new_tokens=TOKENS, **options) -> list[Generation]:
    generations = grid(lm, requests, max_new_tokens=max_new_tokens, **options)
    for request, generation in zip(requests, generations, strict=True):
        assert_same(generate_serial(lm, request, max_new_tokens=max_new_tokens), generation)
    return generations


def test_the_prompts_are_of_three_lengths(tiny):
    lengths = [len(tiny.chat_ids(prompt)) for prompt in PROMPTS]
    assert len(set(lengths)) == 3
    assert lengths[0] == lengths[3]


class TestAgainstTheSerialPath:
    def test_rows_that_run_to_the_end(self, tiny):
        generations = assert_as_serial(tiny, requests_of(tiny), rows_per_batch=5)
        assert {generation.stop for generation in generations} == {"length"}
        assert {len(generation.ids) for generation in generations} == {TOKENS}

    def test_rows_that_finish_at_different_times(self, ending):
        generations = assert_as_serial(ending, requests_of(ending))
        assert {generation.stop for generation in generations} == {"eos", "length"}
        assert len({len(generation.ids) for generation in generations}) > 3
        assert not any(ending.eos_ids.intersection(generation.ids) for generation in generations)

    def test_steering_changes_the_text(self, tiny):
        plain, zero, *steered = grid(tiny, requests_of(tiny, PROMPTS[:1]))
        assert plain.agrees_with(zero.ids)
        assert sum(generation.ids != plain.ids for generation in steered) >= len(steered) // 2
        assert len(set(plain.ids)) > 3

    @pytest.mark.parametrize("max_new_tokens", [1, 2])
    def test_very_short_texts(self, ending, max_new_tokens):
        generations = assert_as_serial(ending, requests_of(ending), max_new_tokens=max_new_tokens)
        assert max(len(generation.ids) for generation in generations) == max_new_tokens

    def test_a_text_may_be_empty(self):
        lm = tiny_language_model("llama")
        request = requests_of(lm)[0]
        first = generate_serial(lm, request, max_new_tokens=1).ids
        lm.module.generation_config.eos_token_id = list(first)
        [generation] = assert_as_serial(lm, [request])
        assert generation.ids == ()
        assert generation.stop == "eos"

    def test_a_prompt_of_one_token(self, tiny):
        assert_as_serial(tiny, [Request((17,), cell) for cell in CELLS])

    @pytest.mark.parametrize("max_new_tokens", [0, -1])
    def test_no_tokens_are_refused_by_both(self, tiny, max_new_tokens):
        request = Request((17,), (add(1, 1.0),))
        for run in (grid, lambda lm, rows, **options: generate_serial(lm, rows[0], **options)):
            with pytest.raises(SteerEvalError, match=f"at most {max_new_tokens} tokens"):
                run(tiny, [request], max_new_tokens=max_new_tokens)

    def test_an_empty_prompt_is_refused_by_both(self, tiny):
        with pytest.raises(SteerEvalError, match="prompt has no tokens"):
            grid(tiny, [Request((17,), ()), Request((), (add(1, 1.0),))])
        with pytest.raises(SteerEvalError, match="prompt has no tokens"):
            generate_serial(tiny, Request((), ()), max_new_tokens=2)

    @settings(max_examples=5, deadline=None)
    @given(data=st.data())
    def test_any_rows(self, ending, data):
        edits = st.builds(add, st.integers(0, BLOCKS - 1), st.floats(-4, 4, width=32), seed=st.integers(0, 3))
        prompts = st.integers(1, 3).flatmap(lambda size: st.lists(st.integers(0, 255), min_size=size, max_size=size))
        rows = st.builds(Request, prompts.map(tuple), st.lists(edits, max_size=2).map(tuple))
        requests = data.draw(st.lists(rows, min_size=1, max_size=6))
        assert_as_serial(ending, requests, max_new_tokens=6, rows_per_batch=data.draw(st.integers(1, 4)))


@given(st.integers(1, 40), st.integers(2, 3000), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_of_equal_logits_the_one_that_generate_takes_is_taken(rows, vocabulary, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(levels, (rows, vocabulary), generator=generator).float()

    values, tokens = _best(logits)

    assert torch.equal(tokens, logits.argmax(dim=-1))
    assert torch.equal(values, logits.sort(dim=-1, descending=True).values[:, :2])


class TestRows:
    def test_a_row_does_not_depend_on_who_shares_the_batch(self, ending):
        requests = requests_of(ending)
        together = grid(ending, requests)
        backwards = grid(ending, requests[::-1])[::-1]
        in_threes = grid(ending, requests, rows_per_batch=3)
        alone = grid(ending, requests, rows_per_batch=1)
        for rows in zip(alone, together, backwards, in_threes, strict=True):
            for other in rows[1:]:
                assert_same(rows[0], other)

    def test_rows_come_as_soon_as_they_finish(self, ending):
        requests = requests_of(ending, PROMPTS[:1])
        lengths = [len(generation.gaps) for _, generation in generate_grid(ending, requests, max_new_tokens=TOKENS)]
        assert lengths == sorted(lengths)

    def test_finished_rows_leave_the_batch(self, ending):
        sizes = []
        handle = ending.blocks[0].register_forward_pre_hook(lambda _module, inputs: sizes.append(inputs[0].shape[0]))
        generations = grid(ending, requests_of(ending, PROMPTS[:1]))
        handle.remove()
        decoded = [
            sum(len(generation.gaps) > step for generation in generations)
            for step in range(1, max(len(generation.gaps) for generation in generations))
        ]
        # The prompt is read once, for how much a row takes and for all rows: below their edits they are one.
        assert sizes == [1, 1, *decoded]

    def test_prompts_are_read_once_and_without_padding(self, tiny):
        """Each block sees the unsteered prompt, and each row from its lowest edit on, and nothing else."""
        shapes = {layer: [] for layer in range(BLOCKS)}
        handles = [
            block.register_forward_pre_hook(
                lambda _module, inputs, layer=layer: shapes[layer].append(tuple(inputs[0].shape[:2]))
            )
            for layer, block in enumerate(tiny.blocks)
        ]
        grid(tiny, requests_of(tiny), max_new_tokens=1, rows_per_batch=64)
        for handle in handles:
            handle.remove()
        entries = [min(edit.layer for edit in cell) for cell in CELLS if cell]
        for layer, seen in shapes.items():
            joined = sum(entry < layer for entry in entries)
            for prompt in PROMPTS:
                length = len(tiny.chat_ids(prompt))
                assert seen.count((1, length)) >= sum(len(tiny.chat_ids(other)) == length for other in PROMPTS)
            tokens = sum((1 + joined) * len(tiny.chat_ids(prompt)) for prompt in PROMPTS)
            assert sum(rows * length for rows, length in seen) == tokens

    @pytest.mark.parametrize("places", [4, 8])
    def test_waiting_rows_take_the_places_of_finished_ones(self, ending, places):
        """Every decoding step has as many rows as the texts' lengths allow, although each stays for another time."""
        sizes = []
        handle = ending.blocks[0].register_forward_pre_hook(
            lambda _module, inputs: sizes.append(inputs[0].shape[0]) if inputs[0].shape[1] == 1 else None
        )
        requests = requests_of(ending, PROMPTS[:2])
        generations = grid(ending, requests, rows_per_batch=places)
        handle.remove()
        assert can_join(ending, longest=max(len(request.ids) for request in requests) + TOKENS)
        order = sorted(range(len(requests)), key=lambda index: _reading_order(requests[index]))
        rows = [len(generations[index].gaps) for index in order]
        assert sizes == steps_of(rows, places)
        assert sum(sizes) == sum(tokens - 1 for tokens in rows)

    def test_rows_that_may_not_come_to_others_wait_until_all_have_left(self):
        eager = another_language_model("gemma2", attention="eager", eos_ids=FREQUENT_EOS, initializer_range=0.3)
        requests = requests_of(eager)
        assert not can_join(eager, longest=len(requests[0].ids) + TOKENS)
        assert_as_serial(eager, requests, rows_per_batch=5)

    def test_no_rows(self, tiny):
        assert grid(tiny, []) == []


class TestTheModelStaysAsItWas:
    def test_after_all_rows(self, ending):
        before = fingerprint(ending)
        grid(ending, requests_of(ending, PROMPTS[:1]))
        assert fingerprint(ending) == before

    def test_when_the_caller_stops_early(self, ending):
        before = fingerprint(ending)
        rows = generate_grid(ending, requests_of(ending), max_new_tokens=TOKENS)
        for _ in range(3):
            next(rows)
            assert fingerprint(ending) == before
            assert torch.is_grad_enabled()
        rows.close()
        assert fingerprint(ending) == before

    def test_when_a_row_is_wrong(self, tiny):
        before = fingerprint(tiny)
        for request in (
            Request((1, 2), (add(1, 1.0), Add(BLOCKS, random_vector(0), 1.0))),
            Request((1, 2), (Add(1, random_vector(0, size=7), 1.0),)),
            Request((1, 10**6), (add(1, 1.0),)),
        ):
            with pytest.raises((IndexError, ValueError)):
                grid(tiny, [Request((1, 2), ()), request])
        assert fingerprint(tiny) == before


@pytest.mark.slow
def test_smollm2_writes_the_same_texts(smollm2, packaged_data):
    lines = (packaged_data / "eval_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["scenario"] for line in lines[:2]]
    vectors = {layer: random_vector(layer, norm=20.0, size=smollm2.hidden_size) for layer in (5, 15, 25)}
    cells = [(), *[(Add(layer, vector, c),) for layer, vector in vectors.items() for c in (-1.0, 1.0)]]
    cells.append((Add(5, vectors[5], 0.5), Add(25, vectors[25], 0.5)))
    requests = requests_of(smollm2, prompts, cells)
    generations = grid(smollm2, requests, max_new_tokens=20, rows_per_batch=16)
    for request, generation in list(zip(requests, generations, strict=True))[::3]:
        assert_same(generate_serial(smollm2, request, max_new_tokens=20), generation)
    assert len({generation.ids for generation in generations}) > len(requests) // 2
