from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny_models import add, tiny_language_model

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.memory import (
    MOST_ROWS,
    PASS_TOKENS,
    Budget,
    free_bytes,
    out_of_memory,
    smaller,
)
from steer_eval.evaluation.row_cache import new_cache

REQUESTS = [Request((9, 8, 7, index), (add(index % 4, 1.0),)) for index in range(6)]
CELLS = [(add(layer, float(coefficient)),) for layer in range(4) for coefficient in (1, 2)]


@pytest.fixture(scope="module", params=["llama", "gemma3", "qwen3_5"])
def lm(request):
    return tiny_language_model(request.param)


def corpus() -> TokenisedCorpus:
    ids = tuple(range(20, 44))
    return TokenisedCorpus((Window((), ids, torch.zeros(len(ids) - 1, dtype=torch.long).numpy()),), 1)


@contextmanager
def passes(lm, has_room: Callable[[int, int], bool]) -> Iterator[list[int]]:
    """Let the allocator refuse an impossible request at the end of some of the model's passes.

    Args:
        lm: The model.
        has_room: Whether there is memory for a pass, by its rows and its tokens.

    Yields:
        The rows of the passes that were refused, as they come.
    """
    refused: list[int] = []

    def hook(_module, _inputs, output):
        rows, tokens, _ = output.last_hidden_state.shape
        if not has_room(rows, tokens):
            refused.append(rows)
            torch.empty(2**60)

    handle = getattr(lm.module, lm.module.base_model_prefix).register_forward_hook(hook)
    try:
        yield refused
    finally:
        handle.remove()


def generate(lm):
    return list(generate_grid(lm, REQUESTS, max_new_tokens=2))


def perplexities(lm):
    return list(perplexity_grid(lm, corpus(), CELLS))


def test_texts_are_the_same_when_a_batch_does_not_fit(lm):
    same = [Request(REQUESTS[0].ids, (add(index % 4, 1.0),)) for index in range(6)]
    expected = dict(generate_grid(lm, same, max_new_tokens=4))
    with passes(lm, lambda rows, _: rows <= 1) as refused:
        observed = dict(generate_grid(lm, same, max_new_tokens=4))
    assert refused == [6, 3]
    assert {row: text.ids for row, text in observed.items()} == {row: text.ids for row, text in expected.items()}


def test_rows_that_were_decoding_when_memory_ran_out_are_done_again(lm):
    expected = dict(generate_grid(lm, REQUESTS, max_new_tokens=6))
    decoded: list[int] = []

    def third_is_refused(rows: int, tokens: int) -> bool:
        if tokens == 1:
            decoded.append(rows)
        return tokens > 1 or len(decoded) != 3

    with passes(lm, third_is_refused) as refused:
        observed = list(generate_grid(lm, REQUESTS, max_new_tokens=6))
    assert refused == [6]
    assert max(decoded[3:]) == 3
    assert sorted(row for row, _ in observed) == list(range(6))
    assert {row: text.ids for row, text in observed} == {row: text.ids for row, text in expected.items()}


def test_perplexities_are_the_same_when_a_batch_does_not_fit(lm):
    expected = dict(perplexity_grid(lm, corpus(), CELLS))
    with passes(lm, lambda rows, _: rows <= 3) as refused:
        observed = dict(perplexity_grid(lm, corpus(), CELLS))
    assert refused == [8, 4]
    for cell, nll in expected.items():
        assert observed[cell] == pytest.approx(nll, abs=1e-4)


@pytest.mark.parametrize(("run", "unsteered"), [(generate, 0), (generate, 2), (perplexities, 0), (perplexities, 1)])
def test_a_row_that_does_not_fit_alone_is_an_error(lm, run, unsteered):
    """In the first pass, or after passes of the unsteered model, which come before any row."""
    there_is_room = iter([True] * unsteered)
    with (
        passes(lm, lambda *_: next(there_is_room, False)) as refused,
        pytest.raises(SteerEvalError, match="not enough memory for one row"),
    ):
        run(lm)
    assert refused[-1] == 1


def test_other_errors_are_no_lack_of_memory(lm):
    with pytest.raises(IndexError):
        list(generate_grid(lm, [Request((1, 10**6), ())], max_new_tokens=2))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not out_of_memory(RuntimeError("size mismatch"))
    assert not out_of_memory(ValueError("can't allocate memory"))


def test_a_real_refusal_of_the_allocator_is_recognised():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    assert out_of_memory(refused.value)


def test_more_memory_means_more_rows_up_to_a_bound(lm):
    cache = new_cache(lm)
    lm.final_hidden(torch.tensor([[1, 2, 3, 4]]), cache=cache)
    sizes = [2**shift for shift in range(10, 34, 2)]
    rows = [Budget(size).decoding_rows(lm, cache, read=4, tokens=100) for size in sizes]
    read = [Budget(size).pass_rows(lm, 64) for size in sizes]
    assert rows == sorted(rows)
    assert read == sorted(read)
    assert (rows[0], rows[-1]) == (1, MOST_ROWS)
    assert (read[0], read[-1]) == (1, PASS_TOKENS // 64)
    longer = Budget(2**22).decoding_rows(lm, cache, read=4, tokens=1000)
    assert longer < Budget(2**22).decoding_rows(lm, cache, read=4, tokens=100)


@pytest.mark.parametrize("memory", [1, 10**6, None])
def test_the_budget_changes_no_text(lm, memory):
    expected = dict(generate_grid(lm, REQUESTS, max_new_tokens=5, rows_per_batch=1))
    observed = dict(generate_grid(lm, REQUESTS, max_new_tokens=5, memory=memory))
    assert all(expected[row].agrees_with(text.ids) for row, text in observed.items())


def test_weights_are_packed_only_where_there_is_room(lm):
    assert not Budget(1).packs(lm)
    assert Budget(10**9).packs(lm) is Budget(10**12).packs(lm)


def test_no_memory_is_no_budget(lm):
    with pytest.raises(SteerEvalError, match="memory budget"):
        Budget.of(lm, 0)
    assert 0 < Budget.of(lm, None).limit <= free_bytes(lm.device)
    assert Budget.of(lm, 12345).limit == 12345


def test_one_row_is_not_halved():
    assert [smaller(rows, MemoryError()) for rows in (8, 3, 2)] == [4, 1, 1]
    with pytest.raises(SteerEvalError):
        smaller(1, MemoryError())
