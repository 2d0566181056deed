"""`steer-eval transfer` end to end: a study of two models of which one is the other, rotated."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_models import save_tiny_model
from tiny_study import SCENARIOS, document, invoke
from transfer_models import ROTATION, rotated_language_model

from steer_eval.digest import sha256_text
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.strict_json import write_jsonl
from steer_eval.formats.transfer import TransferMap, read_transfer_map, read_transferred, write_transfer_map
from steer_eval.formats.vector import file_name, read_vector
from steer_eval.inventory import Root, take_inventory
from steer_eval.rules.transfer_diagnostics import diagnostics_findings, planned_diagnostics_findings
from steer_eval.rules.transfers import transfer_findings
from steer_eval.study import load_study

NAME = "tiny_L2_to_turned_L2"
PLANNED = {
    "source": {"model": "tiny", "layer": 2},
    "target": {"model": "turned", "layer": 2},
    "text": {"offline": "neutral-sentences"},
    "coefficient": 2,
    "words": 400,
    "draws": 19,
}
BACK = {**PLANNED, "source": {"model": "turned", "layer": 1}, "target": {"model": "tiny", "layer": 2}, "seed": 5}


@dataclass(frozen=True)
class Place:
    model: Path
    data: Path

    def plan(self, *transfers: dict[str, Any]) -> None:
        file = self.model / "study.yaml"
        what = yaml.safe_load(file.read_text())
        # Copied, for what is shared would be written as an alias.
        planned = [deepcopy(each) for each in transfers]
        file.write_text(yaml.safe_dump({**what, "transfers": planned}, sort_keys=False))

    def findings(self) -> list[str]:
        inventory = take_inventory([Root(self.model, "m/", "model"), Root(self.data, "d/", "dataset")])
        assert not [artifact for artifact in inventory.artifacts if artifact.troubles]
        study = load_study(self.model / "study.yaml")
        findings = [
            *transfer_findings(inventory, {}),
            *diagnostics_findings(inventory),
            *planned_diagnostics_findings(study, inventory, "m/"),
        ]
        return [str(finding.rule) for finding in findings]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("transfer")
    place = Place(root / "tiny", root / "tiny-data")
    place.model.mkdir()
    save_tiny_model(root / "base")
    turned = rotated_language_model("llama")
    turned.module.save_pretrained(root / "turned")
    turned.tokenizer.save_pretrained(root / "turned")
    models = document()["models"]
    models["turned"] = {"base_model": "lab/tiny-turned", "source": {"local": {"path": "../turned"}}}
    (place.model / "study.yaml").write_text(yaml.safe_dump({**document(), "models": models}, sort_keys=False))
    write_jsonl(
        place.data / "contrast_pairs.jsonl",
        [{"scenario": s, "angry": f"I am done. {s}", "calm": f"I see. {s} Fine."} for s in SCENARIOS],
    )
    assert invoke("extract", str(place.model)).exit_code == 0
    place.plan(PLANNED, BACK)
    return place


@pytest.fixture(scope="module")
def transferred(place: Place) -> Place:
    for step in ("fit", "apply", "diagnose"):
        assert invoke("transfer", step, str(place.model)).exit_code == 0
    return place


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


def test_without_a_map_there_is_nothing_to_carry(place: Place) -> None:
    place.plan({**PLANNED, "source": {"model": "tiny", "layer": 1}})

    with pytest.raises(SteerEvalError, match=r"tiny_L1_to_turned_L2\.safetensors: the file is absent"):
        invoke("transfer", "apply", str(place.model))
    place.plan(PLANNED, BACK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": {"model": "huge", "layer": 2}}, "no such model"),
        ({"target": {"model": "turned", "layer": 3}}, "no vector there"),
        ({"target": {"model": "tiny", "layer": 2}}, "to where it is from"),
        ({"protocol": "fancy"}, "protocol"),
        ({"text": {"offline": "poems"}}, "text"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(place: Place, change: dict[str, Any], message: str) -> None:
    place.plan({**PLANNED, **change})

    with pytest.raises(SteerEvalError, match=message):
        invoke("transfer", "fit", str(place.model))
    place.plan(PLANNED, BACK)


def test_one_transfer_is_planned_once(place: Place) -> None:
    place.plan(PLANNED, {**PLANNED, "seed": 3})

    with pytest.raises(SteerEvalError, match="two transfers from one place"):
        invoke("transfer", "fit", str(place.model))
    place.plan(PLANNED, BACK)


def test_a_study_without_transfers_says_where_to_plan_them(produced: Any) -> None:
    with pytest.raises(SteerEvalError, match="plans no transfer"):
        invoke("transfer", "diagnose", str(produced.model))
