import pytest
import torch
from some_saes import random_sae

from steer_eval.steering.interventions import Add, ClampFeatures, Patch, Rotate, check_prompt

SIZE = 5
SAE = random_sae(SIZE, 8, 2)


def vector(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("kind", [Add, Rotate])
def test_the_delta_is_the_vector_times_the_coefficient(kind):
    assert torch.equal(kind(3, torch.tensor([1.0, -2.0, 0.5]), -2.0).delta(), torch.tensor([-2.0, 4.0, -1.0]))


@pytest.mark.parametrize("kind", [Add, Rotate])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_delta_is_float32_whatever_the_vector_is(kind, dtype):
    assert kind(0, vector(0, dtype), 2.0).delta().dtype == torch.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda: Add(-1, vector(0), 1.0),
        lambda: Rotate(-1, vector(0), 1.0),
        lambda: ClampFeatures(-1, SAE, (0,), torch.ones(1)),
        lambda: Patch(-1, torch.ones(1, SIZE), (0,)),
    ],
)
def test_a_layer_counts_from_zero(make):
    with pytest.raises(ValueError, match="-1"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Add(0, vector(0), 1.0, "promt"),
        lambda: Rotate(0, vector(0), 1.0, "promt"),
        lambda: ClampFeatures(0, SAE, (0,), torch.ones(1), positions="promt"),
    ],
)
def test_positions_are_known_words(make):
    with pytest.raises(ValueError, match="'promt': one of all, prompt, generated"):
        make()


@pytest.mark.parametrize(
    ("features", "values"),
    [((1, 1), torch.ones(2)), ((1,), torch.ones(2)), ((1, 2), torch.ones(2, 1)), ((8,), torch.ones(1)),
     ((-1,), torch.ones(1))],
)  # fmt: skip
def test_features_have_one_value_each_and_are_there(features, values):
    with pytest.raises(ValueError, match="features"):
        ClampFeatures(0, SAE, features, values)


@pytest.mark.parametrize(
    ("shape", "at"), [((2, SIZE), (0,)), ((SIZE,), tuple(range(SIZE))), ((2, SIZE), (3, 1)), ((2, SIZE), (1, 1)),
                      ((2, SIZE), (-1, 0))]
)  # fmt: skip
def test_a_patch_has_one_residual_for_each_token_in_their_order(shape, at):
    with pytest.raises(ValueError, match="tokens"):
        Patch(0, torch.ones(shape), at)


def test_a_prompt_must_have_the_tokens_that_are_patched():
    patch = Patch(0, torch.ones(2, SIZE), (1, 3))
    check_prompt((Add(0, vector(0), 1.0), patch), 4)
    check_prompt((Patch(0, torch.ones(0, SIZE), ()),), 0)
    with pytest.raises(ValueError, match="a patch of token 3, counted from 0, of a prompt with 3 tokens"):
        check_prompt((Add(0, vector(0), 1.0), patch), 3)
