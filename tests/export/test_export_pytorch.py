"""The PyTorch formats: what is in the files, and what the tools in this environment make of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from export.vector_sets import vector, vector_set
from lm_eval.models.hf_steered import SteeredModel
from tiny_models import BLOCKS, save_tiny_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

from steer_eval.errors import SteerEvalError
from steer_eval.export import FORMATS, load_format
from steer_eval.export.caa_pt import CAA_PT
from steer_eval.export.format import Options, VectorSet
from steer_eval.export.lm_eval_pt import LM_EVAL, blocks_name
from steer_eval.export.steering_vectors import STEERING_VECTORS
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.vector import SteeringVector
from steer_eval.model import decoder_blocks
from steer_eval.steering.interventions import Add
from steer_eval.steering.row_edits import RowEdits

LLAMA = Options(2.5, "llama")
IDS = [7, 19, 230, 41, 5]


def load(content: bytes):
    return torch.load(io.BytesIO(content), weights_only=True)


@pytest.mark.parametrize("name", [name for name in FORMATS if load_format(name).takes == "vectors"])
def test_equal_vectors_are_equal_bytes(name):
    rendered = load_format(name).render(vector_set(1, 3), LLAMA)
    views = {
        layer: SteeringVector(np.repeat(each.values, 2)[::2], layer, dict(reversed(each.provenance.items())))
        for layer, each in vector_set(1, 3).vectors.items()
    }
    assert load_format(name).render(VectorSet("tiny", views), LLAMA) == rendered


def test_steering_vectors_are_vectors_by_layer():
    [(name, content)] = STEERING_VECTORS.render(vector_set(0, 3), LLAMA).items()
    loaded = load(content)

    assert name == "tiny_steering_vectors.pt"
    assert list(loaded) == [0, 3]
    for layer, values in loaded.items():
        assert (values.dtype, values.shape) == (torch.float32, (48,))
        assert values.numpy().tobytes() == vector(layer).values.tobytes()


def test_caa_files_are_one_per_layer_and_are_read_back(tmp_path):
    files = CAA_PT.render(vector_set(3, 10), LLAMA)
    assert list(files) == ["tiny_L3_caa.pt", "tiny_L10_caa.pt"]
    for content, was in zip(files.values(), vector_set(3, 10).vectors.values(), strict=True):
        loaded = load(content)
        assert set(loaded) == {"vector", "norm", "layer", "model", "n_pairs"}
        assert loaded["norm"] == was.norm
        (tmp_path / "v.pt").write_bytes(content)
        again = read_caa_pt(tmp_path / "v.pt")
        assert again.values.tobytes() == was.values.tobytes()
        assert again.layer == was.layer
        for key in ("model", "n_pairs", "method", "dtype"):
            assert again.provenance[key] == was.provenance[key]


def test_a_caa_file_needs_the_number_of_pairs():
    vectors = VectorSet("tiny", {3: SteeringVector(np.ones(4, np.float32), 3, {"model": "lab/m"})})
    with pytest.raises(SteerEvalError, match="layer 3 does not state its n_pairs"):
        CAA_PT.render(vectors, LLAMA)


def test_lm_eval_files_have_the_fields_that_it_reads():
    [(name, content)] = LM_EVAL.render(vector_set(0, 3), LLAMA).items()
    loaded = load(content)

    assert name == "tiny_lm_eval.pt"
    assert list(loaded) == ["layers.0", "layers.3"]
    entry = loaded["layers.3"]
    assert entry.pop("steering_vector").numpy().tobytes() == vector(3).values.tobytes()
    assert entry == {"steering_coefficient": 2.5, "action": "add", "bias": None, "head_index": None}


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "granite", "qwen3_5"])
def test_lm_eval_steers_as_our_hook_does(tmp_path, architecture):
    lm = save_tiny_model(tmp_path / "model", architecture)
    options = Options(-1.5, lm.module.config.model_type)
    vectors = vector_set(0, BLOCKS - 1)
    [(name, content)] = LM_EVAL.render(vectors, options).items()
    (tmp_path / name).write_bytes(content)
    theirs = SteeredModel(
        pretrained=str(tmp_path / "model"), steer_path=str(tmp_path / name), dtype="float32", device="cpu"
    )
    ids = torch.tensor([IDS])
    row = tuple(Add(layer, torch.from_numpy(each.values), -1.5) for layer, each in vectors.vectors.items())
    with torch.no_grad(), RowEdits.of(lm, [row]).applied(lm.blocks, prompt=0):
        ours = lm.module(input_ids=ids).logits

    steered = theirs._model_call(ids)

    torch.testing.assert_close(steered, ours, rtol=0, atol=1e-5)
    assert (steered - lm.module(input_ids=ids).logits).abs().max() > 0.1


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("llama", "layers"),
        ("gpt2", "h"),
        ("opt", "decoder.layers"),
        ("gpt_neox", "layers"),
        ("qwen3_5", "layers"),
        ("qwen3_5_text", "layers"),
        ("gemma3_text", "layers"),
        ("gemma3", "language_model.layers"),
    ],
)
def test_names_of_blocks(model_type, name):
    assert blocks_name(model_type) == name


def test_the_name_inside_a_wrapper_is_that_of_the_model_that_is_loaded(tmp_path):
    config = Gemma3Config(
        text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 32},
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
                       "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
    )  # fmt: skip
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == "gemma3"
    module = AutoModelForCausalLM.from_pretrained(tmp_path)

    assert dict(module.base_model.named_modules())[blocks_name("gemma3")] is decoder_blocks(module)


@pytest.mark.parametrize("model_type", ["nonsense", "bert-base", "t5", ""])
def test_a_type_that_is_no_causal_language_model_is_refused(model_type):
    with pytest.raises(SteerEvalError, match="no causal language model of type") as caught:
        blocks_name(model_type)
    assert "--model-type" in caught.value.fix
