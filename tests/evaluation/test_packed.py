import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import fingerprint, tiny_language_model
from torch import nn

from steer_eval.evaluation.packed import PackedLinears, packing_bytes

IDS = torch.randint(4, 250, (3, 11), generator=torch.Generator().manual_seed(1))
available = pytest.mark.skipif(packing_bytes(nn.Linear(2, 2)) == 0, reason="this build of PyTorch has no oneDNN")


@available
@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    bfloat16=st.booleans(),
    seed=st.integers(0, 99),
)
def test_products_are_those_of_the_layer(rows, inputs, outputs, bias, bfloat16, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    values = torch.randn(rows, 1, inputs)
    if bfloat16:
        linear, values = linear.bfloat16(), values.bfloat16()
    expected = linear.double()(values.double()) if bfloat16 else linear(values)
    linear = linear.bfloat16() if bfloat16 else linear
    with PackedLinears(linear).applied():
        observed = linear(values)
    assert observed.dtype == values.dtype
    tolerance = 2e-2 if bfloat16 else 1e-5
    torch.testing.assert_close(observed.to(expected.dtype), expected, atol=tolerance, rtol=tolerance)


def test_a_model_computes_the_same_with_packed_weights(tiny):
    packed = PackedLinears(tiny.module)
    expected = tiny.final_hidden(IDS)
    with packed.applied():
        observed = tiny.final_hidden(IDS)
    torch.testing.assert_close(observed, expected, atol=1e-5, rtol=1e-5)


@available
def test_the_weights_are_really_replaced():
    lm = tiny_language_model("llama")
    packed = PackedLinears(lm.module)
    expected = lm.final_hidden(IDS)
    with torch.no_grad():
        for block in lm.blocks:
            block.mlp.down_proj.weight.zero_()
    with packed.applied():
        torch.testing.assert_close(lm.final_hidden(IDS), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(lm.final_hidden(IDS), expected, atol=0.1)


def test_the_model_stays_as_it_was_also_after_an_exception(tiny):
    before = fingerprint(tiny), [dict(vars(child)) for child in tiny.module.modules()]
    packed = PackedLinears(tiny.module)
    with pytest.raises(IndexError), packed.applied():
        tiny.final_hidden(torch.tensor([[10**6]]))
    assert (fingerprint(tiny), [dict(vars(child)) for child in tiny.module.modules()]) == before


def test_layers_that_are_more_than_linear_are_left_alone():
    class Scaled(nn.Linear):
        def forward(self, values):
            return 2 * super().forward(values)

    hooked = nn.Linear(4, 4)
    hooked.forward = lambda values: values
    module = nn.ModuleList([Scaled(4, 4), hooked, nn.Linear(4, 4).double()])
    assert packing_bytes(module) == 0
    values = torch.randn(2, 4)
    before = module[0](values)
    with PackedLinears(module).applied():
        assert torch.equal(module[0](values), before)
        assert module[1](values) is values


@available
def test_memory_is_that_of_the_weights():
    assert packing_bytes(nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5).bfloat16())) >= 4 * 200
