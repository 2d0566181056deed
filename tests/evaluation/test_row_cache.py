import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from more_models import MORE, another_language_model
from tiny_models import SLIDING_WINDOW, tiny_language_model

from steer_eval.evaluation.decode_attention import decode_attention
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.probe import check_served
from steer_eval.evaluation.row_cache import RowCache, can_join, new_cache, state_bytes

LONGEST = 16


@pytest.fixture(scope="module", params=["llama", "gpt2", "granite", "qwen3_5", "gemma3", "mistral", "falcon_h1"])
def joining(request):
    """Of every kind of cache; windows slide in two of them, before half of `LONGEST`."""
    name = request.param
    return another_language_model(name, initializer_range=0.3) if name in MORE else tiny_language_model(name)


@pytest.fixture
def eager():
    """A model whose windows slide, and whose attention is not the one that `decode_attention` stands for."""
    return another_language_model("mistral", attention="eager")


def prompt(length: int) -> torch.Tensor:
    return torch.randint(4, 250, (1, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def read(lm, ids):
    cache = new_cache(lm)
    lm.final_hidden(ids, cache=cache)
    return cache


def test_rows_of_different_lengths_join(joining):
    assert can_join(joining, longest=SLIDING_WINDOW)
    assert can_join(joining, longest=SLIDING_WINDOW + 1)


def test_without_our_attention_they_join_unless_a_window_slides(eager):
    assert can_join(eager, longest=SLIDING_WINDOW)
    assert not can_join(eager, longest=SLIDING_WINDOW + 1)


def test_chunks_of_a_text_are_no_window_that_slides():
    chunked = another_language_model(
        "llama4_text", attention_chunk_size=SLIDING_WINDOW, num_local_experts=2, intermediate_size_mlp=96, head_dim=12
    )
    assert can_join(chunked, longest=SLIDING_WINDOW)
    assert not can_join(chunked, longest=SLIDING_WINDOW + 1)


def test_outside_our_attention_rows_whose_windows_slide_are_refused():
    lm = tiny_language_model("gemma3")
    cache = RowCache(lm, rows=2, tokens=LONGEST)
    for length in (3, 10):
        cache.append(read(lm, prompt(length)), rows=1, tokens=length)
    with pytest.raises(RuntimeError, match="decode_attention"):
        cache.arguments()


def test_a_ring_has_the_places_of_its_window():
    lm = tiny_language_model("gemma3")
    cache = RowCache(lm, rows=3, tokens=LONGEST)
    cache.append(read(lm, prompt(10)), rows=1, tokens=10)
    ring, whole = cache.arguments()["cache"].layers[:2]
    assert (ring.keys.shape[:1], ring.keys.shape[2]) == ((3,), SLIDING_WINDOW)
    assert (whole.keys.shape[:1], whole.keys.shape[2]) == ((3,), LONGEST)


class Alone:
    """A row with a cache of its own, which is what a row of the batch must be like."""

    def __init__(self, lm, length: int) -> None:
        self.lm, self.length = lm, length
        self.cache = read(lm, prompt(length))
        self.token = length

    @torch.no_grad()
    def step(self) -> torch.Tensor:
        self.length += 1
        return self.lm.final_hidden(torch.tensor([[self.token]]), cache=self.cache)[0, -1]


@torch.no_grad()
def decode(lm, cache, rows: list[Alone]) -> None:
    with decode_attention(lm.module):
        together = lm.final_hidden(torch.tensor([[row.token] for row in rows]), **cache.arguments())[:, -1]
    for position, row in enumerate(rows):
        torch.testing.assert_close(together[position], row.step(), atol=2e-4, rtol=2e-4)
        row.token = (row.token * 7 + row.length) % 250


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_row_decodes_as_it_would_alone_whoever_comes_and_goes(joining, data):
    cache = RowCache(joining, rows=5, tokens=LONGEST)
    rows: list[Alone] = []
    for _ in range(data.draw(st.integers(2, 7))):
        if len(rows) < 5 and (not rows or data.draw(st.booleans())):
            length, count = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5 - len(rows)))
            same = read(joining, prompt(length))
            same.reorder_cache(torch.zeros(count, dtype=torch.long))
            cache.append(same, rows=count, tokens=length)
            rows += [Alone(joining, length) for _ in range(count)]
            for row in rows[-count:]:
                row.token = data.draw(st.integers(4, 250))
        decode(joining, cache, rows)
        staying = [
            place for place, row in enumerate(rows) if row.length < LONGEST - 1 and data.draw(st.integers(0, 3)) > 0
        ]
        order = cache.keep(staying)
        assert sorted(order) == staying
        rows = [rows[place] for place in order]
        assert len(cache) == len(rows)


def test_rows_of_one_length_need_no_mask(joining):
    cache = RowCache(joining, rows=4, tokens=LONGEST)
    cache.append(read(joining, torch.cat([prompt(5), prompt(5)])), rows=2, tokens=5)
    assert set(cache.arguments()) == {"cache", "position_ids"}


def test_few_rows_move_when_one_leaves(joining):
    cache = RowCache(joining, rows=6, tokens=LONGEST)
    cache.append(read(joining, prompt(5).expand(6, -1)), rows=6, tokens=5)
    assert cache.keep([0, 2, 3, 4, 5]) == [0, 5, 2, 3, 4]
    assert cache.keep([0, 1, 2, 3]) == [0, 1, 2, 3]
    assert cache.keep([3]) == [3]
    assert cache.keep([]) == []


def test_memory_of_a_cache_is_that_of_its_tensors():
    llama, hybrid = tiny_language_model("llama"), tiny_language_model("qwen3_5")
    assert state_bytes(read(llama, prompt(6))) == (2 * state_bytes(read(llama, prompt(3)))[0], 0)
    assert (
        state_bytes(read(llama, prompt(1)))[0] == 4 * 2 * 4 * llama.module.model.layers[0].self_attn.k_proj.out_features
    )
    growing, fixed = state_bytes(read(hybrid, prompt(6)))
    assert state_bytes(read(hybrid, prompt(12))) == (2 * growing, fixed)
    assert fixed > 0


@pytest.mark.parametrize("longest", [3, 9])
def test_rows_share_decoding_steps(joining, longest):
    assert decoding_steps(joining, longest) == [4, 4]


@pytest.mark.parametrize(("longest", "steps"), [(3, [4, 4]), (9, [2, 2, 1, 1, 1, 1])])
def test_rows_of_one_length_share_them_where_others_can_not(eager, longest, steps):
    assert decoding_steps(eager, longest) == steps


def decoding_steps(lm, longest: int) -> list[int]:
    """How many rows each step has that decodes prompts of three lengths."""
    lengths = (2, 2, longest - 1, longest)
    shapes = []
    check_served(lm)  # Its own passes are none of these.
    handle = lm.blocks[0].register_forward_pre_hook(lambda _module, inputs: shapes.append(tuple(inputs[0].shape[:2])))
    requests = [Request(tuple(prompt(length)[0].tolist()), ()) for length in lengths]
    assert len(list(generate_grid(lm, requests, max_new_tokens=3))) == len(requests)
    handle.remove()
    return [rows for rows, tokens in shapes if tokens == 1]
