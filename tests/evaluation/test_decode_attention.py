import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_language_model
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from steer_eval.evaluation import decode_attention as module_under_test
from steer_eval.evaluation.decode_attention import decode_attention


class Layer(torch.nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = True


def ours():
    module_under_test._register()
    return AttentionInterface()[module_under_test._NAME]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5),
    shared=st.integers(1, 3),
    groups=st.integers(1, 3),
    width=st.integers(1, 9),
    capacity=st.integers(0, 4),
    tokens=st.sampled_from([1, 1, 1, 2]),
    masked=st.booleans(),
    scaling=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 99),
)
def test_it_is_the_attention_of_transformers(rows, shared, groups, width, capacity, tokens, masked, scaling, seed):
    """Also where keys and values are part of larger buffers, whose other places may hold anything."""
    torch.manual_seed(seed)
    width = max(width, tokens)
    query = torch.randn(rows, shared * groups, tokens, 8)
    keys = torch.randn(rows + 1, shared, width + capacity, 8)[:rows, :, :width]
    values = torch.randn(rows + 1, shared, width + capacity, 8)[:rows, :, :width]
    mask = None
    if masked:
        seen = torch.randint(1, width + 1, (rows, 1, 1, 1))
        mask = (torch.arange(width) < seen).expand(rows, 1, tokens, width)
    layer = Layer(groups)
    expected, _ = sdpa_attention_forward(layer, query, keys, values, mask, scaling=scaling)
    observed, weights = ours()(layer, query, keys, values, mask, scaling=scaling)
    assert weights is None
    torch.testing.assert_close(observed, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_as_near_as_its_precision():
    torch.manual_seed(0)
    query, keys, values = (torch.randn(2, heads, width, 8).bfloat16() for heads, width in ((4, 1), (2, 9), (2, 9)))
    expected, _ = sdpa_attention_forward(Layer(2), query.double(), keys.double(), values.double(), None)
    observed, _ = ours()(Layer(2), query, keys, values, None)
    assert observed.dtype == torch.bfloat16
    torch.testing.assert_close(observed.double(), expected, atol=2e-2, rtol=2e-2)


def test_what_it_was_not_made_for_is_left_to_transformers():
    query, keys = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 3, 8)
    with pytest.raises(ValueError, match="softcap"):
        ours()(Layer(1), query, keys, keys, None, softcap=20.0)
    bias = torch.randn(1, 2, 1, 3)
    expected, _ = sdpa_attention_forward(Layer(1), query, keys, keys, bias)
    assert torch.equal(ours()(Layer(1), query, keys, keys, bias)[0], expected)


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_in_use_inside_the_block_only(fails):
    lm = tiny_language_model("llama")
    config = lm.module.config
    before = config.to_dict(), config._attn_implementation
    try:
        with decode_attention(lm.module):
            assert config._attn_implementation == module_under_test._NAME
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert (config.to_dict(), config._attn_implementation) == before


def test_a_model_with_another_attention_keeps_it():
    lm = tiny_language_model("llama")
    lm.module.config._attn_implementation = "eager"
    with decode_attention(lm.module):
        assert lm.module.config._attn_implementation == "eager"
