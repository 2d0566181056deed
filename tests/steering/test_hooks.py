from contextlib import contextmanager

import pytest
import torch
from tiny_models import BLOCKS, HIDDEN, fingerprint, random_vector
from torch import nn

from steer_eval.steering.hooks import captured, entered_at, hooked, replaced, residual, with_residual

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


DELTAS = torch.stack([random_vector(1), torch.zeros(HIDDEN), -2 * random_vector(2)])[:, None]
"""What is added to each of three rows."""


def adding(deltas=DELTAS):
    """A hook that adds something to each row of a block's output."""

    def hook(_module, _inputs, output):
        return with_residual(output, residual(output) + deltas)

    return hook


@torch.no_grad()
def logits(lm, ids=IDS):
    return lm.module(input_ids=ids, use_cache=False).logits


class TestHooked:
    @torch.no_grad()
    @pytest.mark.parametrize("layer", range(BLOCKS))
    def test_the_output_of_the_block_is_what_the_hook_returns(self, tiny, layer):
        with captured(tiny.blocks, [layer], stop=False) as plain:
            logits(tiny)
        with hooked(tiny.blocks, {layer: adding()}), captured(tiny.blocks, [layer], stop=False) as steered:
            changed = logits(tiny)
        assert torch.equal(residual(steered[layer]), residual(plain[layer]) + DELTAS)
        assert not torch.allclose(changed[0], logits(tiny)[0], atol=0.1)

    def test_hooks_go_when_the_pass_fails(self, tiny):
        with pytest.raises(IndexError), hooked(tiny.blocks, {1: adding()}):
            logits(tiny, torch.tensor([[10**6]]))

    def test_hooks_go_when_a_layer_does_not_exist(self, tiny):
        with pytest.raises(IndexError), hooked(tiny.blocks, {0: adding(), BLOCKS: adding()}):
            pass


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
        with hooked(tiny.blocks, {layer: adding()}):
            expected = logits(tiny)
        with captured(tiny.blocks, [layer], stop=True) as outputs:
            logits(tiny)
        edited = residual(outputs[layer]) + DELTAS
        with entered_at(tiny.blocks, layer, with_residual(outputs[layer], edited)):
            entered = logits(tiny)
        assert float((entered - expected).abs().max()) == 0.0

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
        with hooked(tiny.blocks, {1: adding(), 3: adding()}):
            expected = logits(tiny)
        with captured(tiny.blocks, [1], stop=True) as outputs:
            logits(tiny)
        output = with_residual(outputs[1], residual(outputs[1]) + DELTAS)
        with entered_at(tiny.blocks, 1, output), hooked(tiny.blocks, {3: adding()}):
            entered = logits(tiny)
        assert torch.equal(entered, expected)

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
        hidden, delta = torch.ones(2, 3, 4), torch.ones(2, 1, 4)
        with hooked(blocks, {1: adding(delta)}):
            expected, others = self.run(blocks, hidden)
        assert others == ["something else"] * 3
        with captured(blocks, [1], stop=False) as outputs:
            self.run(blocks, hidden)
        output = with_residual(outputs[1], residual(outputs[1]) + delta)
        assert output[1:] == outputs[1][1:]
        with entered_at(blocks[1:], 0, output):
            entered, _ = self.run(blocks[1:], hidden)
        torch.testing.assert_close(entered, expected, rtol=0, atol=1)
        with entered_at(blocks, 1, output):
            # Blocks below the entry return tuples, too, of which nobody reads more than the first element.
            below = blocks[0](hidden)
            assert below[0] is hidden
            assert torch.equal(blocks[1](hidden)[0], output[0])
            assert torch.equal(blocks[2](blocks[1](hidden)[0])[0], expected)


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
