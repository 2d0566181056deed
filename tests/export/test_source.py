from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export.vector_sets import vector, vector_set

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.export.caa_pt import CAA_PT
from steer_eval.export.format import Options
from steer_eval.export.source import open_sae, open_vectors
from steer_eval.formats.vector import SteeringVector, file_name, write_vector


def fill(folder: Path, *layers: int, model: str = "tiny") -> Path:
    for layer in layers:
        write_vector(folder / file_name(model, layer), vector(layer, model=model))
    return folder


def as_pt(path: Path, layer: int) -> Path:
    [content] = CAA_PT.render(vector_set(layer), Options()).values()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("inner", ["", "vectors"])
def test_a_repo_and_its_folder_of_vectors_give_all_layers_in_order(tmp_path, inner):
    fill(tmp_path, 10, 3)
    (tmp_path / "vectors" / "tiny_transferred_caa.pt").write_bytes(b"of another kind")
    vectors = open_vectors([str(tmp_path / inner)])

    assert vectors.name == "tiny"
    assert vectors.model == "lab/tiny-base"
    assert list(vectors.vectors) == [3, 10]
    for layer, each in vectors.vectors.items():
        assert each.values.tobytes() == vector(layer).values.tobytes()


def test_the_packaged_study_is_read(packaged_study):
    vectors = open_vectors([str(packaged_study)])

    assert (vectors.name, list(vectors.vectors)) == ("smollm2", [3, 8, 10, 18, 25])


def test_layers_are_chosen(tmp_path):
    fill(tmp_path, 1, 3, 10)

    assert list(open_vectors([str(tmp_path)], layers=(10, 1)).vectors) == [1, 10]
    with pytest.raises(SteerEvalError, match="no vector of tiny for layer 4") as caught:
        open_vectors([str(tmp_path)], layers=(1, 4))
    assert "1, 3, 10" in caught.value.fix


def test_files_of_both_formats_are_read_and_ours_is_preferred(tmp_path):
    fill(tmp_path, 3)
    changed = vector(3)
    write_vector(tmp_path / file_name("tiny", 3), replace(changed, values=2 * changed.values))
    as_pt(tmp_path / "vectors" / "tiny_L3_caa.pt", 3)
    as_pt(tmp_path / "vectors" / "tiny_L5_caa.pt", 5)
    vectors = open_vectors([str(tmp_path)])

    assert list(vectors.vectors) == [3, 5]
    assert vectors.vectors[3].values.tobytes() == (2 * vector(3).values).tobytes()


def test_lone_files_are_called_what_they_are_called(tmp_path):
    write_vector(tmp_path / "calm.safetensors", vector(4))
    fill(tmp_path, 3)

    assert open_vectors([str(tmp_path / "calm.safetensors")]).name == "calm"
    assert open_vectors([str(tmp_path / file_name("tiny", 3))]).name == "tiny"
    assert list(open_vectors([str(as_pt(tmp_path / "x.pt", 7))]).vectors) == [7]


def test_a_model_is_chosen_where_there_are_several(tmp_path):
    fill(tmp_path, 3)
    fill(tmp_path, 3, 4, model="small")
    with pytest.raises(SteerEvalError, match="several models: small, tiny") as caught:
        open_vectors([str(tmp_path)])
    assert "--model" in caught.value.fix

    assert list(open_vectors([str(tmp_path)], "small").vectors) == [3, 4]
    with pytest.raises(SteerEvalError, match="no vectors of large"):
        open_vectors([str(tmp_path)], "large")


def test_a_layer_twice_is_refused(tmp_path):
    fill(tmp_path, 3)
    files = [str(tmp_path / file_name("tiny", 3)), str(as_pt(tmp_path / "tiny_L3_caa.pt", 3))]
    with pytest.raises(SteerEvalError, match="are both of layer 3"):
        open_vectors(files)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (SteeringVector(np.ones(3, np.float32), 5, vector(5).provenance), "width: 48 and 3"),
        (vector(5, model="other"), "model: lab/tiny-base and lab/other-base"),
    ],
)
def test_vectors_that_do_not_belong_together_are_refused(tmp_path, other, what):
    fill(tmp_path, 3)
    write_vector(tmp_path / file_name("tiny", 5), other)
    with pytest.raises(SteerEvalError, match=what):
        open_vectors([str(tmp_path)])


def test_a_link_out_of_the_repo_is_refused(tmp_path):
    outside = fill(tmp_path / "outside", 3) / file_name("tiny", 3)
    inside = fill(tmp_path / "repo", 5)
    (inside / file_name("tiny", 3)).symlink_to(outside)
    with pytest.raises(FormatError, match="leaves the repo"):
        open_vectors([str(inside)])


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "there is no folder"), ("absent.safetensors", "the file is absent"), ("v.txt", "is no vector file")],
)
def test_what_is_no_vector_is_named(tmp_path, name, message):
    (tmp_path / "v.txt").write_text("x")
    with pytest.raises(SteerEvalError, match=message):
        open_vectors([str(tmp_path / name)])


def test_a_folder_without_vectors_is_named(tmp_path):
    with pytest.raises(SteerEvalError, match="has no vector files"):
        open_vectors([str(tmp_path)])


def test_one_sae_at_a_time(tmp_path):
    with pytest.raises(SteerEvalError, match="one SAE is exported at a time, not 2"):
        open_sae(["a", "b"])
    with pytest.raises(FormatError, match="absent"):
        open_sae([str(tmp_path / "absent.pt")])
