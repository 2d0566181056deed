"""llama.cpp's server on SmolLM2, steered by an exported control vector: its log-probabilities are ours under our hook.

The model is the file that our weights are converted from, with the same numbers as float32: what is left of a
difference is the order of sums. With the file as it is, llama.cpp also rounds activations to 8 bits.
"""

from __future__ import annotations

import shlex
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from interop.exports import export, steered_logits, write_vectors
from interop.float32_gguf import write_float32
from tiny_models import random_vector

from steer_eval.export.gguf_file import to_bytes

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is"
TOKENS = 12
PROBABILITIES = 10
COEFFICIENT = 2.0
# The largest difference of a log-probability that was seen is 3e-4, with the vector on the next block 0.6 and more.
TOLERANCE = 1e-3
WRONG = 0.2
# With the quantised file the largest difference that was seen is 0.45, with the vector on the next block 1.35 and more.
QUANTISED = 0.7
QUANTISED_WRONG = 1.0
LAYERS = (1, 10, 18, 29)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("llama-cpp")


@pytest.fixture(scope="module")
def quantised(smollm2_reference) -> Path:
    [file] = smollm2_reference.source.files
    return Path(str(metadata.distribution(file.package).locate_file(file.file)))


@pytest.fixture(scope="module")
def exact(folder, quantised) -> Path:
    write_float32(quantised, folder / "float32.gguf")
    return folder / "float32.gguf"


@pytest.fixture(scope="module", autouse=True)
def vectors(folder, smollm2):
    vectors = {layer: random_vector(layer, norm=20.0, size=smollm2.hidden_size) for layer in LAYERS}
    write_vectors(folder, vectors)
    return vectors


@pytest.fixture(scope="module")
def llama(consumer, smollm2):
    """Run llama-server as the printed line says, with the model put in."""

    def run(model: Path, usage: str = "llama-server -m MODEL.gguf", *extra: str, tokens: int = TOKENS):
        command = [str(model) if word == "MODEL.gguf" else word for word in shlex.split(usage.splitlines()[0])]
        ids = smollm2.text_ids(PROMPT, special_tokens=False)
        command += ["-ctk", "f32", "-ctv", "f32", "-fa", "off", *extra]
        return consumer("llama-cpp", command=command, prompt=ids, tokens=tokens, probabilities=PROBABILITIES)

    return run


def distance(answer, lm, edits) -> float:
    """The largest difference of a log-probability, over the tokens that llama.cpp chose and the likeliest others."""
    ids = lm.text_ids(PROMPT, special_tokens=False)
    chosen = [step["token"] for step in answer["steps"]]
    logits = steered_logits(lm, ids + chosen[:-1], edits)[len(ids) - 1 :]
    ours = torch.from_numpy(logits).log_softmax(-1).numpy()
    return max(
        abs(logprob - ours[position, int(token)])
        for position, step in enumerate(answer["steps"])
        for token, logprob in step["logprobs"].items()
    )


def greedy(lm, edits) -> str:
    ids = lm.text_ids(PROMPT, special_tokens=False)
    for _ in range(TOKENS):
        ids.append(int(np.argmax(steered_logits(lm, ids, edits)[-1])))
    return lm.decode(ids[-TOKENS:])


def test_unsteered(llama, exact, smollm2):
    answer, _ = llama(exact)

    assert len(answer["steps"]) == TOKENS
    assert answer["text"] == greedy(smollm2, {})
    assert distance(answer, smollm2, {}) < TOLERANCE


@pytest.mark.parametrize("coefficient", [COEFFICIENT, -1.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_vector_is_added_to_the_output_of_that_block(llama, exact, folder, smollm2, vectors, layer, coefficient):
    answer, log = llama(exact, export(folder, "llama-cpp", coefficient=coefficient, layers=(layer,)))
    delta = coefficient * vectors[layer]

    assert "failed to load control vector" not in log
    assert answer["text"] == greedy(smollm2, {layer: delta})
    assert distance(answer, smollm2, {layer: delta}) < TOLERANCE
    for other in ({}, {layer - 1: delta}, {layer + 1: delta} if layer < 29 else {}, {layer: -delta}):
        assert distance(answer, smollm2, other) > WRONG


def test_all_layers_of_a_file_are_steered_at_once(llama, exact, folder, smollm2, vectors):
    answer, _ = llama(exact, export(folder, "llama-cpp", coefficient=COEFFICIENT))

    assert distance(answer, smollm2, {n: COEFFICIENT * vector for n, vector in vectors.items()}) < TOLERANCE


def test_a_layer_range_leaves_one(llama, exact, folder, smollm2, vectors):
    usage = export(folder, "llama-cpp", coefficient=COEFFICIENT)
    answer, _ = llama(exact, usage, "--control-vector-layer-range", "18", "18")

    assert distance(answer, smollm2, {18: COEFFICIENT * vectors[18]}) < TOLERANCE


@pytest.mark.parametrize("layer", LAYERS)
def test_the_packages_own_file_is_nearest_to_our_weights_steered_there(
    llama, quantised, folder, smollm2, vectors, layer
):
    answer, _ = llama(quantised, export(folder, "llama-cpp", coefficient=COEFFICIENT, layers=(layer,)))
    delta = COEFFICIENT * vectors[layer]

    assert distance(answer, smollm2, {layer: delta}) < QUANTISED
    for other in ({}, {layer - 1: delta}, {layer + 1: delta} if layer < 29 else {}):
        assert distance(answer, smollm2, other) > QUANTISED_WRONG


@pytest.mark.parametrize("tensor", ["direction.0", "vector.10"])
def test_what_we_refuse_to_write_llama_cpp_refuses_to_load(llama, exact, folder, smollm2, vectors, tensor):
    (folder / "refused.gguf").write_bytes(to_bytes({}, {tensor: vectors[10].numpy()}))
    answer, log = llama(exact, f"llama-server -m MODEL.gguf --control-vector-scaled {folder / 'refused.gguf'}:2")

    assert "failed to load control vector" in log or "no valid control vector" in log
    assert distance(answer, smollm2, {}) < TOLERANCE
