"""`steer-eval transfer` end to end: a study of two models of which one is the other, rotated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_models import save_tiny_model
from tiny_study import document, invoke
from transfer_models import ROTATION
from transfer_study import BACK, NAME, PLANNED, Place

from steer_eval.digest import sha256_text
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.transfer import TransferMap, read_transfer_map, read_transferred, write_transfer_map
from steer_eval.formats.vector import file_name, read_vector


def test_the_planted_map_is_fitted_and_says_where_it_is_from(transferred: Place) -> None:
    maps = read_transfer_map(transferred.model / f"transfer/{NAME}.safetensors")

    assert np.abs(maps.orthogonal - ROTATION).max() < 1e-3
    assert maps.centring is not None
    assert maps.centring.scale == pytest.approx(1.0, abs=1e-4)
    assert np.allclose(maps.centring.large @ ROTATION, maps.centring.small, atol=1e-3)
    assert (maps.layer_large, maps.layer_small) == (2, 2)
    assert {key: maps.provenance[key] for key in ("model_large", "model_small", "protocol", "n_texts")} == {
        "model_large": "lab/tiny-base",
        "model_small": "lab/tiny-turned",
        "protocol": "recommended",
        "n_texts": maps.provenance["n_texts"],
    }
    assert json.loads(maps.provenance["plan"])["text"] == {"OfflineText": {"name": "neutral-sentences"}}


def test_a_map_that_is_there_is_not_fitted_again_and_another_seed_is(transferred: Place) -> None:
    file = transferred.model / f"transfer/{NAME}.safetensors"
    before = file.stat().st_mtime_ns

    answer = invoke("transfer", "fit", str(transferred.model), "--json")

    rows = json.loads(answer.stdout)["maps"]
    assert [row["file"] for row in rows] == [
        f"transfer/{NAME}.safetensors",
        "transfer/turned_L1_to_tiny_L2.safetensors",
    ]
    assert file.stat().st_mtime_ns == before
    transferred.plan({**PLANNED, "seed": 1}, BACK)
    assert invoke("transfer", "fit", str(transferred.model)).exit_code == 0
    assert file.stat().st_mtime_ns > before
    transferred.plan(PLANNED, BACK)
    assert invoke("transfer", "fit", str(transferred.model)).exit_code == 0


def test_carried_vectors_are_steering_vectors_of_the_target(transferred: Place) -> None:
    native = read_vector(transferred.model / file_name("turned", 2))
    file = read_transferred(transferred.model / f"transfer/{NAME}_vectors.safetensors")

    for kind, closest in (("ridge", 0.99), ("procrustes", 0.99999)):
        carried = read_vector(transferred.model / f"vectors/transferred/tiny-L2_to_turned-L2-{kind}.safetensors")
        cosine = float(carried.values @ native.values / (carried.norm * native.norm))
        assert cosine > closest
        assert carried.norm == pytest.approx(native.norm, rel=1e-6)
        assert carried.provenance["model"] == "lab/tiny-turned"
        assert carried.provenance["method"] == f"transfer-{kind}"
        assert np.array_equal(carried.values, file.carried[kind])
    random = file.carried["random"]
    assert abs(float(random @ native.values) / native.norm**2) < 0.6
    assert np.array_equal(file.native, native.values)
    assert (file.layer, file.coefficient) == (2, 2.0)


def test_each_diagnostic_stands_beside_its_null(transferred: Place) -> None:
    documents = [
        json.loads((transferred.model / f"transfer/{name}_diagnostics.json").read_text())
        for name in (NAME, "turned_L1_to_tiny_L2")
    ]
    for found in documents:
        schema.check(found, "transfer_diagnostics", file="diagnostics")
    measured = documents[0]["protocols"]["recommended"]

    assert measured["debiased_cka"]["value"] == pytest.approx(1.0, abs=1e-4)
    assert measured["debiased_cka"]["null_95"] < 0.1
    assert measured["svcca"]["value"] > 0.999
    assert measured["maps"]["procrustes"]["held_out_r2"] == {
        "value": pytest.approx(1.0, abs=1e-4),
        "null_95": measured["maps"]["procrustes"]["held_out_r2"]["null_95"],
        "p": 0.05,
        "draws": 19,
    }
    assert measured["maps"]["procrustes"]["held_out_r2"]["null_95"] < 0.05
    assert measured["maps"]["procrustes"]["cosine_to_native"]["value"] == pytest.approx(1.0, abs=1e-4)
    assert measured["maps"]["procrustes"]["retrieval"]["value"] == 1.0
    assert measured["maps"]["procrustes"]["retrieval"]["chance"] == 0.2
    assert measured["maps"]["random"]["held_out_r2"]["value"] < 0.05
    assert documents[0]["source"]["split_half_cosine"] == pytest.approx(
        documents[0]["target"]["split_half_cosine"], abs=1e-3
    )
    plain = documents[0]["protocols"]["plain"]
    assert (plain["settings"]["rows"], plain["settings"]["alphas"], plain["n_texts"]) == ("chats", [1.0], 30)


def test_what_was_written_is_in_order_and_two_transfers_are_told_apart(transferred: Place) -> None:
    assert transferred.findings() == []


def test_maps_and_diagnostics_are_of_the_studys_chat_template(transferred: Place, tmp_path: Path) -> None:
    shutil.copytree(transferred.model.parent, tmp_path / "copy")
    place = Place(tmp_path / "copy" / "tiny", tmp_path / "copy" / "tiny-data")
    study = place.model / "study.yaml"
    without = study.read_text()
    value = yaml.safe_load(without)
    template = "{{ messages[-1].content }} "
    value["models"]["turned"]["chat_template"] = template
    study.write_text(yaml.safe_dump(value, sort_keys=False))
    assert place.findings() == ["transfer-diagnostics"] * 2
    place.plan(PLANNED)
    for step in ("fit", "diagnose"):
        assert invoke("transfer", step, str(place.model)).exit_code == 0
    file = f"transfer/{NAME}.safetensors"
    digest = sha256_text(template)
    assert read_transfer_map(place.model / file).provenance["chat_template_sha256_small"] == digest
    document = json.loads((place.model / f"transfer/{NAME}_diagnostics.json").read_text())
    assert document["target"]["chat_template_sha256"] == digest
    assert "chat_template_sha256" not in document["source"]

    study.write_text(without)
    assert invoke("transfer", "fit", str(place.model)).exit_code == 0
    dropped, before = (read_transfer_map(root / file) for root in (place.model, transferred.model))
    assert dropped.provenance == before.provenance


def test_a_map_that_did_not_carry_the_vectors_is_found(transferred: Place) -> None:
    path = transferred.model / f"transfer/{NAME}.safetensors"
    good = read_transfer_map(path)
    content = path.read_bytes()
    fields = {**vars(good), "ridge": np.roll(good.ridge, 1, axis=0)}
    write_transfer_map(path, TransferMap(**fields))

    assert transferred.findings() == ["transfer-map"]
    path.write_bytes(content)


def test_a_map_of_other_layers_does_not_carry(transferred: Place) -> None:
    path = transferred.model / f"transfer/{NAME}.safetensors"
    content = path.read_bytes()
    write_transfer_map(path, TransferMap(**{**vars(read_transfer_map(path)), "layer_small": 1}))

    with pytest.raises(SteerEvalError, match="does not lead from the source"):
        invoke("transfer", "apply", str(transferred.model))
    path.write_bytes(content)


def test_between_two_layers_of_a_hybrid(tmp_path: Path) -> None:
    """Recurrent layers among the others: read, carried and measured by the commands themselves."""
    place = Place(tmp_path / "tiny", tmp_path / "tiny-data")
    place.model.mkdir()
    save_tiny_model(tmp_path / "base", "qwen3_5")
    place.begin(document())
    place.plan({**PLANNED, "target": {"model": "tiny", "layer": 1}})
    for step in ("fit", "diagnose", "apply"):
        assert invoke("transfer", step, str(place.model)).exit_code == 0

    found = json.loads((place.model / "transfer/tiny_L2_to_tiny_L1_diagnostics.json").read_text())
    measured = found["protocols"]["recommended"]
    assert measured["debiased_cka"]["p"] == pytest.approx(1 / 201, abs=1e-6)
    assert measured["maps"]["ridge"]["held_out_r2"]["value"] > 0.5
    assert measured["maps"]["ridge"]["held_out_r2"]["p"] == 0.05
    native = read_vector(place.model / file_name("tiny", 1))
    carried = read_vector(place.model / "vectors/transferred/tiny-L2_to_tiny-L1-ridge.safetensors")
    cosine = float(carried.values @ native.values / (carried.norm * native.norm))
    assert cosine == pytest.approx(measured["maps"]["ridge"]["cosine_to_native"]["value"], abs=1e-4)
    assert place.findings() == []
