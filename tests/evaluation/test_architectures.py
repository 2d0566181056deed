"""Architectures that the toolkit was not made on: decoders inside backbones, windows, convolutions, both at once.

And attention with a linear bias (ALiBi), which some make for each row by itself (BLOOM, Falcon), and others once (MPT).
"""

import numpy as np
import pytest
import torch
from edits_by_hand import every_kind
from more_models import MORE, another_language_model
from tiny_models import BLOCKS, FREQUENT_EOS, TEXT, add, fingerprint

from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.study import PerplexityProtocol

CELLS = [(), (add(0, 1.0),), (add(1, -1.0), add(3, 1.0)), (add(BLOCKS - 1, 1.0),)]
KINDS = [every_kind()[name] for name in ("rotate", "clamp", "patch", "all kinds")]


@pytest.fixture(scope="module", params=[*MORE, "falcon, eager"])
def lm(request):
    name, _, attention = request.param.partition(", ")
    return another_language_model(name, attention=attention or None, eos_ids=FREQUENT_EOS, initializer_range=0.3)


def test_texts_are_those_of_the_serial_path(lm):
    before = fingerprint(lm)
    requests = [Request(tuple(range(7, 7 + length)), cell) for length in (3, 5, 11) for cell in [*CELLS, *KINDS]]
    for index, text in generate_grid(lm, requests, max_new_tokens=6, rows_per_batch=7):
        assert generate_serial(lm, requests[index], max_new_tokens=6).agrees_with(text.ids)
    assert fingerprint(lm) == before


def test_perplexities_are_those_of_the_serial_path(lm):
    corpus = tokenise(TEXT, lm, PerplexityProtocol("", window=30)).with_context([7, 8, 9])
    cells = [*CELLS, *KINDS]
    for index, nll in perplexity_grid(lm, corpus, cells):
        np.testing.assert_allclose(nll, perplexity_serial(lm, corpus, cells[index]), rtol=1e-4, atol=1e-4)


def test_logits_are_the_models_own(lm):
    ids = torch.tensor([list(range(9, 20))])
    with torch.no_grad():
        expected = lm.module(ids).logits
    torch.testing.assert_close(lm.logits(lm.final_hidden(ids)), expected, atol=1e-5, rtol=1e-5)
