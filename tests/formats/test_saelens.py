from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pt_files
import pytest
import torch
from pt_files import bits, saved
from safetensors.torch import load_file, safe_open, save_file

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.sae import TENSORS, TopKSae, read_sae_pt
from steer_eval.formats.saelens import CONFIG, WEIGHTS, folder_name, read_saelens, write_saelens


def an_sae(tmp_path: Path, **shape: object) -> TopKSae:
    return read_sae_pt(saved(tmp_path / "sae.pt", pt_files.sae(**shape)))


@pytest.fixture
def folder(tmp_path) -> Path:
    write_saelens(tmp_path / "layers.14", an_sae(tmp_path))
    return tmp_path / "layers.14"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layer", [0, 14, 9999])
def test_what_is_written_is_read_back_to_the_bit(tmp_path, dtype, layer):
    content = {**pt_files.sae(dtype=dtype), "layer": layer}
    sae = read_sae_pt(saved(tmp_path / "sae.pt", content))
    write_saelens(tmp_path / "x", sae)
    again = read_saelens(tmp_path / "x")

    for key in TENSORS:
        ours, stored = again.tensors()[key], load_file(tmp_path / "x" / WEIGHTS)[key]
        assert ours.dtype == stored.dtype == dtype
        assert bits(ours) == bits(stored) == bits(content["state_dict"][key])
    assert (again.k, again.layer, again.model) == (sae.k, layer, sae.model)
    assert again.provenance == sae.provenance


@pytest.mark.parametrize("block", ["model.layers.14", "transformer.h.14", "model.language_model.layers.14"])
def test_the_path_of_the_block_is_kept_where_it_is_known(tmp_path, block):
    sae = an_sae(tmp_path)
    write_saelens(tmp_path / "unknown", sae)
    write_saelens(tmp_path / "known", replace(sae, block=block))

    config = json.loads((tmp_path / "known" / CONFIG).read_text(encoding="utf-8"))
    assert config["metadata"]["hf_hook_name"] == block
    assert read_saelens(tmp_path / "known").block == block
    assert "hf_hook_name" not in json.loads((tmp_path / "unknown" / CONFIG).read_text(encoding="utf-8"))["metadata"]
    assert read_saelens(tmp_path / "unknown").block == ""


@pytest.mark.parametrize(
    ("names", "block"),
    [
        ({"hook_name": "transformer.h.14"}, "transformer.h.14"),
        ({"hf_hook_name": "model.layers.3"}, ""),
    ],
)
def test_only_a_path_of_the_same_block_is_one(folder, names, block):
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["metadata"].update(names)
    path.write_text(json.dumps(config), encoding="utf-8")

    assert read_saelens(folder).block == block


def test_equal_saes_are_equal_folders(tmp_path):
    sae = an_sae(tmp_path)
    for name in "ab":
        write_saelens(tmp_path / name, sae)

    for file in (CONFIG, WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [CONFIG, WEIGHTS]


def test_the_weights_have_the_four_tensors_and_no_more(folder):
    with safe_open(folder / WEIGHTS, framework="pt") as opened:
        assert set(opened.keys()) == set(TENSORS)
        assert not opened.metadata()


def test_tensors_that_are_transposed_in_memory_are_written_as_they_look(tmp_path):
    sae = an_sae(tmp_path)
    strided = TopKSae(
        sae.w_enc.mT.contiguous().mT, sae.b_enc, sae.w_dec, sae.b_dec, sae.k, sae.layer, sae.model, sae.provenance
    )
    write_saelens(tmp_path / "a", sae)
    write_saelens(tmp_path / "b", strided)

    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_the_folder_is_named_after_model_and_layer():
    assert folder_name("qwen_large", 14) == "saes/qwen_large/layers.14"


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    (folder / CONFIG).write_text(json.dumps({**config, **changes}), encoding="utf-8")


def metadata(**changes: object) -> dict[str, object]:
    return {"metadata": {"model_name": "m", "hook_name": "blocks.14.hook_resid_post", **changes}}


BAD_SETTINGS = {
    "another architecture": ({"architecture": "jumprelu"}, "architecture"),
    "k of text": ({"k": "3"}, "k"),
    "no feature fires": ({"k": 0}, "k"),
    "double precision": ({"dtype": "float64"}, "dtype"),
    "input not centred": ({"apply_b_dec_to_input": False}, "apply_b_dec_to_input"),
    "input normalised": ({"normalize_activations": "layer_norm"}, "normalize_activations"),
    "input reshaped": ({"reshape_activations": "hook_z"}, "reshape_activations"),
    "metadata of a list": ({"metadata": []}, "metadata"),
    "no model": (metadata(model_name=""), "metadata.model_name"),
    "provenance of numbers": (metadata(steer_eval={"steps": 4}), "metadata.steer_eval.steps"),
    "before a block": (metadata(hook_name="blocks.14.hook_resid_pre"), "metadata.hook_name"),
    "inside a block": (metadata(hook_name="blocks.14.mlp.hook_post"), "metadata.hook_name"),
    "a layer of no number": (metadata(hook_name="blocks.x.hook_resid_post"), "metadata.hook_name"),
    "a layer of many digits": (metadata(hook_name="blocks.99999.hook_resid_post"), "metadata.hook_name"),
    "a hook of two lines": (metadata(hook_name="blocks.14.hook_resid_post\n"), "metadata.hook_name"),
}


@pytest.mark.parametrize(("changes", "where"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_a_setting_that_would_make_it_another_function_is_named(folder, changes, where):
    edit(folder, **changes)

    with pytest.raises(FormatError) as caught:
        read_saelens(folder, name="saes/layers.14")

    assert (caught.value.file, caught.value.where) == (f"saes/layers.14/{CONFIG}", where)


@pytest.mark.parametrize("changes", [{"d_in": 5}, {"d_sae": 13}], ids=repr)
def test_sizes_that_the_tensors_do_not_have_are_named(folder, changes):
    edit(folder, **changes)

    with pytest.raises(FormatError, match=f"^saes/layers.14/{WEIGHTS}: W_enc: the shape does not fit"):
        read_saelens(folder, name="saes/layers.14")


def test_more_features_than_there_are_can_not_fire(folder):
    edit(folder, k=13)

    with pytest.raises(FormatError, match=f"/{CONFIG}: k: k is larger than the number of features 12") as caught:
        read_saelens(folder)

    assert caught.value.fix


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(folder / WEIGHTS), **changes}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS)


BAD_WEIGHTS = {
    "no encoder": ({"W_enc": None}, "W_enc"),
    "another tensor": ({"threshold": torch.ones(12)}, "threshold"),
    "double precision": ({"b_enc": torch.ones(12, dtype=torch.float64)}, "b_enc.dtype"),
    "bias of one row": ({"b_dec": torch.ones(1, 4)}, "b_dec.shape"),
    "decoder transposed": ({"W_dec": torch.ones(4, 12)}, "W_dec: the shape does not fit"),
    "encoder bias of the input": ({"b_enc": torch.ones(4)}, "b_enc: the shape does not fit"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_named(folder, changes, message):
    rewrite(folder, **changes)

    with pytest.raises(FormatError, match=f"^saes/layers.14/{WEIGHTS}: .*{message}"):
        read_saelens(folder, name="saes/layers.14")


def test_a_value_that_is_no_number_is_named_with_its_index(folder):
    values = load_file(folder / WEIGHTS)["W_dec"]
    values[11, 3] = float("nan")
    rewrite(folder, W_dec=values)

    with pytest.raises(NotFiniteError, match=rf"{WEIGHTS}: W_dec\[11, 3\]"):
        read_saelens(folder)


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_file_that_is_absent_is_named(folder, file):
    (folder / file).unlink()

    with pytest.raises(FormatError, match=f"^saes/layers.14/{file}: the file is absent"):
        read_saelens(folder, name="saes/layers.14")


@pytest.mark.parametrize(("file", "content"), [(CONFIG, b"[]"), (CONFIG, b"{"), (CONFIG, b"\xff"), (WEIGHTS, b"")])
def test_a_file_of_something_else_is_named(folder, file, content):
    (folder / file).write_bytes(content)

    with pytest.raises(FormatError, match=f"^saes/layers.14/{file}: "):
        read_saelens(folder, name="saes/layers.14")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_file_that_is_a_link_out_of_the_folder_is_not_read(folder, file):
    (folder / file).rename(folder.parent / file)
    (folder / file).symlink_to(folder.parent / file)

    with pytest.raises(FormatError, match="leaves the repo"):
        read_saelens(folder)
