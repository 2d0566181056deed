"""The engine's edits against edits by hand (`edits_by_hand.py`), which share nothing with it."""

from __future__ import annotations

import pytest
import torch
from edits_by_hand import SAE, adding, clamp, every_kind, patch, rotate, text_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from some_saes import random_sae
from steering.edited_rows import LAYER, edited, edits_of, residuals
from tiny_models import BLOCKS, HIDDEN, add, fingerprint, random_vector, tiny_language_model
from torch import nn

from steer_eval.steering.hooks import captured, residual
from steer_eval.steering.interventions import Add, ClampFeatures, Patch, Rotate
from steer_eval.steering.row_edits import RowEdits

POSITIONS = ("prompt", "generated", "all")


class TestAgainstEditsByHand:
    @pytest.mark.parametrize("positions", POSITIONS)
    @pytest.mark.parametrize(
        "make",
        [
            lambda positions: adding(LAYER, 2.0, positions),
            lambda positions: rotate(LAYER, -1.5, positions),
            lambda positions: clamp(LAYER, 0.0, 4.0, 2.0, positions=positions, sink_norm=5.6),
        ],
        ids=["add", "rotate", "clamp"],
    )
    def test_each_kind_at_each_kind_of_position(self, make, positions):
        edit, hidden, prompt = make(positions), residuals(1, 7)[0], 4
        observed = edited((edit,), hidden, prompt=prompt)
        expected = text_by_hand((edit,), LAYER, hidden, prompt=prompt)
        torch.testing.assert_close(observed.double(), expected, rtol=1e-5, atol=1e-5)
        changed = [not torch.equal(observed[token], hidden[token]) for token in range(7)]
        reached = {"prompt": [True] * 4 + [False] * 3, "generated": [False] * 4 + [True] * 3, "all": [True] * 7}
        if not isinstance(edit, ClampFeatures):
            assert changed == reached[positions]
        assert any(changed)
        assert not any(now and not may for now, may in zip(changed, reached[positions], strict=True))

    def test_a_patch_replaces_its_tokens_and_no_other(self):
        edit, hidden = patch(LAYER), residuals(1, 5)[0]
        observed = edited((edit,), hidden, prompt=4)
        assert torch.equal(observed[[0, 2]], edit.residuals)
        assert torch.equal(observed[[1, 3, 4]], hidden[[1, 3, 4]])

    def test_a_patch_knows_tokens_by_their_place_in_the_text(self):
        """The prompt may be read in stretches."""
        edit, hidden = patch(LAYER), residuals(1, 5)[0]
        stretches = [edited((edit,), hidden[:1], start=0), edited((edit,), hidden[1:], start=1)]
        assert torch.equal(torch.cat(stretches), edited((edit,), hidden))
        assert not torch.equal(stretches[1], hidden[1:])

    @pytest.mark.parametrize(("start", "tokens", "prompt"), [(0, 5, 2), (0, 5, 0), (2, 1, 0), (0, 1, 0)])
    def test_a_generated_token_is_never_patched(self, start, tokens, prompt):
        """Not even one that stands where a token is to be patched."""
        everywhere = Patch(LAYER, torch.ones(5, HIDDEN), tuple(range(5)))
        hidden = residuals(1, tokens)[0]
        observed = edited((everywhere,), hidden, start=start, prompt=prompt)
        assert torch.equal(observed[prompt:], hidden[prompt:])
        assert bool((observed[:prompt] == 1).all())

    @pytest.mark.parametrize("name", every_kind())
    def test_every_intervention_of_the_tests(self, name):
        row, hidden = every_kind(sink_norm=5.6)[name], residuals(1, 6)[0]
        for layer in range(4):
            observed = edited(row, hidden, layer=layer, prompt=3)
            expected = text_by_hand(row, layer, hidden, prompt=3)
            torch.testing.assert_close(observed.double(), expected, rtol=1e-4, atol=1e-4)

    def test_other_layers_are_given_back_as_they_are(self):
        hidden = residuals(1, 3)
        edits = edits_of((add(LAYER, 1.0),))
        assert edits.layers == [LAYER]
        assert edits.edited(0, hidden, start=0, prompt=3) is hidden


class TestTheOrderOfEdits:
    def test_it_matters_and_is_kept(self):
        hidden = residuals(1, 3)[0]
        push, turn, hold = add(LAYER, 2.0), rotate(LAYER, 2.0), clamp(LAYER, 3.0, 0.0)
        orders = [(push, turn, hold), (turn, push, hold), (hold, turn, push), (push, hold, turn)]
        found = [edited(order, hidden) for order in orders]
        for order, observed in zip(orders, found, strict=True):
            expected = text_by_hand(order, LAYER, hidden, prompt=3)
            torch.testing.assert_close(observed.double(), expected, rtol=1e-4, atol=1e-4)
        for index, one in enumerate(found):
            assert not any(torch.allclose(one, other, atol=1e-2) for other in found[:index])

    def test_the_last_patch_wins_and_what_follows_a_patch_acts_on_it(self):
        hidden, one, other = residuals(1, 3)[0], patch(LAYER), Patch(LAYER, torch.zeros(1, HIDDEN), (2,))
        assert torch.equal(edited((one, other), hidden)[2], torch.zeros(HIDDEN))
        assert torch.equal(edited((other, one), hidden)[2], one.residuals[1])
        push = add(LAYER, 1.0)
        assert torch.equal(edited((push, other), hidden)[2], torch.zeros(HIDDEN))
        assert torch.equal(edited((other, push), hidden)[2], push.vector)

    def test_additions_add_up_whatever_stands_between_them_at_other_layers(self):
        hidden = residuals(1, 3)[0]
        row = (add(LAYER, 1.0), rotate(0, 1.0), add(LAYER, 2.0, seed=1))
        expected = hidden + row[0].delta() + row[2].delta()
        torch.testing.assert_close(edited(row, hidden), expected, rtol=1e-6, atol=1e-6)


IDS = torch.arange(5, 5 + 3 * 21).reshape(3, 21)


@torch.no_grad()
def logits(lm, ids=IDS):
    return lm.module(input_ids=ids, use_cache=False).logits


class TestApplied:
    @torch.no_grad()
    @pytest.mark.parametrize("layer", range(BLOCKS))
    def test_each_row_gets_its_own_edit_at_the_output_of_the_block(self, tiny, layer):
        before = fingerprint(tiny)
        rows = [(add(layer, 1.0),), (), (rotate(layer, -2.0),)]
        with captured(tiny.blocks, [layer], stop=False) as plain:
            logits(tiny)
        with (
            RowEdits.of(tiny, rows).applied(tiny.blocks, prompt=21),
            captured(tiny.blocks, [layer], stop=False) as steered,
        ):
            logits(tiny)
        for index, row in enumerate(rows):
            expected = text_by_hand(row, layer, residual(plain[layer])[index], prompt=21)
            torch.testing.assert_close(residual(steered[layer])[index].double(), expected, rtol=1e-5, atol=1e-5)
        assert fingerprint(tiny) == before

    def test_a_row_without_edits_is_the_unsteered_model_and_the_others_are_not(self, tiny):
        plain = logits(tiny)
        with RowEdits.of(tiny, [(add(1, 1.0),), (), (rotate(1, 2.0),)]).applied(tiny.blocks, prompt=0):
            steered = logits(tiny)
        assert torch.equal(steered[1], plain[1])
        assert not torch.allclose(steered[0], plain[0], atol=0.1)
        assert not torch.allclose(steered[2], plain[2], atol=0.1)

    def test_select_follows_the_rows_that_stay(self, tiny):
        edits = RowEdits.of(tiny, [(add(1, 1.0),), (rotate(1, 2.0),), (clamp(1, 4.0), add(2, 1.0))])
        with edits.applied(tiny.blocks, prompt=0):
            before = logits(tiny)
        edits.select([2, 0])
        with edits.applied(tiny.blocks, prompt=0):
            after = logits(tiny, IDS[[2, 0]])
        torch.testing.assert_close(after, before[[2, 0]], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("stretches", [[21], [1] * 21, [4, 17], [10, 1, 10]], ids=str)
    def test_the_prompt_ends_where_it_ends_however_the_tokens_come(self, stretches):
        blocks = nn.ModuleList([nn.Identity(), nn.Identity()])
        rows = [(adding(1, 1.0, "prompt"), patch(0)), (rotate(1, 2.0, "generated"),)]
        hidden = residuals(2, 21)
        with RowEdits(rows, hidden_size=HIDDEN).applied(blocks, prompt=11):
            observed = torch.cat([blocks[1](blocks[0](part)) for part in hidden.split(stretches, dim=1)], dim=1)
        for index, row in enumerate(rows):
            expected = text_by_hand(row, 1, text_by_hand(row, 0, hidden[index], prompt=11), prompt=11)
            torch.testing.assert_close(observed[index].double(), expected, rtol=1e-5, atol=1e-5)

    def test_hooks_go_when_the_pass_fails(self, tiny):
        before = fingerprint(tiny)
        with pytest.raises(IndexError), RowEdits.of(tiny, [(add(1, 1.0),)]).applied(tiny.blocks, prompt=0):
            logits(tiny, torch.tensor([[10**6]]))
        assert fingerprint(tiny) == before

    def test_hooks_go_when_a_layer_does_not_exist(self, tiny):
        before = fingerprint(tiny)
        edits = RowEdits.of(tiny, [(add(0, 1.0), add(BLOCKS, 1.0))])
        with pytest.raises(IndexError), edits.applied(tiny.blocks, prompt=0):
            pass
        assert fingerprint(tiny) == before

    def test_the_model_computes_in_its_own_precision(self):
        lm = tiny_language_model("llama")
        lm.module.to(torch.bfloat16)
        rows = [(add(0, 1.0), clamp(1, 3.0)), (rotate(2, 1.0),), (patch(3),)]
        with RowEdits.of(lm, rows).applied(lm.blocks, prompt=21):
            assert logits(lm).dtype == torch.bfloat16


numbers = st.floats(-3, 3, width=32)
vectors = st.integers(0, 9).map(random_vector)
positions = st.sampled_from(POSITIONS)
layers = st.integers(0, 1)
saes = st.sampled_from([SAE, random_sae(HIDDEN, 64, 3, seed=1)])


@st.composite
def clamps(draw):
    sae = draw(saes)
    features = tuple(draw(st.lists(st.integers(0, sae.d_sae - 1), max_size=4, unique=True)))
    values = torch.tensor([draw(st.floats(0, 9, width=32)) for _ in features])
    return ClampFeatures(draw(layers), sae, features, values, draw(st.sampled_from([5.6, 1e9])), draw(positions))


@st.composite
def patches(draw):
    at = tuple(sorted(draw(st.sets(st.integers(0, 2), max_size=3))))
    return Patch(draw(layers), residuals(1, len(at), draw(st.integers(100, 109)))[0], at)


any_edits = st.one_of(
    st.builds(Add, layers, vectors, numbers, positions),
    st.builds(Rotate, layers, vectors, numbers, positions),
    clamps(),
    patches(),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_of_a_batch_is_what_it_is_alone(data):
    """Whatever the mixture, whichever rows leave, and in whatever order the others then stand."""
    rows = data.draw(st.lists(st.lists(any_edits, max_size=4).map(tuple), min_size=1, max_size=5))
    edits = edits_of(*rows)
    prompt = start = data.draw(st.integers(3, 5))
    check(edits, rows, tokens=prompt, start=0, prompt=prompt, data=data)
    for _ in range(2):
        order = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(0, len(rows)))]
        rows = [rows[place] for place in order]
        edits.select(order)
        check(edits, rows, tokens=1, start=start, prompt=0, data=data)
        assert edits.layers == sorted({edit.layer for row in rows for edit in row})
        start += 1


def check(edits, rows, *, tokens, start, prompt, data) -> None:
    """All rows, and then some neighbours of the batch by themselves, as they join a pass."""
    hidden = residuals(len(rows), tokens, data.draw(st.integers(0, 99)))
    first = data.draw(st.integers(0, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    for layer in (0, 1):
        untouched = hidden.clone()
        observed = edits.edited(layer, hidden, start=start, prompt=prompt)
        some = edits.edited(layer, hidden[first:last], start=start, prompt=prompt, first_row=first)
        assert torch.equal(hidden, untouched)
        torch.testing.assert_close(some, observed[first:last], rtol=1e-4, atol=1e-4)
        for place, row in enumerate(rows):
            alone = edited(row, hidden[place], layer=layer, start=start, prompt=prompt)
            by_itself = text_by_hand(row, layer, hidden[place], prompt=start + prompt, start=start)
            torch.testing.assert_close(observed[place], alone, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(observed[place].double(), by_itself, rtol=1e-3, atol=1e-3)


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        "edit",
        [
            Add(LAYER, torch.ones(1), 1.0),
            Add(LAYER, torch.ones(1, HIDDEN), 1.0),
            Rotate(LAYER, torch.ones(HIDDEN + 1), 1.0),
            Patch(LAYER, torch.ones(2, 1), (0, 1)),
            ClampFeatures(LAYER, random_sae(7, 9, 2), (1,), torch.ones(1)),
        ],
        ids=lambda edit: type(edit).__name__,
    )
    def test_another_width_is_refused_and_never_broadcast(self, edit):
        with pytest.raises(ValueError, match=rf"row 1: {type(edit).__name__} at layer 1 .* 48 wide"):
            edits_of((), (edit,))

    @pytest.mark.parametrize("row", [(add(LAYER, 1.0),), (rotate(LAYER, 1.0),), ()], ids=["add", "rotate", "none"])
    def test_more_rows_than_the_batch_has_are_refused(self, row):
        with pytest.raises(ValueError, match="2 rows from row 0 on in a batch of 1"):
            edits_of(row).edited(LAYER, residuals(2, 1), start=0, prompt=0)
