from contextlib import contextmanager

import pytest
import torch
from tiny_models import BLOCKS, HIDDEN, fingerprint, random_vector, tiny_language_model
from torch import nn

from steer_eval.steering.hooks import RowEdits, captured, entered_at, replaced, residual, with_residual

IDS = torch.arange(5, 5 + 3 * 21).reshape(3, 21)


@pytest.fixture(autouse=True)
def untouched(request):
    """Each test that uses the tiny model leaves it as it was."""
    if "tiny" not in request.fixturenames:
        yield
        return
    lm = request.getfixturevalue("tiny")
    before = fingerprint(lm)
    yield
    assert fingerprint(lm) == before


@contextmanager
def counted(module):
    """How often each child module ran, by name."""
    calls: dict[str, int] = {}

    def count(name):
        def hook(_module, _inputs):
            calls[name] = calls.get(name, 0) + 1

        return hook

    handles = [child.register_forward_pre_hook(count(name)) for name, child in module.named_modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def runs_of_blocks(lm, calls) -> list[int]:
    names = {id(child): name for name, child in lm.module.named_modules()}
    return [calls.get(names[id(block)], 0) for block in lm.blocks]


def deltas(layer: int) -> dict[int, torch.Tensor]:
    return {layer: torch.stack([random_vector(1), torch.zeros(HIDDEN), -2 * random_vector(2)])}


@torch.no_grad()
def logits(lm, ids=IDS):
    return lm.module(input_ids=ids, use_cache=False).logits


class TestRowEdits:
    @torch.no_grad()
    @pytest.mark.parametrize("layer", range(BLOCKS))
    def test_each_row_gets_its_own_delta_at_the_output_of_the_block(self, tiny, layer):
        with captured(tiny.blocks, [layer], stop=False) as plain:
            logits(tiny)
        edits = RowEdits(deltas(layer))
        with edits.applied(tiny.blocks), captured(tiny.blocks, [layer], stop=False) as steered:
            logits(tiny)
        expected = residual(plain[layer]) + deltas(layer)[layer][:, None, :]
        assert torch.equal(residual(steered[layer]), expected)

    def test_a_row_of_zeros_is_the_unsteered_model_and_the_others_are_not(self, tiny):
        plain = logits(tiny)
        with RowEdits(deltas(1)).applied(tiny.blocks):
            steered = logits(tiny)
        assert torch.equal(steered[1], plain[1])
        assert not torch.allclose(steered[0], plain[0], atol=0.1)

    def test_select_follows_the_rows_that_stay(self, tiny):
        edits = RowEdits(deltas(1))
        with edits.applied(tiny.blocks):
            before = logits(tiny)
        edits.select(torch.tensor([2, 0]))
        with edits.applied(tiny.blocks):
            after = logits(tiny, IDS[[2, 0]])
        torch.testing.assert_close(after, before[[2, 0]], rtol=1e-4, atol=1e-4)

    def test_hooks_go_when_the_pass_fails(self, tiny):
        with pytest.raises(IndexError), RowEdits(deltas(1)).applied(tiny.blocks):
            logits(tiny, torch.tensor([[10**6]]))

    def test_hooks_go_when_a_layer_does_not_exist(self, tiny):
        edits = RowEdits({0: torch.zeros(1, HIDDEN), BLOCKS: torch.zeros(1, HIDDEN)})
        with pytest.raises(IndexError), edits.applied(tiny.blocks):
            pass

    def test_the_model_computes_in_its_own_precision(self):
        lm = tiny_language_model("llama")
        lm.module.to(torch.bfloat16)
        with RowEdits({0: torch.ones(3, HIDDEN)}).applied(lm.blocks):
            assert logits(lm).dtype == torch.bfloat16


class TestCaptured:
    @torch.no_grad()
    def test_layer_l_is_the_hidden_state_after_block_l(self, tiny):
        with captured(tiny.blocks, range(BLOCKS), stop=False) as outputs:
            states = tiny.module(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states
        # transformers gives the embeddings first and puts the final norm on the last one.
        for layer in range(BLOCKS - 1):
            assert torch.equal(residual(outputs[layer]), states[layer + 1])
        assert not torch.allclose(residual(outputs[BLOCKS - 1]), states[BLOCKS])

    @torch.no_grad()
    @pytest.mark.parametrize("layer", range(BLOCKS))
    def test_stopping_spares_the_blocks_above_and_the_head(self, tiny, layer):
        reached_the_end = False
        with counted(tiny.module) as calls, captured(tiny.blocks, {0, layer}, stop=True) as outputs:
            tiny.module(input_ids=IDS, use_cache=False)
            reached_the_end = True
        assert not reached_the_end
        assert sorted(outputs) == sorted({0, layer})
        assert runs_of_blocks(tiny, calls) == [1] * (layer + 1) + [0] * (BLOCKS - layer - 1)
        assert "lm_head" not in calls

    @torch.no_grad()
    def test_without_stopping_the_head_runs(self, tiny):
        with counted(tiny.module) as calls, captured(tiny.blocks, [0], stop=False):
            tiny.module(input_ids=IDS, use_cache=False)
        assert runs_of_blocks(tiny, calls) == [1] * BLOCKS
        assert calls["lm_head"] == 1

    @torch.no_grad()
    def test_stopping_does_not_change_what_is_captured(self, tiny):
        with captured(tiny.blocks, [0, 2], stop=False) as whole:
            logits(tiny)
        with captured(tiny.blocks, [2, 0], stop=True) as stopped:
            logits(tiny)
        for layer in (0, 2):
            assert torch.equal(residual(whole[layer]), residual(stopped[layer]))

    def test_no_layers_capture_nothing(self, tiny):
        with captured(tiny.blocks, [], stop=False) as outputs:
            logits(tiny)
        assert outputs == {}

    @pytest.mark.parametrize("stop", [True, False])
    def test_an_error_of_the_model_is_not_swallowed(self, tiny, stop):
        with pytest.raises(IndexError), captured(tiny.blocks, [1], stop=stop):
            logits(tiny, torch.tensor([[10**6]]))

    def test_hooks_go_when_a_layer_does_not_exist(self, tiny):
        with pytest.raises(IndexError), captured(tiny.blocks, [0, BLOCKS], stop=True):
            pass


class TestEnteredAt:
    @torch.no_grad()
    @pytest.mark.parametrize("layer", range(BLOCKS))
    def test_entering_equals_hooking_exactly(self, tiny, layer):
        with RowEdits(deltas(layer)).applied(tiny.blocks):
            hooked = logits(tiny)
        with captured(tiny.blocks, [layer], stop=True) as outputs:
            logits(tiny)
        edited = residual(outputs[layer]) + deltas(layer)[layer][:, None, :]
        with entered_at(tiny.blocks, layer, with_residual(outputs[layer], edited)):
            entered = logits(tiny)
        assert float((entered - hooked).abs().max()) == 0.0

    @torch.no_grad()
    @pytest.mark.parametrize("layer", range(BLOCKS))
    def test_the_tokens_do_not_matter_any_more(self, tiny, layer):
        with captured(tiny.blocks, [layer], stop=False) as outputs:
            plain = logits(tiny)
        with entered_at(tiny.blocks, layer, outputs[layer]):
            entered = logits(tiny, torch.zeros_like(IDS))
        assert torch.equal(entered, plain)

    @torch.no_grad()
    def test_no_block_up_to_the_entry_runs(self, tiny):
        with captured(tiny.blocks, [2], stop=True) as outputs:
            logits(tiny)
        originals = list(tiny.blocks)
        runs = []
        handles = [
            block.register_forward_pre_hook(lambda *_, index=index: runs.append(index))
            for index, block in enumerate(originals)
        ]
        with entered_at(tiny.blocks, 2, outputs[2]):
            assert len(tiny.blocks) == BLOCKS
            logits(tiny)
        for handle in handles:
            handle.remove()
        assert runs == [3]

    @torch.no_grad()
    def test_hooks_above_the_entry_still_act(self, tiny):
        both = deltas(1) | deltas(3)
        with RowEdits(both).applied(tiny.blocks):
            hooked = logits(tiny)
        with captured(tiny.blocks, [1], stop=True) as outputs:
            logits(tiny)
        edited = residual(outputs[1]) + both[1][:, None, :]
        with entered_at(tiny.blocks, 1, with_residual(outputs[1], edited)), RowEdits(deltas(3)).applied(tiny.blocks):
            entered = logits(tiny)
        assert torch.equal(entered, hooked)

    def test_the_blocks_come_back_when_the_pass_fails(self, tiny):
        with pytest.raises(IndexError), entered_at(tiny.blocks, 1, torch.zeros(1, 1, HIDDEN)):
            logits(tiny, torch.tensor([[10**6]]))

    @pytest.mark.parametrize("layer", [-1, BLOCKS])
    def test_the_blocks_come_back_when_the_layer_does_not_exist(self, tiny, layer):
        with pytest.raises(IndexError), entered_at(tiny.blocks, layer, torch.zeros(1, 1, HIDDEN)):
            pass

    def test_a_stand_in_answers_for_the_attributes_of_its_block(self, tiny):
        names = [
            [name for name in vars(block) if not name.startswith("_") and name != "training"] for block in tiny.blocks
        ]
        originals = list(tiny.blocks)
        with entered_at(tiny.blocks, 1, torch.zeros(1, 1, HIDDEN)):
            for layer in (0, 1):
                for name in names[layer]:
                    assert getattr(tiny.blocks[layer], name) is getattr(originals[layer], name)


class TupleBlock(nn.Module):
    """A block as older architectures have it: the residual stream first, then something else."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.diag(random_vector(seed, size=4)))

    def forward(self, hidden):
        return torch.tanh(hidden @ self.weight) + 1, "something else"


class TestBlocksThatReturnTuples:
    @pytest.fixture
    def blocks(self):
        return nn.ModuleList(TupleBlock(seed) for seed in range(3))

    @staticmethod
    def run(blocks, hidden):
        others = []
        for block in blocks:
            hidden, other = block(hidden)
            others.append(other)
        return hidden, others

    @torch.no_grad()
    def test_entering_equals_hooking_and_keeps_the_rest_of_the_tuple(self, blocks):
        hidden, delta = torch.ones(2, 3, 4), torch.ones(2, 4)
        with RowEdits({1: delta}).applied(blocks):
            hooked, others = self.run(blocks, hidden)
        assert others == ["something else"] * 3
        with captured(blocks, [1], stop=False) as outputs:
            self.run(blocks, hidden)
        output = with_residual(outputs[1], residual(outputs[1]) + delta[:, None])
        assert output[1:] == outputs[1][1:]
        with entered_at(blocks[1:], 0, output):
            entered, _ = self.run(blocks[1:], hidden)
        torch.testing.assert_close(entered, hooked, rtol=0, atol=1)
        with entered_at(blocks, 1, output):
            # Blocks below the entry return tuples, too, of which nobody reads more than the first element.
            below = blocks[0](hidden)
            assert below[0] is hidden
            assert torch.equal(blocks[1](hidden)[0], output[0])
            assert torch.equal(blocks[2](blocks[1](hidden)[0])[0], hooked)


def test_a_block_that_returns_something_else_is_refused():
    with pytest.raises(TypeError, match="dict"):
        residual({"hidden": torch.zeros(1)})


class TestReplaced:
    @torch.no_grad()
    def test_the_child_returns_the_output_and_comes_back(self, tiny):
        original = tiny.module.lm_head
        with replaced(tiny.module, "lm_head", torch.full((1, 1, 7), 2.0)):
            assert original.weight is tiny.module.lm_head.weight
            shape = tiny.module(input_ids=IDS[:1, :1], use_cache=False).logits.shape
        assert shape == (1, 1, 7)
        assert tiny.module.lm_head is original

    def test_the_child_comes_back_when_the_block_fails(self, tiny):
        with pytest.raises(KeyError), replaced(tiny.module, "lm_head", None):
            raise KeyError

    def test_an_unknown_child_is_refused(self, tiny):
        with pytest.raises(AttributeError), replaced(tiny.module, "no_head", None):
            pass
