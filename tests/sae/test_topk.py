from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steer_eval.formats.sae import TopKSae
from steer_eval.sae.topk import decode, encode


def an_sae(w_enc, b_enc, w_dec, b_dec, k: int, *, dtype: torch.dtype = torch.float32) -> TopKSae:
    tensors = [torch.as_tensor(values, dtype=dtype) for values in (w_enc, b_enc, w_dec, b_dec)]
    return TopKSae(*tensors, k=k, layer=0, model="lab/tiny", provenance={})


BY_HAND = {
    "w_enc": [[1.0, 0.0, 2.0, -1.0], [0.0, 1.0, 1.0, -1.0]],
    "b_enc": [0.5, 0.0, -1.0, 0.0],
    "w_dec": [[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [3.0, -1.0]],
    "b_dec": [1.0, 2.0],
}
# Minus b_dec: [2, 1], [-3, 0.25] and [0, -1]; so the pre-activations are
# [2.5, 1, 4, -3], [-2.5, 0.25, -6.75, 2.75] and [0.5, -1, -2, 1].
RESIDUALS = [[3.0, 3.0], [-2.0, 2.25], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [[0, 0, 4, 0], [0, 0, 0, 2.75], [0, 0, 0, 1]]),
        (2, [[2.5, 0, 4, 0], [0, 0.25, 0, 2.75], [0.5, 0, 0, 1]]),
        # The third largest of the last two rows is negative: it is chosen, and the ReLU takes it away.
        (3, [[2.5, 1, 4, 0], [0, 0.25, 0, 2.75], [0.5, 0, 0, 1]]),
        (4, [[2.5, 1, 4, 0], [0, 0.25, 0, 2.75], [0.5, 0, 0, 1]]),
    ],
)
def test_encoding_as_computed_by_hand(k, expected):
    acts = encode(an_sae(**BY_HAND, k=k), torch.tensor(RESIDUALS))

    assert acts.tolist() == expected
    assert acts.dtype == torch.float32


def test_decoding_as_computed_by_hand():
    restored = decode(an_sae(**BY_HAND, k=2), torch.tensor([[2.5, 0, 4, 0], [0, 0.25, 0, 2.75], [0, 0, 0, 0]]))

    assert restored.tolist() == [[11.5, 10.0], [9.25, -0.5], [1.0, 2.0]]


def test_no_feature_fires_where_all_are_negative():
    sae = an_sae([[1.0, 1.0]], [-5.0, -6.0], [[1.0], [1.0]], [0.0], k=1)

    assert encode(sae, torch.tensor([[1.0]])).tolist() == [[0.0, 0.0]]


def test_of_tied_features_k_fire():
    sae = an_sae([[1.0, 1.0, 1.0]], [0.0, 0.0, 0.0], [[1.0]] * 3, [0.0], k=2)

    assert sorted(encode(sae, torch.tensor([[2.0]])).tolist()[0]) == [0.0, 2.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensors_of_less_precision_are_computed_with_in_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = {"w_enc": (8, 24), "b_enc": (24,), "w_dec": (24, 8), "b_dec": (8,)}
    stored = an_sae(**{key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}, k=4, dtype=dtype)
    widened = an_sae(*stored.tensors().values(), k=4)
    residuals = torch.randn(32, 8, generator=generator)

    acts = encode(stored, residuals)

    assert acts.dtype == torch.float32
    assert torch.equal(acts, encode(widened, residuals))
    assert torch.equal(decode(stored, acts), decode(widened, acts))
    # What arithmetic in the stored dtype gives is something else.
    b_dec, w_enc, b_enc = stored.b_dec, stored.w_enc, stored.b_enc
    narrow = ((residuals.to(dtype) - b_dec) @ w_enc + b_enc).float()
    assert not torch.equal(acts, torch.where(acts > 0, narrow, 0.0))


def test_leading_dimensions_are_kept():
    sae = an_sae(**BY_HAND, k=2)
    flat = torch.tensor(RESIDUALS * 2)

    acts = encode(sae, flat.reshape(2, 3, 2))

    assert torch.equal(acts.reshape(6, 4), encode(sae, flat))
    assert torch.equal(decode(sae, acts).reshape(6, 2), decode(sae, encode(sae, flat)))
    assert encode(sae, flat[0]).tolist() == acts[0, 0].tolist()


def test_the_sae_and_the_residuals_stay_as_they_were():
    sae, residuals = an_sae(**BY_HAND, k=2), torch.tensor(RESIDUALS)

    decode(sae, encode(sae, residuals))

    assert {key: values.tolist() for key, values in sae.tensors().items()} == {
        {"w_enc": "W_enc", "w_dec": "W_dec"}.get(key, key): values for key, values in BY_HAND.items()
    }
    assert residuals.tolist() == RESIDUALS


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_residuals_of_another_width_are_named(shape):
    with pytest.raises(ValueError, match="d_in 2"):
        encode(an_sae(**BY_HAND, k=2), torch.zeros(shape))


def test_activations_of_another_number_of_features_are_named():
    with pytest.raises(ValueError, match="d_sae 4"):
        decode(an_sae(**BY_HAND, k=2), torch.zeros(1, 3))


@st.composite
def integer_cases(draw):
    """SAEs and residuals of small integers, whose sums float32 holds exactly in any order."""
    d_in, d_sae, rows = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    k = draw(st.integers(1, d_sae))

    def matrix(*shape: int) -> torch.Tensor:
        size = torch.Size(shape).numel()
        values = draw(st.lists(st.integers(-50, 50), min_size=size, max_size=size))
        return torch.tensor(values, dtype=torch.float32).reshape(shape)

    sae = an_sae(matrix(d_in, d_sae), matrix(d_sae), matrix(d_sae, d_in), matrix(d_in), k=k)
    return sae, matrix(rows, d_in)


def pre_activations(sae: TopKSae, residuals: torch.Tensor) -> list[list[int]]:
    """In Python's integers, sum by sum."""
    w_enc, b_enc, b_dec = sae.w_enc.int().tolist(), sae.b_enc.int().tolist(), sae.b_dec.int().tolist()
    return [
        [
            sum((x - b) * w[feature] for x, b, w in zip(row, b_dec, w_enc, strict=True)) + b_enc[feature]
            for feature in range(sae.d_sae)
        ]
        for row in residuals.int().tolist()
    ]


def tied_for_the_last_place(row: list[int], k: int) -> bool:
    ranked = sorted(row, reverse=True)
    return k < len(ranked) and ranked[k - 1] == ranked[k] > 0


@settings(deadline=None)
@given(integer_cases())
def test_at_most_k_fire_and_none_is_negative(case):
    sae, residuals = case

    acts = encode(sae, residuals)

    assert acts.shape == (len(residuals), sae.d_sae)
    assert bool((acts >= 0).all())
    assert bool(((acts != 0).sum(dim=-1) <= sae.k).all())


@settings(deadline=None)
@given(integer_cases())
def test_the_largest_positive_pre_activations_are_the_activations(case):
    sae, residuals = case

    for row, acts in zip(pre_activations(sae, residuals), encode(sae, residuals).tolist(), strict=True):
        firing = sorted((value for value in row if value > 0), reverse=True)[: sae.k]
        assert sorted((act for act in acts if act > 0), reverse=True) == firing
        assert all(act in (0, value) for act, value in zip(acts, row, strict=True))


@settings(deadline=None)
@given(integer_cases(), st.randoms(use_true_random=False))
def test_features_in_another_order_fire_in_that_order(case, random):
    sae, residuals = case
    assume(not any(tied_for_the_last_place(row, sae.k) for row in pre_activations(sae, residuals)))
    order = list(range(sae.d_sae))
    random.shuffle(order)
    shuffled = an_sae(sae.w_enc[:, order], sae.b_enc[order], sae.w_dec[order], sae.b_dec, k=sae.k)

    acts, shuffled_acts = encode(sae, residuals), encode(shuffled, residuals)

    assert torch.equal(shuffled_acts, acts[:, order])
    assert torch.equal(decode(shuffled, shuffled_acts), decode(sae, acts))


@settings(deadline=None)
@given(integer_cases(), st.integers(-50, 50))
def test_shifting_residuals_and_decoder_bias_together_changes_no_activation(case, shift):
    sae, residuals = case
    shifted = an_sae(sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec + shift, k=sae.k)

    acts = encode(sae, residuals)

    assert torch.equal(encode(shifted, residuals + shift), acts)
    assert torch.equal(decode(shifted, acts), decode(sae, acts) + shift)
