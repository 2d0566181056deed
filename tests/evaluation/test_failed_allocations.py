"""Memory that runs out anywhere in a sweep: rows are done again, and texts are those of the serial path.

Rows end at different times here, so that those in flight stand in another order than the one they were read in, and
several join at each layer of each prompt.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOCKS, FREQUENT_EOS, TEXT, add, fingerprint, tiny_language_model

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation import memory, packed
from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Generation, Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.serial import generate_serial
from steer_eval.model import LanguageModel
from steer_eval.steering.row_edits import RowEdits
from steer_eval.study import PerplexityProtocol

TOKENS = 8
PROMPTS = ((31, 7, 200), (54, 9, 120), (77, 6, 40, 41, 12))
CELLS = [(add(layer, coefficient),) for layer in range(BLOCKS) for coefficient in (-2.0, 1.5)]
CELLS += [(), (add(1, 1.0), add(3, -1.0))]
REQUESTS = [Request(prompt, cell) for prompt in PROMPTS for cell in CELLS]
KINDS = ["llama", "gpt2", "qwen3_5"]


@pytest.fixture(scope="module", params=KINDS)
def sweep(request) -> tuple[LanguageModel, list[Generation]]:
    """A model, and what the serial path answers."""
    lm = tiny_language_model(request.param, eos_ids=FREQUENT_EOS)
    serial = [generate_serial(lm, row, max_new_tokens=TOKENS) for row in REQUESTS]
    assert len({len(text.gaps) for text in serial}) > 2
    return lm, serial


@contextmanager
def refused(lm: LanguageModel, steps: Collection[int]) -> Iterator[list[tuple[int, int]]]:
    """Let the allocator refuse an impossible request at the end of some passes through the blocks or the LM head.

    Args:
        lm: The model.
        steps: Which of these passes, counted from 0.

    Yields:
        Rows and tokens of the passes as they come.
    """
    seen: list[tuple[int, int]] = []

    def hook(_module, _inputs, output):
        shown = output if isinstance(output, torch.Tensor) else output.last_hidden_state
        seen.append((shown.shape[0], shown.shape[1]))
        if len(seen) - 1 in steps:
            torch.empty(2**60)

    modules = [getattr(lm.module, lm.module.base_model_prefix), lm.module.get_output_embeddings()]
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def assert_as_serial(serial: list[Generation], texts: list[tuple[int, Generation]], *, all_rows: bool = True) -> None:
    rows = [row for row, _ in texts]
    assert len(rows) == len(set(rows))
    assert not all_rows or sorted(rows) == list(range(len(serial)))
    assert [row for row, text in texts if not serial[row].agrees_with(text.ids)] == []


def test_one_refusal_at_each_possible_step(sweep):
    """While a prompt is read once for all rows, while rows join, at each token, and where tokens are chosen."""
    lm, serial = sweep
    before = fingerprint(lm)
    with refused(lm, ()) as passes:
        assert_as_serial(serial, list(generate_grid(lm, REQUESTS, max_new_tokens=TOKENS)))
    assert {tokens for rows, tokens in passes if rows > 1} == {1, 3, 5}
    # The first pass is that of one row alone, which can't be made smaller.
    for step in range(1, len(passes)):
        with refused(lm, {step}) as seen:
            assert_as_serial(serial, list(generate_grid(lm, REQUESTS, max_new_tokens=TOKENS)))
        assert len(seen) > len(passes)
    assert fingerprint(lm) == before


@settings(max_examples=8, deadline=None)
@given(steps=st.sets(st.integers(0, 40), max_size=5), rows=st.sampled_from([1, 3, 8, 20, 64]))
def test_any_refusals(sweep, steps, rows):
    """Each row is answered once, as the serial path does; what is not answered is said to lack memory."""
    lm, serial = sweep
    texts, failure = [], ""
    with refused(lm, steps):
        try:
            texts += generate_grid(lm, REQUESTS, max_new_tokens=TOKENS, rows_per_batch=rows)
        except SteerEvalError as error:
            failure = error.message
    assert_as_serial(serial, texts, all_rows=not failure)
    if failure:
        assert "not enough memory for one row" in failure
        # A single refusal only halves rows, unless there is but one.
        assert len(steps) > 1 or rows == 1


def test_rows_that_finished_when_others_could_not_be_moved_are_answered(sweep, monkeypatch):
    lm, serial = sweep
    moves = []
    select = RowEdits.select

    def refusing(edits, rows):
        moves.append(rows)
        if len(moves) == 3:
            torch.empty(2**60)
        select(edits, rows)

    monkeypatch.setattr(RowEdits, "select", refusing)
    assert_as_serial(serial, list(generate_grid(lm, REQUESTS, max_new_tokens=TOKENS)))
    assert len(moves) > 3


class TestPacking:
    """Packed weights are another copy of them all, so that is where memory runs out first."""

    @pytest.fixture
    def refusals(self, monkeypatch) -> list[torch.Tensor]:
        """The weights that were to be packed: from the third one on there is no room."""
        given = []
        pack = packed._packed

        def refusing(weight):
            given.append(weight)
            return pack(weight if len(given) < 3 else torch.empty(2**60))

        monkeypatch.setattr(memory, "PACKED_FROM", 1)
        monkeypatch.setattr(packed, "_packed", refusing)
        return given

    @pytest.fixture
    def lm(self):
        lm = tiny_language_model("llama", eos_ids=FREQUENT_EOS)
        if not memory.Budget(10**9).packs(lm):
            pytest.skip("this build of PyTorch packs no weights")
        return lm

    def test_texts_are_made_by_plain_layers(self, lm, refusals):
        before = fingerprint(lm)
        serial = [generate_serial(lm, row, max_new_tokens=TOKENS) for row in REQUESTS]
        assert_as_serial(serial, list(generate_grid(lm, REQUESTS, max_new_tokens=TOKENS)))
        assert len(refusals) == 3
        assert fingerprint(lm) == before

    def test_and_so_are_perplexities(self, lm, refusals, monkeypatch):
        corpus = tokenise(TEXT, lm, PerplexityProtocol("", window=50))
        observed = dict(perplexity_grid(lm, corpus, CELLS))
        assert len(refusals) == 3
        monkeypatch.undo()
        for cell, nll in perplexity_grid(lm, corpus, CELLS):
            np.testing.assert_allclose(observed[cell], nll, atol=1e-5)

    def test_another_failure_is_not_hidden(self, lm, monkeypatch):
        monkeypatch.setattr(memory, "PACKED_FROM", 1)
        monkeypatch.setattr(packed, "_packed", lambda weight: weight @ weight.new_zeros(1, 1))
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            list(generate_grid(lm, REQUESTS, max_new_tokens=1))
