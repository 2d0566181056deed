from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pt_files
import pytest
import torch
from safetensors.torch import load

from steer_eval.export import load_format
from steer_eval.export.format import Options
from steer_eval.formats.sae import TopKSae, read_sae_pt
from steer_eval.formats.saelens import read_saelens


@pytest.fixture
def sae(tmp_path) -> TopKSae:
    return read_sae_pt(pt_files.saved(tmp_path / "sae.pt", pt_files.sae(d_model=4, d_sae=14)))


def render(name: str, sae: TopKSae) -> dict[str, bytes]:
    return load_format(name).render(sae, Options())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_weights_are_under_the_names_and_in_the_layout_of_sparsify(tmp_path, dtype):
    content = pt_files.sae(dtype=dtype)
    sae, original = read_sae_pt(pt_files.saved(tmp_path / "sae.pt", content)), content["state_dict"]

    stored = load(render("sparsify", sae)["layers.14/sae.safetensors"])

    assert {key: list(tensor.shape) for key, tensor in stored.items()} == {
        "encoder.weight": [12, 4],
        "encoder.bias": [12],
        "W_dec": [12, 4],
        "b_dec": [4],
    }
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert torch.equal(stored["encoder.weight"], original["W_enc"].T.float())
    assert torch.equal(stored["encoder.bias"], original["b_enc"].float())
    assert torch.equal(stored["W_dec"], original["W_dec"].float())
    assert torch.equal(stored["b_dec"], original["b_dec"].float())


def test_the_settings_describe_the_sae(sae):
    files = render("sparsify", sae)
    config = json.loads(files["layers.14/cfg.json"])

    assert list(files) == ["layers.14/sae.safetensors", "layers.14/cfg.json"]
    assert {key: value for key, value in config.items() if key != "metadata"} == {
        "activation": "topk",
        "expansion_factor": 3,
        "normalize_decoder": False,
        "num_latents": 14,
        "k": 3,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": 4,
    }
    assert config["metadata"]["model_name"] == "lab/tiny-base"
    # A PyTorch file does not say what the block is called in the model.
    assert "hf_hook_name" not in config["metadata"]


@pytest.mark.parametrize(("scale", "unit"), [(1.0, True), (1.001, False), (0.0, False)])
def test_the_settings_say_whether_the_decoder_has_unit_norm(sae, scale, unit):
    scaled = replace(sae, w_dec=scale * torch.nn.functional.normalize(sae.w_dec, dim=-1))

    assert json.loads(render("sparsify", scaled)["layers.14/cfg.json"])["normalize_decoder"] is unit


def test_one_folder_for_both_has_the_files_of_each(sae):
    lens, sparse, both = (render(name, sae) for name in ("saelens", "sparsify", "sae-both"))

    # The settings last, as no loader looks at a folder without.
    assert list(both) == ["layers.14/sae_weights.safetensors", "layers.14/sae.safetensors", "layers.14/cfg.json"]
    assert both["layers.14/sae_weights.safetensors"] == lens["layers.14/sae_weights.safetensors"]
    assert both["layers.14/sae.safetensors"] == sparse["layers.14/sae.safetensors"]
    lens, sparse, both = (json.loads(files["layers.14/cfg.json"]) for files in (lens, sparse, both))
    assert both == {**lens, **sparse} == {**sparse, **lens}, "the two disagree on a setting"


def test_one_folder_for_both_is_read_back(tmp_path, sae):
    for name, content in render("sae-both", sae).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    again = read_saelens(tmp_path / "layers.14")

    assert all(torch.equal(again.tensors()[key], tensor) for key, tensor in sae.tensors().items())
    assert (again.k, again.layer, again.model, again.provenance) == (sae.k, sae.layer, sae.model, sae.provenance)


@pytest.mark.parametrize(
    ("name", "loaders"),
    [("saelens", ["SAE"]), ("sparsify", ["SparseCoder"]), ("sae-both", ["SAE", "SparseCoder"])],
)
def test_the_usage_names_the_folder(sae, name, loaders):
    form = load_format(name)
    paths = [Path("out dir") / path for path in form.render(sae, Options())]

    lines = form.usage(paths, sae, Options()).splitlines()

    assert [line for line in lines if line.startswith("sae = ")] == [
        f"sae = {loader}.load_from_disk('out dir/layers.14')" for loader in loaders
    ]
