"""The serial path is the oracle of the grid; here it is held to loops that one can check by reading."""

import pytest
import torch
from edits_by_hand import every_kind, patch, steered_by_hand
from tiny_models import (
    ARCHITECTURES,
    FREQUENT_EOS,
    SLIDING_WINDOW,
    TEXT,
    add,
    fingerprint,
    tiny_language_model,
)

from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import TIE_GAP, Generation, Request
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.study import PerplexityProtocol

INTERVENTIONS = [(), (add(1, 2.0),), (add(0, -1.0), add(3, 0.5))]
KINDS = every_kind()


@torch.no_grad()
def next_logits(lm, ids, intervention, *, prompt):
    """Logits after each token, from a full pass without a cache, steered by hand."""
    with steered_by_hand(lm, intervention, prompt=prompt):
        return lm.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def greedy_by_hand(lm, prompt, intervention, *, max_new_tokens, eos_ids=frozenset()):
    ids, gaps = list(prompt), []
    while len(gaps) < max_new_tokens:
        best = next_logits(lm, ids, intervention, prompt=len(prompt))[-1].topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        if int(best.indices[0]) in eos_ids:
            return ids[len(prompt) :], gaps, "eos"
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], gaps, "length"


@pytest.mark.parametrize("intervention", [*INTERVENTIONS, *KINDS.values()], ids=[*"012", *KINDS])
class TestAgainstLoopsByHand:
    def test_perplexity(self, tiny, intervention):
        corpus = tokenise(TEXT, tiny, PerplexityProtocol("", window=50)).with_context([9, 8, 7])
        expected = []
        for window in corpus.windows:
            logits = next_logits(tiny, [*window.context, *window.ids], intervention, prompt=3).double()
            for position in range(1, len(window.ids)):
                before = logits[len(window.context) + position - 1]
                expected.append(float(before.logsumexp(0) - before[window.ids[position]]))
        observed = perplexity_serial(tiny, corpus, intervention)
        assert observed == pytest.approx(expected, rel=1e-6 if intervention in INTERVENTIONS else 1e-4, abs=1e-5)

    def test_generation(self, tiny, intervention):
        prompt = tiny.text_ids("The river rose.", special_tokens=False)
        tokens = 2 * SLIDING_WINDOW if intervention in INTERVENTIONS else 4
        ids, gaps, stop = greedy_by_hand(tiny, prompt, intervention, max_new_tokens=tokens)
        generation = generate_serial(tiny, Request(tuple(prompt), intervention), max_new_tokens=tokens)
        assert generation.agrees_with(ids)
        assert generation.gaps == pytest.approx(gaps, abs=1e-3)
        assert generation.stop == stop == "length"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_end_of_sequence_token_ends_it_and_is_left_out(architecture):
    lm = tiny_language_model(architecture, eos_ids=FREQUENT_EOS)
    before = fingerprint(lm)
    stops = []
    for layer in range(4):
        for coefficient in (-1.0, 1.0):
            request = Request(tuple(lm.chat_ids("Why?")), (add(layer, coefficient),))
            generation = generate_serial(lm, request, max_new_tokens=12)
            ids, gaps, stop = greedy_by_hand(
                lm, request.ids, request.intervention, max_new_tokens=12, eos_ids=lm.eos_ids
            )
            assert generation.agrees_with(ids)
            assert generation.stop == stop
            assert len(generation.gaps) == len(gaps) == len(ids) + (stop == "eos")
            assert not lm.eos_ids.intersection(generation.ids)
            stops.append(stop)
    assert "eos" in stops
    assert fingerprint(lm) == before


@pytest.mark.parametrize(
    "habits",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"do_sample": True, "temperature": 5.0},
        {"min_new_tokens": 11},
        {"suppress_tokens": list(range(100, 300))},
        {"num_beams": 3},
        {"forced_eos_token_id": 7},
        {"max_time": 0.0},
    ],
    ids=lambda habits: next(iter(habits)),
)
def test_habits_of_the_models_own_generation_configuration_do_not_count(habits):
    lm = tiny_language_model("gemma3", eos_ids=FREQUENT_EOS)
    requests = [Request(tuple(lm.chat_ids("Why?")), (add(1, coefficient),)) for coefficient in (-1.0, 0.0, 0.5, 1.0)]
    expected = [generate_serial(lm, request, max_new_tokens=12) for request in requests]
    assert {generation.stop for generation in expected} == {"eos", "length"}
    assert any(len(set(generation.ids)) < len(generation.ids) - 3 for generation in expected)
    lm.module.generation_config.update(**habits)
    before = fingerprint(lm)
    assert [generate_serial(lm, request, max_new_tokens=12) for request in requests] == expected
    assert fingerprint(lm) == before


def test_the_model_stays_as_it_was_when_a_pass_fails():
    lm = tiny_language_model("llama")
    before = fingerprint(lm)
    with pytest.raises(IndexError):
        generate_serial(lm, Request((10**6,), (add(1, 1.0),)), max_new_tokens=2)
    with pytest.raises(IndexError):
        generate_serial(lm, Request((1,), (add(1, 1.0), add(4, 1.0))), max_new_tokens=2)
    assert fingerprint(lm) == before


def test_a_patch_beyond_the_prompt_is_refused():
    lm = tiny_language_model("llama")
    with pytest.raises(ValueError, match="a patch of token 2"):
        generate_serial(lm, Request((1, 2), (patch(1),)), max_new_tokens=2)
    with pytest.raises(ValueError, match="a patch of token 2"):
        perplexity_serial(lm, tokenise(TEXT, lm, PerplexityProtocol("", window=50)), (patch(1),))


class TestSameText:
    def test_a_text_without_ties_is_determined(self):
        generation = Generation((4, 5, 6), (0.5, 0.1, 0.2), "length")
        assert generation.tie_at is None
        assert generation.agrees_with([4, 5, 6])
        assert not generation.agrees_with([4, 5, 7])
        assert not generation.agrees_with([4, 5])
        assert not generation.agrees_with([4, 5, 6, 7])

    def test_after_a_near_tie_anything_goes(self):
        generation = Generation((4, 5, 6), (0.5, TIE_GAP / 2, 0.2), "length")
        assert generation.tie_at == 1
        assert generation.agrees_with([4, 9])
        assert generation.agrees_with([4])
        assert not generation.agrees_with([3, 5, 6])
        assert not generation.agrees_with([])

    def test_a_tie_with_the_end_of_sequence_counts(self):
        ended = Generation((4,), (0.5, TIE_GAP / 2), "eos")
        assert ended.tie_at == 1
        assert ended.agrees_with([4, 8, 9])
        assert not ended.agrees_with([5])

    def test_a_gap_of_just_the_bound_is_no_tie(self):
        assert Generation((4,), (TIE_GAP,), "length").tie_at is None
