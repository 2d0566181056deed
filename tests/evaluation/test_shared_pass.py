import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOCKS, SLIDING_WINDOW, add, fingerprint

from steer_eval.evaluation.row_cache import new_cache
from steer_eval.evaluation.shared_pass import SharedPass, entry_layer
from steer_eval.steering.hooks import RowEdits
from steer_eval.steering.interventions import row_deltas

IDS = [31, 7, 200, 13, 54, 9, 120, 77, 6, 40, 41]
assert len(IDS) > SLIDING_WINDOW
edits = st.builds(add, st.integers(0, BLOCKS - 1), st.floats(-3, 3, width=32), seed=st.integers(0, 3))


def alone(lm, ids, intervention):
    """The row in a pass of its own, and its logits after one more token."""
    row_edits = RowEdits(row_deltas([intervention], hidden_size=lm.hidden_size))
    cache = new_cache(lm)
    with torch.no_grad(), row_edits.applied(lm.blocks):
        hidden = lm.final_hidden(torch.tensor([ids]), cache=cache)
        return hidden[0], lm.final_hidden(torch.tensor([[5]]), cache=cache)[0]


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_rows_and_their_caches_are_those_of_passes_of_their_own(tiny, data):
    rows = data.draw(st.lists(st.lists(edits, max_size=3).map(tuple), min_size=1, max_size=5))
    rows.sort(key=entry_layer)
    ids = IDS[: data.draw(st.integers(1, len(IDS)))]
    below = SharedPass(tiny, ids, {entry_layer(row) for row in rows}, cached=True)
    result = below.rows(rows)
    assert result.hidden.shape == (len(rows), len(ids), tiny.hidden_size)
    row_edits = RowEdits(row_deltas(rows, hidden_size=tiny.hidden_size))
    with torch.no_grad(), row_edits.applied(tiny.blocks):
        further = tiny.final_hidden(torch.full((len(rows), 1), 5), cache=result.cache)
    for position, row in enumerate(rows):
        hidden, after = alone(tiny, ids, row)
        torch.testing.assert_close(result.hidden[position], hidden, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(further[position], after, atol=2e-4, rtol=2e-4)


def test_the_unsteered_pass_can_be_used_again_and_again(tiny):
    rows = [(add(0, 1.0),), (add(2, 1.0),), ()]
    below = SharedPass(tiny, IDS, {entry_layer(row) for row in rows}, cached=True)
    first, second = below.rows(rows), below.rows(rows)
    with torch.no_grad():
        tiny.final_hidden(torch.full((3, 1), 5), cache=first.cache)
    third = below.rows(rows)
    for other in (second, third):
        assert torch.equal(first.hidden, other.hidden)
    for mine, theirs in zip(second.cache.layers, third.cache.layers, strict=True):
        for states in ("keys", "values"):
            if hasattr(mine, states):
                assert torch.equal(getattr(mine, states), getattr(theirs, states))


def test_a_block_runs_for_the_rows_that_are_steered_below_it(tiny):
    rows = [(add(0, 1.0),), (add(1, 1.0),), (add(1, 2.0),), (add(BLOCKS - 1, 1.0),), ()]
    below = SharedPass(tiny, IDS, {entry_layer(row) for row in rows}, cached=False)
    seen = {}
    handles = [
        block.register_forward_pre_hook(lambda _block, inputs, layer=layer: seen.update({layer: len(inputs[0])}))
        for layer, block in enumerate(tiny.blocks)
    ]
    before = fingerprint(tiny)
    below.rows(rows)
    assert fingerprint(tiny) == before
    for handle in handles:
        handle.remove()
    assert seen == {1: 1, 2: 3, 3: 3}


def test_without_a_cache_there_is_none(tiny):
    below = SharedPass(tiny, IDS, {1}, cached=False)
    assert below.rows([(add(1, 1.0),), ()]).cache is None
    assert below.rows([()]).cache is None


def test_a_layer_that_is_not_there_is_an_error_and_leaves_nothing(tiny):
    before = fingerprint(tiny)
    with pytest.raises(IndexError):
        SharedPass(tiny, IDS, {BLOCKS}, cached=False)
    below = SharedPass(tiny, IDS, {1}, cached=False)
    with pytest.raises(IndexError):
        below.rows([(add(1, 1.0), add(BLOCKS, 1.0))])
    assert fingerprint(tiny) == before
