"""Qwen3.5 as it is published: a conditional-generation wrapper around a text model of attention and recurrence.

Its text tower comes out of `load_model`, and both, tower and wrapper, go through every path.
"""

import numpy as np
import pytest
import torch
from edits_by_hand import every_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOCKS, FREQUENT_EOS, TEXT, add, fingerprint, tiny_conditional_generation
from transformers import Qwen3_5ForCausalLM, Qwen3_5ForConditionalGeneration

from steer_eval.contrast import ContrastPair
from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.extract import extract_caa
from steer_eval.model import load_model
from steer_eval.study import PerplexityProtocol

CELLS = [(), (add(0, 1.0),), (add(1, -2.0),), (add(2, 1.0), add(3, 1.0)), (add(BLOCKS - 1, 1.0),)]
KINDS = [*every_kind().values()]
PAIRS = [
    ContrastPair("Who took the lamp?", "The dogs were quiet! Nobody had slept.", "He said so."),
    ContrastPair("Why?", "No.", "The old men had seen worse, and the road was gone in the morning."),
]


@pytest.fixture(scope="module")
def wrapper():
    return tiny_conditional_generation(eos_ids=FREQUENT_EOS)


@pytest.fixture(scope="module")
def tower(wrapper, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapper")
    wrapper.module.save_pretrained(folder)
    wrapper.tokenizer.save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(params=["tower", "wrapper"])
def hybrid(request):
    return request.getfixturevalue(request.param)


def test_a_published_checkpoint_loads_as_its_text_tower(wrapper, tower):
    assert isinstance(wrapper.module, Qwen3_5ForConditionalGeneration)
    assert isinstance(tower.module, Qwen3_5ForCausalLM)
    assert tower.eos_ids == wrapper.eos_ids
    ids = torch.tensor([tower.chat_ids("Why?")])
    with torch.no_grad():
        assert torch.equal(tower.module(ids).logits, wrapper.module(ids).logits)


def test_the_decoder_blocks_are_those_of_the_text_tower(hybrid):
    assert len(hybrid.blocks) == BLOCKS
    assert {type(block).__name__ for block in hybrid.blocks} == {"Qwen3_5DecoderLayer"}


def test_texts_are_those_of_the_serial_path(hybrid):
    before = fingerprint(hybrid)
    prompts = ["Why?", "Was it the rain in the valley?", "Who?"]
    requests = [Request(tuple(hybrid.chat_ids(prompt)), cell) for prompt in prompts for cell in CELLS]
    requests += [Request(tuple(hybrid.chat_ids("Who was it?")), cell) for cell in KINDS]
    texts = dict(generate_grid(hybrid, requests, max_new_tokens=8, rows_per_batch=6))
    assert {text.stop for text in texts.values()} == {"eos", "length"}
    for index, request in enumerate(requests):
        assert generate_serial(hybrid, request, max_new_tokens=8).agrees_with(texts[index].ids)
    assert fingerprint(hybrid) == before


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_who_shares_a_batch_never_changes_a_row(tower, data):
    """Rows of random lengths: nothing that stands in another row, and no filling, reaches a recurrent state."""
    ids = st.lists(st.integers(0, 255), min_size=3, max_size=20)
    cells = st.sampled_from([*CELLS, *KINDS])
    rows = data.draw(st.lists(st.builds(Request, ids.map(tuple), cells), min_size=2, max_size=5))
    together = dict(generate_grid(tower, rows, max_new_tokens=5))
    for index, row in enumerate(rows):
        [(_, alone)] = generate_grid(tower, [row], max_new_tokens=5)
        assert alone.agrees_with(together[index].ids)
        assert together[index].gaps == pytest.approx(alone.gaps, abs=1e-3) or alone.tie_at is not None


def test_perplexities_are_those_of_the_serial_path(hybrid):
    corpus = tokenise(TEXT, hybrid, PerplexityProtocol("", window=30)).with_context([7, 8, 9])
    cells = [*CELLS, *KINDS]
    for index, nll in perplexity_grid(hybrid, corpus, cells):
        np.testing.assert_allclose(nll, perplexity_serial(hybrid, corpus, cells[index]), rtol=5e-4, atol=5e-4)


def test_vectors_are_those_of_single_passes(hybrid):
    vectors = extract_caa(hybrid, PAIRS, [0, 2])
    for layer, vector in vectors.items():
        expected = torch.zeros(hybrid.hidden_size, dtype=torch.float64)
        for pair in PAIRS:
            prompt = hybrid.chat_ids(pair.scenario)
            for text, sign in ((pair.positive, 1), (pair.negative, -1)):
                reply = hybrid.text_ids(text, special_tokens=False)
                with torch.no_grad():
                    output = hybrid.module(torch.tensor([prompt + reply]), output_hidden_states=True)
                expected += sign * output.hidden_states[layer + 1][0, len(prompt) :].double().mean(dim=0) / len(PAIRS)
        assert float((vector.double() - expected).norm()) <= 5e-5 * (1 + float(expected.norm()))


def test_thinking_is_off_where_the_template_knows_it(wrapper):
    template = wrapper.tokenizer.chat_template
    try:
        wrapper.tokenizer.chat_template = template + (
            "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
        )
        assert wrapper.decode(wrapper.chat_ids("Why?")).endswith("<think>\n\n</think>\n\n")
    finally:
        wrapper.tokenizer.chat_template = template
