from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from export.vector_sets import vector_set
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.export.control_vector_import import import_control_vector
from steer_eval.export.format import Options
from steer_eval.export.gguf_control_vector import LLAMA_CPP, PROVENANCE_KEY, REPENG, read_control_vector, render
from steer_eval.export.gguf_file import to_bytes
from steer_eval.formats.vector import read_vector, write_vector

OPTIONS = Options(2.0, "llama")
ONES = np.ones(4, np.float32)


def written(folder: Path, keys: dict[str, str | int], tensors: dict[str, np.ndarray]) -> Path:
    path = folder / "calm.gguf"
    path.write_bytes(to_bytes(keys, tensors))
    return path


def exported(folder: Path, *layers: int) -> Path:
    path = folder / "tiny.gguf"
    path.write_bytes(render(vector_set(*layers), OPTIONS)["tiny.gguf"])
    return path


def test_keys_and_tensors_are_what_loaders_look_for(tmp_path):
    reader = GGUFReader(exported(tmp_path, 1, 7, 30))

    assert {name: field.contents() for name, field in reader.fields.items() if "GGUF" not in name} == {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "llama",
        "controlvector.layer_count": 3,
        PROVENANCE_KEY: json.dumps(
            {str(layer): vector_set(layer).vectors[layer].provenance for layer in (1, 7, 30)},
            sort_keys=True,
            separators=(",", ":"),
        ),
    }
    assert reader.fields["controlvector.layer_count"].types == [GGUFValueType.UINT32]
    # The values are not multiplied by the coefficient.
    assert {tensor.name: tensor.data.tobytes() for tensor in reader.tensors} == {
        f"direction.{layer}": vector_set(layer).vectors[layer].values.tobytes() for layer in (1, 7, 30)
    }


def test_both_tools_get_the_same_file():
    vectors = vector_set(3, 5)
    assert LLAMA_CPP.render(vectors, OPTIONS) == REPENG.render(vectors, OPTIONS)
    assert LLAMA_CPP.needs_model_type
    assert REPENG.needs_model_type


def test_layer_0_can_not_be_expressed():
    with pytest.raises(SteerEvalError, match=r"can't hold layer 0: .*no direction\.0"):
        render(vector_set(0, 3), OPTIONS)


def test_the_printed_command_keeps_odd_paths_together():
    line = LLAMA_CPP.usage([Path("a b/tiny.gguf")], vector_set(3), Options(-0.5, "llama")).splitlines()[0]
    assert shlex.split(line)[-2:] == ["--control-vector-scaled", "a b/tiny.gguf:-0.5"]


def test_several_layers_are_warned_of():
    assert "--control-vector-layer-range 3 3" in LLAMA_CPP.usage([Path("v")], vector_set(3, 5), OPTIONS)
    assert "layer-range" not in LLAMA_CPP.usage([Path("v")], vector_set(3), OPTIONS)


def test_every_bit_comes_back(tmp_path):
    control = read_control_vector(exported(tmp_path, 1, 7, 30))

    assert list(control.directions) == [1, 7, 30]
    assert control.model_hint == "llama"
    for layer, vector in vector_set(1, 7, 30).vectors.items():
        assert control.directions[layer].tobytes() == vector.values.tobytes()
        assert control.provenance[layer] == vector.provenance


def test_files_of_others_are_read(tmp_path):
    writer = GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "qwen3")
    writer.add_int32("controlvector.layer_count", 2)
    writer.add_string("controlvector.method", "pca")
    writer.add_tensor("direction.12", np.array([1.5, 2.5], np.float32))
    writer.add_tensor("direction.2", np.array([0.5, -1.0], np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    control = read_control_vector(tmp_path / "v.gguf")

    assert {layer: values.tolist() for layer, values in control.directions.items()} == {2: [0.5, -1.0], 12: [1.5, 2.5]}
    assert {values.dtype for values in control.directions.values()} == {np.dtype(np.float32)}
    assert control.dtypes == {2: "float16", 12: "float32"}
    assert (control.model_hint, control.provenance) == ("qwen3", {})


NAN = np.array([1, np.nan, 0], np.float32)
BAD = {
    "a model": ({"general.architecture": "llama"}, {"direction.1": ONES}, "general.architecture"),
    "architecture of a number": ({"general.architecture": 3}, {"direction.1": ONES}, "general.architecture"),
    "no direction": ({}, {}, "no direction"),
    "layer 0": ({}, {"direction.0": ONES}, "direction.0: not a tensor"),
    "negative layer": ({}, {"direction.-1": ONES}, "direction.-1: not a tensor"),
    "layer with a zero before": ({}, {"direction.01": ONES}, "direction.01: not a tensor"),
    "layer in other digits": ({}, {"direction.\N{ARABIC-INDIC DIGIT ONE}": ONES}, "not a tensor"),
    "huge layer": ({}, {"direction.10000": ONES}, "not a tensor"),
    "other tensor": ({}, {"direction.1": ONES, "token_embd.weight": ONES}, "token_embd.weight: not a tensor"),
    "widths": ({}, {"direction.1": ONES, "direction.2": ONES[:3]}, "differ in width"),
    "NaN": ({}, {"direction.1": NAN}, r"direction\.1\[1\]: the value is not finite"),
    "provenance no text": ({PROVENANCE_KEY: 3}, {"direction.1": ONES}, PROVENANCE_KEY),
    "provenance no JSON": ({PROVENANCE_KEY: "{"}, {"direction.1": ONES}, PROVENANCE_KEY),
    "provenance too deep": ({PROVENANCE_KEY: "[" * 100_000}, {"direction.1": ONES}, PROVENANCE_KEY),
    "provenance of other layers": ({PROVENANCE_KEY: '{"2": {}}'}, {"direction.1": ONES}, PROVENANCE_KEY),
    "provenance no object": ({PROVENANCE_KEY: '{"1": []}'}, {"direction.1": ONES}, PROVENANCE_KEY),
    "provenance of numbers": ({PROVENANCE_KEY: '{"1": {"norm": 2}}'}, {"direction.1": ONES}, PROVENANCE_KEY),
}


@pytest.mark.parametrize(("keys", "tensors", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named(tmp_path, keys, tensors, message):
    with pytest.raises(FormatError, match=message) as caught:
        read_control_vector(written(tmp_path, keys, tensors), name="calm.gguf")
    assert caught.value.file == "calm.gguf"


def test_imported_vectors_are_those_that_were_exported(tmp_path):
    path = exported(tmp_path, 1, 7)
    for layer, vector in import_control_vector(path, model=None, method="unknown").items():
        write_vector(tmp_path / "again.safetensors", vector)
        again = read_vector(tmp_path / "again.safetensors")
        was = vector_set(layer).vectors[layer]

        assert again.values.tobytes() == was.values.tobytes()
        assert again.layer == layer
        # What was measured is kept, but for the versions of the machine that measured it.
        assert {key: again.provenance[key] for key in was.provenance if key != "versions"} == {
            key: value for key, value in was.provenance.items() if key != "versions"
        }
        assert again.provenance["source_format"] == "gguf-control-vector"
        assert again.provenance["source_file"] == "tiny.gguf"


def test_a_file_without_provenance_needs_to_be_told_its_model(tmp_path):
    path = written(tmp_path, {}, {"direction.3": np.array([3, 4], np.float32)})
    with pytest.raises(SteerEvalError, match="layer 3 does not name its model"):
        import_control_vector(path, model=None, method="pca")

    [(layer, vector)] = import_control_vector(path, model="lab/m", method="pca").items()

    assert layer == 3
    assert {key: vector.provenance[key] for key in ("model", "method", "layer", "norm", "dtype")} == {
        "model": "lab/m",
        "method": "pca",
        "layer": "3",
        "norm": "5",
        "dtype": "float32",
    }
    assert set(vector.provenance).isdisjoint({"n_pairs", "pairs_sha256", "weights_sha256"})


def test_a_file_of_another_model_is_refused(tmp_path):
    with pytest.raises(SteerEvalError, match="it is of lab/tiny-base, not of lab/other"):
        import_control_vector(exported(tmp_path, 1), model="lab/other", method="unknown")


def test_a_forged_provenance_is_refused_before_anything_is_written(tmp_path):
    provenance = json.dumps({"1": {"model": "lab/m", "pairs_sha256": "none"}})
    path = written(tmp_path, {PROVENANCE_KEY: provenance}, {"direction.1": ONES})
    with pytest.raises(FormatError, match=r"calm\.gguf: direction\.1.*pairs_sha256"):
        import_control_vector(path, model=None, method="unknown")
