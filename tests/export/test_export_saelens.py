from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pt_files
import pytest
import torch
from safetensors.torch import load_file

from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.export import load_format
from steer_eval.export.format import Options
from steer_eval.export.saelens import import_saelens
from steer_eval.formats.sae import TENSORS, TopKSae, read_sae_pt
from steer_eval.formats.saelens import CONFIG, WEIGHTS, read_saelens, write_saelens


def study_sae(folder: Path, **shape: Any) -> TopKSae:
    """An SAE out of a file like the study's."""
    return read_sae_pt(pt_files.saved(folder / "sae.pt", pt_files.sae(**shape)))


def with_unit_decoder(sae: TopKSae, scale: float = 1.0) -> TopKSae:
    return replace(sae, w_dec=scale * torch.nn.functional.normalize(sae.w_dec, dim=-1))


def same(first: TopKSae, second: TopKSae) -> bool:
    alike = all(
        ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        for ours, theirs in zip(first.tensors().values(), second.tensors().values(), strict=True)
    )
    return alike and (first.k, first.layer, first.model) == (second.k, second.layer, second.model)


def edit(folder: Path, change: Any) -> Path:
    """Change an SAELens folder's settings."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    change(config)
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    write_saelens(tmp_path / "lens", study_sae(tmp_path))
    return tmp_path / "lens"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_export_has_the_bits_of_the_study_file(tmp_path, dtype):
    sae = study_sae(tmp_path, dtype=dtype)
    original = torch.load(tmp_path / "sae.pt", weights_only=True)["state_dict"]

    files = load_format("saelens").render(sae, Options())
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    assert list(files) == ["layers.14/sae_weights.safetensors", "layers.14/cfg.json"]
    stored = load_file(tmp_path / "layers.14" / WEIGHTS)
    assert set(stored) == set(TENSORS)
    assert all(stored[key].dtype == dtype and torch.equal(stored[key], original[key]) for key in TENSORS)
    again = read_saelens(tmp_path / "layers.14")
    assert same(again, sae)
    assert again.provenance == sae.provenance == {"final_recon": "0.25", "steps": "4000"}


def test_the_settings_state_the_model_and_the_block(tmp_path):
    config = json.loads(load_format("saelens").render(study_sae(tmp_path), Options())["layers.14/cfg.json"])

    assert {key: config[key] for key in ("architecture", "d_in", "d_sae", "k", "dtype")} == {
        "architecture": "topk",
        "d_in": 4,
        "d_sae": 12,
        "k": 3,
        "dtype": "float32",
    }
    assert config["metadata"]["model_name"] == "lab/tiny-base"
    assert config["metadata"]["hook_name"] == "blocks.14.hook_resid_post"


def test_equal_saes_are_equal_files(tmp_path):
    sae = study_sae(tmp_path)
    strided = replace(
        sae,
        w_enc=sae.w_enc.T.contiguous().T,
        w_dec=torch.stack([sae.w_dec, sae.w_dec], dim=-1)[..., 0],
        provenance=dict(reversed(sae.provenance.items())),
    )

    assert not strided.w_enc.is_contiguous()
    assert not strided.w_dec.is_contiguous()
    for name in ("saelens", "sparsify", "sae-both"):
        form = load_format(name)
        assert form.render(strided, Options()) == form.render(sae, Options())


def test_a_write_cut_short_leaves_no_settings(folder):
    other = study_sae(folder.parent, seed=1)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()

    with pytest.raises(OSError, match=WEIGHTS):
        write_saelens(folder, other)

    assert [path.name for path in folder.iterdir()] == [WEIGHTS]


LEGACY = {
    "d_in": 4,
    "d_sae": 12,
    "dtype": "torch.float32",
    "architecture": "standard",
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 3},
    "apply_b_dec_to_input": True,
    "normalize_activations": False,
    "finetuning_scaling_factor": False,
    "model_name": "lab/tiny-base",
    "hook_name": "blocks.14.hook_resid_post",
    "hook_layer": 14,
    "context_size": 128,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"activation_fn_str": "absent", "activation_fn": "topk"},
        {"normalize_activations": "none"},
        {"normalize_activations": None},
        {"hook_name": "absent", "hook_point": "blocks.14.hook_resid_post"},
        {"architecture": "topk", "k": 3, "activation_fn_kwargs": {}},
    ],
    ids=["flat", "activation_fn", "none", "null", "hook_point", "k at the top"],
)
def test_folders_of_earlier_releases_are_read(folder, change):
    sae = read_saelens(folder)
    config = {key: value for key, value in {**LEGACY, **change}.items() if value != "absent"}
    (folder / CONFIG).write_text(json.dumps(config))

    assert same(read_saelens(folder), sae)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn_str": "relu"}, r"architecture: only Top-K SAEs are read, not 'standard'"),
        ({"architecture": None, "activation_fn_str": "relu"}, r"'architecture' is a required"),
        ({"activation_fn_kwargs": {}}, r"'k' is a required"),
        ({"normalize_activations": True}, r"normalize_activations: 'none' was expected"),
        ({"apply_b_dec_to_input": False}, r"apply_b_dec_to_input: True was expected"),
        ({"hook_name": None}, r"metadata: 'hook_name' is a required"),
    ],
)
def test_earlier_settings_of_another_function_are_refused(folder, change, message):
    config = {key: value for key, value in {**LEGACY, **change}.items() if value is not None}
    (folder / CONFIG).write_text(json.dumps(config))

    with pytest.raises(FormatError, match=message):
        read_saelens(folder)


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.3.hook_resid_post", 3),
        ("model.layers.16", 16),
        ("model.language_model.layers.7", 7),
        ("layers.0", 0),
        ("transformer.h.11", 11),
        ("gpt_neox.layers.2", 2),
    ],
)
def test_the_output_of_a_block_has_several_names(folder, hook, layer):
    edit(folder, lambda config: config["metadata"].update(hook_name=hook))

    assert read_saelens(folder).layer == layer


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.3.hook_resid_pre",
        "blocks.3.hook_mlp_out",
        "blocks.3.attn.hook_z",
        "model.layers.3.mlp",
        "vision.layers.3",
        "blocks.99999.hook_resid_post",
        "",
    ],
)
def test_what_is_not_the_output_of_a_block_is_refused(folder, hook):
    edit(folder, lambda config: config["metadata"].update(hook_name=hook))

    with pytest.raises(FormatError, match=r"cfg\.json: metadata\.hook_name: only SAEs on the output of a block"):
        read_saelens(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "standard"),
        ("architecture", "batchtopk"),
        ("apply_b_dec_to_input", False),
        ("normalize_activations", "expected_average_only_in"),
        ("normalize_activations", "layer_norm"),
        ("reshape_activations", "hook_z"),
        ("rescale_acts_by_decoder_norm", "yes"),
        ("k", 0),
        ("k", None),
        ("dtype", "float64"),
    ],
)
def test_settings_of_another_function_are_refused(folder, key, value):
    edit(folder, lambda config: config.update({key: value}))

    with pytest.raises(FormatError, match=rf"cfg\.json: {key}"):
        read_saelens(folder)


def test_rescaling_by_norms_of_1_is_nothing(tmp_path):
    sae = with_unit_decoder(study_sae(tmp_path, d_model=256, d_sae=1024))
    write_saelens(tmp_path / "lens", sae)
    edit(tmp_path / "lens", lambda config: config.update(rescale_acts_by_decoder_norm=True))

    assert same(read_saelens(tmp_path / "lens"), sae)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.00001])
def test_rescaling_by_other_norms_is_refused(tmp_path, scale):
    write_saelens(tmp_path / "lens", with_unit_decoder(study_sae(tmp_path), scale))
    assert read_saelens(tmp_path / "lens")
    edit(tmp_path / "lens", lambda config: config.update(rescale_acts_by_decoder_norm=True))

    with pytest.raises(FormatError, match=r"rescale_acts_by_decoder_norm: .* that of feature") as caught:
        read_saelens(tmp_path / "lens")

    assert "fold_W_dec_norm" in caught.value.fix


@pytest.mark.parametrize(
    ("stored", "dtype", "good"),
    [
        (torch.bfloat16, "bfloat16", True),
        (torch.bfloat16, "float32", True),
        (torch.float16, "float32", True),
        (torch.float32, "bfloat16", False),
        (torch.float16, "bfloat16", False),
        (torch.bfloat16, "float16", False),
    ],
)
def test_a_dtype_that_would_round_the_weights_is_refused(tmp_path, stored, dtype, good):
    write_saelens(tmp_path / "lens", study_sae(tmp_path, dtype=stored))
    edit(tmp_path / "lens", lambda config: config.update(dtype=dtype))

    if good:
        assert read_saelens(tmp_path / "lens").w_enc.dtype == stored
        return
    with pytest.raises(FormatError, match=r"cfg\.json: dtype: SAELens would round W_enc"):
        read_saelens(tmp_path / "lens")


def test_an_import_keeps_the_weights_and_says_where_they_are_from(tmp_path, folder):
    edit(folder, lambda config: config["metadata"].update(context_size=128, dataset_path="lab/texts", prepend_bos=True))
    sae = read_saelens(folder)

    target = import_saelens(folder, tmp_path / "repo", "tiny")

    assert target == tmp_path / "repo" / "saes" / "tiny" / "layers.14"
    imported = read_saelens(target)
    assert same(imported, sae)
    assert imported.provenance == {
        **sae.provenance,
        "imported_weights_sha256": sha256_file(folder / WEIGHTS),
        "sae_lens.context_size": "128",
        "sae_lens.dataset_path": "lab/texts",
        "sae_lens.prepend_bos": "true",
    }


def test_an_import_replaces_an_earlier_one(tmp_path, folder):
    import_saelens(folder, tmp_path / "repo", "tiny")
    other = study_sae(tmp_path, seed=1)
    write_saelens(folder, other)

    assert same(read_saelens(import_saelens(folder, tmp_path / "repo", "tiny")), other)


@pytest.mark.parametrize("name", ["", "../tiny", "tiny/other", "Tiny", "_tiny", "tiny.2b", "a" * 49, "tiny\n"])
def test_a_name_that_is_no_folder_of_a_repo_is_refused(tmp_path, folder, name):
    with pytest.raises(SteerEvalError, match="can't be the short name"):
        import_saelens(folder, tmp_path / "repo", name)

    assert not (tmp_path / "repo").exists()


def test_an_import_never_leaves_the_repo(tmp_path, folder):
    (tmp_path / "repo").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "repo" / "saes").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FormatError, match="leaves the repo"):
        import_saelens(folder, tmp_path / "repo", "tiny")

    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_no_saelens_folder_is_not_imported(tmp_path, folder):
    (folder / WEIGHTS).unlink()

    with pytest.raises(FormatError, match=r"sae_weights\.safetensors: the file is absent"):
        import_saelens(folder, tmp_path / "repo", "tiny")

    assert not (tmp_path / "repo").exists()
