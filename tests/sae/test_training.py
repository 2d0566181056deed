from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from steer_eval.errors import FormatError
from steer_eval.sae.quality import fired_features, reconstructed
from steer_eval.sae.recipe import RECIPES, Recipe
from steer_eval.sae.training import Training, geometric_median, train

D_IN, PLANTED = 24, 40


class InMemory:
    """Residuals as a tensor."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return self.values[indices].clone()


def dictionary() -> torch.Tensor:
    directions = torch.randn(PLANTED, D_IN, generator=torch.Generator().manual_seed(1))
    return directions / directions.norm(dim=1, keepdim=True)


def planted(tokens: int = 8000, *, sinks: bool = True) -> InMemory:
    """Sums of two or three directions off the origin; one token in a hundred is an attention sink."""
    random = torch.Generator().manual_seed(2)
    active = torch.zeros(tokens, PLANTED)
    which = torch.rand(tokens, PLANTED, generator=random).topk(3, dim=1).indices
    active.scatter_(1, which, 1 + torch.rand(tokens, 3, generator=random))
    values = 5 * active @ dictionary() + torch.linspace(-20, 20, D_IN)
    if sinks:
        values[::100] = 3000 * torch.nn.functional.one_hot(torch.tensor(3), D_IN)
    return InMemory(values)


# So few steps need longer ones than the recipe's.
FAST = replace(RECIPES["recommended"], batch=200, epochs=6, learning_rate=1e-2, dead_after=4000)


def a_training(recipe: Recipe = FAST, *, seed: int = 0, sinks: bool = True) -> Training:
    return Training(planted(sinks=sinks), d_in=D_IN, d_sae=64, k=3, recipe=recipe, seed=seed)


def weights(training: Training) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in training.parameters.tensors()]


def test_planted_directions_are_found():
    training = a_training()

    last = list(training.run())[-1]

    found = training.parameters.w_dec @ dictionary().T
    assert (found.amax(dim=0) > 0.9).float().mean() >= 0.8
    assert last.loss < 0.1
    assert last.l0 <= 3
    assert last.step == training.steps == 6 * 40


def test_the_decoder_keeps_unit_rows():
    training = a_training()

    list(training.run(until=5))

    assert torch.allclose(training.parameters.w_dec.norm(dim=1), torch.ones(64), atol=1e-6)


def test_the_saved_sae_takes_activations_as_the_model_gives_them():
    training = a_training()
    list(training.run(until=60))
    x = planted(sinks=False).values[:50]

    sae = training.sae(layer=2, model="lab/tiny", provenance={"a": "b"})

    assert training.scale != pytest.approx(1, rel=0.1)
    centred = x * training.scale - training.parameters.b_dec
    scaled = (centred @ training.parameters.w_enc.T + training.parameters.b_enc).topk(3, dim=1).values.relu()
    assert torch.allclose(
        fired_features(sae, x).values.sort().values, (scaled / training.scale).sort().values, atol=1e-4
    )
    assert (reconstructed(sae, x) - x).square().sum() < 0.5 * (x - x.mean(dim=0)).square().sum()
    assert (sae.k, sae.layer, sae.model, sae.provenance) == (3, 2, "lab/tiny", {"a": "b"})


@pytest.mark.parametrize("recipe", [FAST, replace(RECIPES["plain"], batch=200, epochs=2)], ids=["ours", "plain"])
def test_a_resumed_training_ends_in_the_same_bits(recipe, tmp_path):
    whole = a_training(recipe)
    train(whole, checkpoint=tmp_path / "whole", every=1000, on_step=lambda _: None)

    class KilledError(Exception):
        pass

    def kill(progress) -> None:
        if progress.step == 45:
            raise KilledError

    steps = []
    with pytest.raises(KilledError):
        train(a_training(recipe), checkpoint=tmp_path / "cut", every=20, on_step=kill)
    resumed = a_training(recipe)
    train(resumed, checkpoint=tmp_path / "cut", every=20, on_step=lambda progress: steps.append(progress.step))

    assert steps[0] == 41
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    assert torch.equal(whole.since_fired, resumed.since_fired)


def test_a_finished_training_is_not_run_again(tmp_path):
    train(a_training(), checkpoint=tmp_path / "c", every=1000, on_step=lambda _: None)
    again = a_training()

    train(again, checkpoint=tmp_path / "c", every=1000, on_step=lambda _: pytest.fail("a step was taken"))

    assert again.step == again.steps


def test_a_checkpoint_of_another_sae_is_refused(tmp_path):
    train(a_training(), checkpoint=tmp_path / "c", every=1000, on_step=lambda _: None)
    other = Training(planted(), d_in=D_IN, d_sae=32, k=3, recipe=FAST, seed=0)

    with pytest.raises(FormatError, match="the shape of another SAE") as caught:
        other.load(tmp_path / "c")
    assert (caught.value.file, caught.value.expected) == (str(tmp_path / "c"), [32])
    assert "delete it and run again" in caught.value.fix


@pytest.mark.parametrize("damage", [lambda _: b"", lambda content: content[:-100], lambda _: b"garbage" * 9])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "c"
    train(a_training(), checkpoint=path, every=1000, on_step=lambda _: None)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(FormatError, match="damaged") as caught:
        a_training().load(path)
    assert caught.value.file == str(path)
    assert "delete it and run again" in caught.value.fix


def test_a_checkpoint_without_a_tensor_is_named(tmp_path):
    path = tmp_path / "c"
    save_file({"step": torch.tensor([3])}, path)

    with pytest.raises(FormatError, match="the tensor is absent") as caught:
        a_training().load(path)
    assert (caught.value.file, caught.value.where) == (str(path), "since_fired")


def test_the_seed_decides():
    one, same, other = a_training(seed=1), a_training(seed=1), a_training(seed=2)
    for training in (one, same, other):
        list(training.run(until=3))

    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(same), strict=True))
    assert not torch.equal(weights(one)[0], weights(other)[0])


def test_sinks_are_kept_out_of_scale_and_steps():
    with_sinks, without = a_training(), a_training(sinks=False)

    assert with_sinks.scale == pytest.approx(without.scale, rel=1e-3)
    assert torch.allclose(with_sinks.parameters.b_dec, without.parameters.b_dec, atol=1e-2)


def test_the_plain_recipe_leaves_activations_as_they_are():
    training = a_training(RECIPES["plain"])

    assert training.scale == 1
    assert training.parameters.b_dec.tolist() == [0.0] * D_IN


def test_dead_features_are_brought_back_by_the_auxiliary_loss():
    def dead_at_the_end(aux: float) -> float:
        training = a_training(replace(FAST, aux=aux, dead_after=2000, learning_rate=4e-3))
        # Pre-activations begin below 1, so these are positive now and then, but others come first. A feature that is
        # positive nowhere stays so: no gradient passes its ReLU, here or in Gao et al.
        training.parameters.b_enc[:30] = -0.4
        return list(training.run())[-1].dead

    assert dead_at_the_end(0.0) > 0.2
    assert dead_at_the_end(1 / 32) < 0.1


def test_the_auxiliary_gradient_is_that_of_autograd():
    training = a_training(replace(FAST, aux=0.3))
    dead = torch.tensor([5, 11, 12, 40])
    x = planted(sinks=False).values[:70] * training.scale
    parameters = training.parameters
    centred = x - parameters.b_dec
    pre = centred @ parameters.w_enc.T + parameters.b_enc
    error = torch.randn(70, D_IN, generator=torch.Generator().manual_seed(5))
    # Twelve features, half of the width, are wanted, and four are dead.
    ours = training._aux(pre, centred, error, dead)

    w_enc, b_enc, w_dec, b_dec = leaves = [tensor.clone().requires_grad_() for tensor in parameters.tensors()]
    acts = ((x - b_dec) @ w_enc.T + b_enc)[:, dead].relu()
    missed = (acts @ w_dec[dead] + error).square().sum() / (error - error.mean(dim=0)).square().sum()
    (0.3 * 4 / 12 * missed).backward()

    for mine, leaf in zip(ours, leaves, strict=True):
        assert leaf.grad is not None
        assert torch.allclose(mine, leaf.grad, rtol=1e-4, atol=1e-6 * float(leaf.grad.abs().max()))


def test_the_geometric_median_is_the_median_on_a_line():
    points = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [1000.0, 1.0]])

    assert torch.allclose(geometric_median(points, steps=5000, tolerance=1e-9), torch.tensor([2.0, 1.0]), atol=1e-2)
