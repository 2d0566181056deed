import math

import pytest
import torch
from edits_by_hand import PATCHED, every_kind, patch, steered_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOCKS, SLIDING_WINDOW, add, fingerprint

from steer_eval.evaluation.row_cache import new_cache
from steer_eval.evaluation.shared_pass import SharedPass, entry_layer
from steer_eval.steering.interventions import Patch
from steer_eval.steering.row_edits import RowEdits

IDS = [31, 7, 200, 13, 54, 9, 120, 77, 6, 40, 41]
assert len(IDS) > SLIDING_WINDOW
PROMPT = 4
additions = st.builds(add, st.integers(0, BLOCKS - 1), st.floats(-3, 3, width=32), seed=st.integers(0, 3))
KINDS = [*every_kind().values()]
UNPATCHED = [row for row in KINDS if not any(isinstance(edit, Patch) for edit in row)]


def alone(lm, ids, prompt, intervention):
    """The row in a pass of its own, and its logits after one more token."""
    row_edits = RowEdits.of(lm, [intervention])
    cache = new_cache(lm)
    with torch.no_grad(), row_edits.applied(lm.blocks, prompt=prompt):
        hidden = lm.final_hidden(torch.tensor([ids]), cache=cache)
        return hidden[0], lm.final_hidden(torch.tensor([[5]]), cache=cache)[0]


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_and_their_caches_are_those_of_passes_of_their_own(tiny, data):
    ids = IDS[: data.draw(st.integers(1, len(IDS)))]
    prompt = data.draw(st.integers(0, len(ids)))
    kinds = st.sampled_from(KINDS if prompt > max(PATCHED) else UNPATCHED)
    rows = data.draw(st.lists(st.one_of(st.lists(additions, max_size=3).map(tuple), kinds), min_size=1, max_size=5))
    rows.sort(key=entry_layer)
    below = SharedPass(tiny, ids, {entry_layer(row) for row in rows}, prompt=prompt, cached=True)
    result = below.rows(rows)
    assert result.hidden.shape == (len(rows), len(ids), tiny.hidden_size)
    with torch.no_grad(), RowEdits.of(tiny, rows).applied(tiny.blocks, prompt=0):
        further = tiny.final_hidden(torch.full((len(rows), 1), 5), cache=result.cache)
    for position, row in enumerate(rows):
        hidden, after = alone(tiny, ids, prompt, row)
        torch.testing.assert_close(result.hidden[position], hidden, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(further[position], after, atol=2e-4, rtol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("prompt", [3, PROMPT, len(IDS)])
def test_rows_are_those_of_edits_by_hand(tiny, prompt):
    rows = sorted(every_kind().values(), key=entry_layer)
    below = SharedPass(tiny, IDS, {entry_layer(row) for row in rows}, prompt=prompt, cached=False)
    for row, observed in zip(rows, below.rows(rows).hidden, strict=True):
        with steered_by_hand(tiny, row, prompt=prompt):
            expected = tiny.final_hidden(torch.tensor([IDS]))[0]
        torch.testing.assert_close(observed, expected, atol=5e-4, rtol=5e-4)


def test_a_patch_beyond_the_prompt_is_refused(tiny):
    below = SharedPass(tiny, IDS, {1}, prompt=2, cached=False)
    with pytest.raises(ValueError, match="a patch of token 2, counted from 0, of a prompt with 2 tokens"):
        below.rows([(patch(1),)])


@pytest.mark.parametrize(
    "rows",
    [
        [(add(2, 1.0),), (add(1, 1.0),)],
        [(), (add(1, 1.0),)],
        [(add(1, 1.0),), (), (add(2, 1.0),)],
        [(add(1, 1.0),), (add(2, 1.0),), (add(1, -1.0),)],
    ],
)
def test_rows_in_another_order_than_they_join_are_refused(tiny, rows):
    """They would get each other's edits or states, and look like any other rows."""
    below = SharedPass(tiny, IDS, {1, 2, math.inf}, prompt=PROMPT, cached=True)
    with pytest.raises(ValueError, match="must stand in rising order"):
        below.rows(rows)


def test_a_row_that_joins_where_none_was_to_is_refused(tiny):
    below = SharedPass(tiny, IDS, {1, 2}, prompt=PROMPT, cached=True)
    with pytest.raises(ValueError, match=r"rows that join at \[1, 3\] in a pass that was made for \[1, 2\]"):
        below.rows([(add(1, 1.0),), (add(3, 1.0),)])


def test_the_unsteered_pass_can_be_used_again_and_again(tiny):
    rows = [(add(0, 1.0),), (add(2, 1.0),), ()]
    below = SharedPass(tiny, IDS, {entry_layer(row) for row in rows}, prompt=PROMPT, cached=True)
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
    below = SharedPass(tiny, IDS, {entry_layer(row) for row in rows}, prompt=PROMPT, cached=False)
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
    below = SharedPass(tiny, IDS, {1}, prompt=PROMPT, cached=False)
    assert below.rows([(add(1, 1.0),), ()]).cache is None
    assert below.rows([()]).cache is None


def test_a_layer_that_is_not_there_is_an_error_and_leaves_nothing(tiny):
    before = fingerprint(tiny)
    with pytest.raises(IndexError):
        SharedPass(tiny, IDS, {BLOCKS}, prompt=PROMPT, cached=False)
    below = SharedPass(tiny, IDS, {1}, prompt=PROMPT, cached=False)
    with pytest.raises(IndexError):
        below.rows([(add(1, 1.0), add(BLOCKS, 1.0))])
    assert fingerprint(tiny) == before
