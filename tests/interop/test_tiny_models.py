"""repeng and steering-vectors, on a tiny model: their logits under an export are ours under our hook."""

from __future__ import annotations

import numpy as np
import pytest
from interop.exports import export, steered_logits, write_vectors
from tiny_models import BLOCKS, random_vector, save_tiny_model

COEFFICIENT = -1.5
IDS = [7, 19, 230, 41, 5, 88, 12, 300]
# On one machine no difference was seen; a vector on the next block differs by 0.4 and more.
TOLERANCE = 1e-5
WRONG = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def lm(folder):
    return save_tiny_model(folder / "model")


@pytest.fixture(scope="module", autouse=True)
def vectors(folder):
    vectors = {layer: random_vector(layer) for layer in range(BLOCKS)}
    write_vectors(folder, vectors)
    return vectors


def ours(lm, vectors, layers, shift=0):
    return steered_logits(lm, IDS, {layer + shift: COEFFICIENT * vectors[layer] for layer in layers})


def distance(theirs, logits):
    return np.abs(np.array(theirs) - logits).max()


@pytest.mark.parametrize("tool", ["repeng", "steering-vectors"])
@pytest.mark.parametrize("layers", [(1,), (2,), (1, 3)], ids=str)
def test_logits_are_ours(consumer, folder, lm, vectors, tool, layers):
    usage = export(folder, tool, coefficient=COEFFICIENT, layers=layers)
    answer, _ = consumer(tool, model=str(folder / "model"), ids=IDS, usage=usage)

    assert distance(answer["unsteered"], steered_logits(lm, IDS, {})) < TOLERANCE
    assert distance(answer["steered"], ours(lm, vectors, layers)) < TOLERANCE
    if len(layers) == 1:
        for shift in (-1, 1):
            assert distance(answer["steered"], ours(lm, vectors, layers, shift)) > WRONG


def test_steering_vectors_steers_block_0_and_leaves_the_model_as_it_was(consumer, folder, lm, vectors):
    usage = export(folder, "steering-vectors", coefficient=COEFFICIENT, layers=(0,))
    answer, _ = consumer("steering-vectors", model=str(folder / "model"), ids=IDS, usage=usage)

    assert (answer["layers"], answer["layer_type"]) == ([0], "decoder_block")
    assert distance(answer["steered"], ours(lm, vectors, (0,))) < TOLERANCE
    assert answer["after"] == answer["unsteered"]


def test_repeng_reads_the_same_bits_under_the_same_layers(consumer, folder, vectors):
    usage = export(folder, "repeng", coefficient=COEFFICIENT, layers=(1, 2, 3))
    answer, _ = consumer("repeng", model=str(folder / "model"), ids=IDS, usage=usage)

    assert answer["model_type"] == "llama"
    assert {int(layer): values for layer, values in answer["directions"].items()} == {
        layer: vectors[layer].double().tolist() for layer in (1, 2, 3)
    }
