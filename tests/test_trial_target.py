"""Which model and which vectors a target comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studies import document, provenance, vector, write_study

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.vector import SteeringVector, file_name, write_vector
from steer_eval.model_reference import HubSource, LocalSource
from steer_eval.trial_target import file_target, is_vector_file, study_target
from steer_eval.weights import Weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repo(folder: Path, *, models: tuple[str, ...] = ("tiny",), layers: tuple[int, ...] = (1, 2, 5)) -> Path:
    """A model repo, without the dataset repo that its study names."""
    described = document(models=models)
    described["extraction"]["layers"] = list(layers)
    described["sweep"].pop("layers", None)
    write_study(folder, described)
    (folder / "vectors").mkdir()
    for model in models:
        for layer in layers:
            write_vector(folder / file_name(model, layer), vector(model, layer))
    return folder


def saved(path: Path, **changes: str) -> str:
    values = vector("tiny", 3).values
    write_vector(path, SteeringVector(values, 3, {**provenance("tiny", 3, 5.83), **changes}))
    return str(path)


def legacy(path: Path, **changes: Any) -> str:
    content = {"vector": torch.tensor([3.0, 4.0, 0.0, 2.0]), "norm": 5.385, "layer": 2, "model": "lab/base"}
    torch.save({**content, "n_pairs": 4, **changes}, path)
    return str(path)


def layers_of(target) -> list[int]:
    return [placed.layer for placed in target.placed]


@pytest.mark.parametrize(
    ("layers", "middle"), [((1, 2, 5), 2), ((5, 1, 2), 2), ((7,), 7), ((1, 4), 4), ((1, 2, 3, 4, 5, 6), 4)]
)
def test_by_default_a_study_tries_its_middle_layer(tmp_path: Path, layers, middle) -> None:
    target = study_target(str(repo(tmp_path / "m", layers=layers)), model=None, layers=())
    assert layers_of(target) == [middle]
    assert (f"layer {middle}, the middle one of" in target.default) == (len(layers) > 1)


def test_the_middle_is_of_those_layers_that_have_a_vector(tmp_path: Path) -> None:
    place = repo(tmp_path / "m")
    (place / file_name("tiny", 1)).unlink()
    (place / file_name("tiny", 2)).unlink()
    assert layers_of(study_target(str(place), model=None, layers=())) == [5]


def test_layers_are_tried_as_asked_for_each_once(tmp_path: Path) -> None:
    place = repo(tmp_path / "m")
    target = study_target(str(place), model=None, layers=(5, 1, 5))
    assert layers_of(target) == [5, 1]
    assert [float(placed.vector.values[3]) for placed in target.placed] == [5, 1]
    assert [placed.file for placed in target.placed] == [f"{place}/{file_name('tiny', layer)}" for layer in (5, 1)]
    assert target.default == ""
    assert target.name == "lab/tiny-base"
    assert target.reference.source == HubSource("lab/tiny-base", "main")


def test_a_layer_without_a_vector_is_refused_and_the_others_named(tmp_path: Path) -> None:
    place = repo(tmp_path / "m")
    with pytest.raises(SteerEvalError, match="no vector of tiny for layer 4; it has layers 1, 2, 5"):
        study_target(str(place), model=None, layers=(1, 4))


def test_a_study_without_vectors_says_which_command_makes_them(tmp_path: Path) -> None:
    write_study(tmp_path, document())
    with pytest.raises(SteerEvalError, match="no vectors of tiny") as caught:
        study_target(str(tmp_path), model=None, layers=())
    assert f"steer-eval extract {tmp_path}" in caught.value.fix


def test_one_of_several_models_must_be_chosen(tmp_path: Path) -> None:
    place = repo(tmp_path / "m", models=("small", "large"))
    with pytest.raises(SteerEvalError, match="several models: small, large"):
        study_target(str(place), model=None, layers=())
    with pytest.raises(SteerEvalError, match="no model huge") as caught:
        study_target(str(place), model="huge", layers=())
    assert "small, large" in caught.value.fix
    target = study_target(str(place), model="large", layers=())
    assert target.placed[0].model == "lab/large-base"
    assert target.reference.name == "large"


def test_a_legacy_vector_stands_in_for_one_of_ours(tmp_path: Path) -> None:
    place = repo(tmp_path / "m")
    (place / file_name("tiny", 2)).unlink()
    legacy(place / "vectors" / "tiny_L2_caa.pt")
    [placed] = study_target(str(place), model=None, layers=(2,)).placed
    assert placed.vector.values.tolist() == [3, 4, 0, 2]
    assert placed.file.endswith("vectors/tiny_L2_caa.pt")


def test_a_vector_that_lies_outside_the_repo_is_not_read(tmp_path: Path) -> None:
    place = repo(tmp_path / "m")
    inner = place / file_name("tiny", 2)
    inner.rename(tmp_path / "outside.safetensors")
    inner.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(FormatError, match="leaves the repo"):
        study_target(str(place), model=None, layers=(2,))


def test_a_lone_vector_goes_with_the_model_that_it_names(tmp_path: Path) -> None:
    target = file_target(saved(tmp_path / "v.safetensors", revision=COMMIT, dtype="bfloat16"), base=None, layers=())
    assert target.reference.source == HubSource("lab/tiny-base", COMMIT)
    assert target.reference.dtype == "bfloat16"
    assert target.named_by_file
    assert layers_of(target) == [3]


@pytest.mark.parametrize("revision", ["some-package==1.2", "local", "main"])
def test_what_is_no_commit_is_not_asked_for_at_the_hub(tmp_path: Path, revision: str) -> None:
    target = file_target(saved(tmp_path / "v.safetensors", revision=revision), base=None, layers=())
    assert target.reference.source == HubSource("lab/tiny-base", "main")


@pytest.mark.parametrize("name", ["../base", "/etc", "base", ".", "a/b/c", "lab/..", "", "lab/x@"])
def test_a_file_can_not_name_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SteerEvalError, match="names no model of the Hub") as caught:
        file_target(saved(tmp_path / "v.safetensors", model=name), base=None, layers=())
    assert "--base" in caught.value.fix


def test_the_users_model_comes_before_the_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.safetensors", revision=COMMIT)
    with_revision = file_target(path, base="other/model@v2", layers=(0, 9, 0))
    assert with_revision.reference.source == HubSource("other/model", "v2")
    assert layers_of(with_revision) == [0, 9]
    assert not with_revision.named_by_file
    assert file_target(path, base="other/model", layers=()).reference.source == HubSource("other/model", "main")
    (tmp_path / "config.json").write_text("{}")
    local = file_target(path, base=str(tmp_path), layers=())
    assert local.reference.source == LocalSource(str(tmp_path.resolve()))
    assert local.name == str(tmp_path)


@pytest.mark.parametrize("base", ["/nowhere", "nowhere", ""])
def test_a_base_that_is_nothing_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(SteerEvalError, match=f"there is no folder {base}"):
        file_target(saved(tmp_path / "v.safetensors"), base=base, layers=())


def test_a_base_folder_must_be_a_model(tmp_path: Path) -> None:
    with pytest.raises(SteerEvalError, match=r"has no config\.json"):
        file_target(saved(tmp_path / "v.safetensors"), base=str(tmp_path), layers=())


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="dtype"):
        file_target(saved(tmp_path / "v.safetensors", dtype="int8"), base="lab/base", layers=())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_legacy_vector_by_itself(tmp_path: Path, dtype: torch.dtype) -> None:
    path = legacy(tmp_path / "v.pt", vector=torch.tensor([3.0, 4.0, 0.0, 2.0], dtype=dtype))
    target = file_target(path, base=None, layers=())
    assert target.reference.source == HubSource("lab/base", "main")
    # It says how the vector was saved, not in which precision the model was measured.
    assert target.reference.dtype == "float32"
    [placed] = target.placed
    assert placed.layer == 2
    assert np.array_equal(placed.vector.values, np.array([3, 4, 0, 2], dtype=np.float32))


def test_whether_the_weights_are_those_of_the_vector(tmp_path: Path) -> None:
    [placed] = file_target(saved(tmp_path / "v.safetensors"), base=None, layers=()).placed
    sha256 = placed.vector.provenance["weights_sha256"]
    assert placed.is_of(Weights(tmp_path, "main", sha256)) is True
    assert placed.is_of(Weights(tmp_path, "main", "0" * 64)) is False
    [old] = file_target(legacy(tmp_path / "v.pt"), base=None, layers=()).placed
    assert old.is_of(Weights(tmp_path, "main", sha256)) is None


def test_what_is_meant_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "file").write_text("")
    assert [is_vector_file(str(tmp_path / name)) for name in ("absent.pt", "absent.safetensors", "file")] == [True] * 3
    assert not any(is_vector_file(name) for name in (str(tmp_path), str(tmp_path / "folder.pt"), "lab/repo", "\0", ""))
    with pytest.raises(SteerEvalError, match="is no vector file"):
        file_target(str(tmp_path / "file"), base=None, layers=())
    for absent in ("absent.pt", "absent.safetensors"):
        with pytest.raises(FormatError, match="the file is absent"):
            file_target(str(tmp_path / absent), base=None, layers=())


def test_a_vector_inside_a_studys_repo_goes_with_the_weights_that_the_study_names(tmp_path: Path) -> None:
    """So that a layer without a vector can be tried with the vector of another."""
    folder = repo(tmp_path / "persona")
    target = file_target(str(folder / "vectors" / "tiny_L2_caa.safetensors"), base=None, layers=[7])
    study = study_target(str(folder), model=None, layers=[2])

    assert target.reference == study.reference
    assert [placed.layer for placed in target.placed] == [7]
