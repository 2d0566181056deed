import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny_models import HIDDEN, add, tiny_config, tiny_language_model, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation import memory as memory_module
from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.evaluation.free_memory import free_bytes
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.memory import (
    MOST_ROWS,
    PASS_TOKENS,
    Budget,
    out_of_memory,
    smaller,
)
from steer_eval.evaluation.row_cache import new_cache
from steer_eval.evaluation.token_bytes import activation_bytes
from steer_eval.extract import extract_caa
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Add

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
    decoding = [Budget(size).decoding(lm, cache, read=4, tokens=100) for size in sizes]
    rows, pass_tokens = [each.rows for each in decoding], [each.pass_tokens for each in decoding]
    read = [Budget(size).pass_rows(lm, 64) for size in sizes]
    assert rows == sorted(rows)
    assert read == sorted(read)
    assert pass_tokens == sorted(pass_tokens)
    assert (rows[0], rows[-1]) == (1, MOST_ROWS)
    assert (pass_tokens[0], pass_tokens[-1]) == (4, PASS_TOKENS)
    assert decoding[-1].rows_of(64) == PASS_TOKENS // 64
    assert decoding[0].rows_of(64) == 1
    assert (read[0], read[-1]) == (1, PASS_TOKENS // 64)
    longer = Budget(2**24).decoding(lm, cache, read=4, tokens=1000).rows
    assert longer < Budget(2**24).decoding(lm, cache, read=4, tokens=100).rows


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


class LiveTensors(TorchDispatchMode):
    """Follows the memory of all tensors that operators return, by their storages, as long as a tensor uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._users: Counter[int] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self._follow(tensor)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not self._users[place]:
            self._now += size
            self.most = max(self.most, self._now)
        self._users[place] += 1
        weakref.finalize(tensor, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            self._now -= size


@pytest.fixture(scope="module")
def key_heavy() -> LanguageModel:
    """A model whose caches are large beside all else, as those of long texts are."""
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel(LlamaForCausalLM(config).eval(), tiny_tokenizer())


@pytest.mark.parametrize("limit", [12 * 10**6, 40 * 10**6])
def test_reading_and_decoding_stay_within_the_budget(key_heavy, limit):
    requests = [Request(tuple(range(5, 105)), (Add(1, torch.ones(32), row / 24),)) for row in range(24)]
    with LiveTensors() as live:
        assert len(list(generate_grid(key_heavy, requests, max_new_tokens=3, memory=limit))) == 24
    assert 0.4 * limit < live.most <= limit


def many_windows(count: int, tokens: int) -> TokenisedCorpus:
    ids = torch.randint(5, 300, (count, tokens), generator=torch.Generator().manual_seed(0)).tolist()
    nobody = np.zeros(tokens - 1, dtype=np.int64)
    return TokenisedCorpus(tuple(Window((), tuple(each), nobody) for each in ids), 1)


def test_perplexity_of_a_long_corpus_stays_within_the_budget():
    lm, corpus, limit = tiny_language_model("llama"), many_windows(20, 128), 2 * 10**6
    assert 5 * corpus.scored_tokens * HIDDEN * 4 > limit
    with LiveTensors() as live:
        bounded = dict(perplexity_grid(lm, corpus, CELLS, memory=limit))
    assert 0.3 * limit < live.most <= limit
    whole = dict(perplexity_grid(lm, corpus, CELLS, memory=10**9))
    for cell, nll in whole.items():
        assert bounded[cell] == pytest.approx(nll, abs=1e-4)


def test_extraction_stays_within_the_budget(key_heavy):
    pairs = [ContrastPair("Why?", "the dogs " * 12, "the road " * 12) for _ in range(24)]
    limit = 16 * 10**6
    with LiveTensors() as live:
        extract_caa(key_heavy, pairs, range(8), memory=limit)
    assert 0.3 * limit < live.most <= limit


def test_a_budget_that_one_row_exceeds_is_said_once(monkeypatch, capsys):
    lm = tiny_language_model("llama")
    monkeypatch.setattr(memory_module, "_said", set())
    list(generate_grid(lm, REQUESTS, max_new_tokens=2, memory=1000))
    list(perplexity_grid(lm, corpus(), CELLS, memory=1000))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("note: the memory budget of 1e-06 GB is exceeded") == 1
    list(perplexity_grid(lm, corpus(), CELLS, memory=10**9))
    assert capsys.readouterr().err == ""


def test_experts_and_scores_of_attention_count():
    shared = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    few, many = (
        LanguageModel(MixtralForCausalLM(MixtralConfig(**shared, **heads, num_experts_per_tok=count)), None)
        for count in (1, 3)
    )
    assert activation_bytes(many, 10) - activation_bytes(few, 10) == 2 * 4 * (3 * 32 + 4 * 64)
    config = tiny_config("llama")
    config._attn_implementation = "eager"
    eager, fused = LanguageModel(LlamaForCausalLM(config), None), tiny_language_model("llama")
    assert activation_bytes(fused, 1000) == activation_bytes(fused, 10)
    assert activation_bytes(eager, 1000) - activation_bytes(fused, 1000) == 4 * 3 * 4 * 1000


def test_the_grid_of_the_packaged_study_decodes_together():
    """35 cells on 10 prompts, 80 tokens long, at 8 GB: 350 rows, and passes as long as passes get."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    with torch.device("meta"):
        lm = LanguageModel(LlamaForCausalLM(config), None)
    cache = new_cache(lm)
    for layer in range(30):
        cache.update(torch.zeros(1, 3, 60, 64), torch.zeros(1, 3, 60, 64), layer)
    decoding = Budget(8 * 10**9 - 4 * 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)).decoding(
        lm, cache, read=60, tokens=140
    )
    assert decoding.rows >= 350
    assert decoding.pass_tokens == PASS_TOKENS
