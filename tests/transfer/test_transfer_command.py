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
from safetensors.numpy import load_file, save_file
from tiny_models import save_tiny_model
from tiny_study import SCENARIOS, document, invoke
from transfer_models import ROTATION, rotated_language_model

from steer_eval.digest import sha256_text
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.safetensors_file import read_header
from steer_eval.formats.strict_json import write_jsonl
from steer_eval.formats.transfer import TransferMap, read_transfer_map, read_transferred, write_transfer_map
from steer_eval.formats.vector import SteeringVector, file_name, read_vector, write_vector
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


def recorded(place: Place, **said: str | None) -> str:
    """Change what a map's header records, and whatever the file says of itself; None takes an entry out."""
    path = place.model / f"transfer/{NAME}.safetensors"
    header, tensors = read_header(path, name=path.name), load_file(path)
    metadata = {key: value for key, value in {**header["__metadata__"], **said}.items() if value is not None}
    save_file(tensors, path, metadata)
    return f"transfer/{NAME}.safetensors"


@pytest.fixture
def copy(transferred: Place, tmp_path: Path) -> Place:
    shutil.copytree(transferred.model.parent, tmp_path / "copy")
    return Place(tmp_path / "copy" / "tiny", tmp_path / "copy" / "tiny-data")


HOSTILE = [
    ("random_seed", "abc"),
    ("random_seed", "-3"),
    ("random_scale", "nan"),
    ("random_scale", "0"),
    ("random_scale", "0.0e5"),
    ("scale", "0.0"),
    ("scale", "inf"),
    ("n_rows", "x"),
    ("n_texts", "-1"),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_a_map_that_records_nonsense_is_named_with_the_field_and_fitted_again(
    copy: Place, field: str, value: str
) -> None:
    file = recorded(copy, **{field: value})

    with pytest.raises(FormatError, match=rf"^{file}: header: __metadata__\.{field}: ") as refused:
        invoke("transfer", "apply", str(copy.model))
    assert refused.value.fix
    inventory = take_inventory([Root(copy.model, "", "model")])
    assert [
        (artifact.path, trouble.where)
        for artifact in inventory.artifacts
        for trouble in artifact.troubles
        if artifact.kind == "transfer_map"
    ] == [(file, f"header: __metadata__.{field}")]
    answer = invoke("transfer", "fit", str(copy.model), "--json")
    assert json.loads(answer.stdout)["maps"][0]["rows"] > 12
    assert invoke("transfer", "apply", str(copy.model)).exit_code == 0


@pytest.mark.parametrize("field", ["n_rows", "n_texts", "random_scale"])
def test_a_map_that_does_not_say_how_it_was_fitted_is_fitted_again(copy: Place, field: str) -> None:
    recorded(copy, **{field: None})

    answer = invoke("transfer", "fit", str(copy.model), "--json")

    assert json.loads(answer.stdout)["maps"][0]["file"] == f"transfer/{NAME}.safetensors"
    assert field in read_transfer_map(copy.model / f"transfer/{NAME}.safetensors").provenance


@pytest.mark.parametrize(("field", "tensor"), [("ridge", "W"), ("orthogonal", "R")])
def test_a_map_to_nothing_carries_nothing(copy: Place, field: str, tensor: str) -> None:
    path = copy.model / f"transfer/{NAME}.safetensors"
    maps = read_transfer_map(path)
    write_transfer_map(path, TransferMap(**{**vars(maps), field: np.zeros_like(maps.ridge)}))

    with pytest.raises(FormatError, match=rf"{path.name}: {tensor}: the map leaves nothing"):
        invoke("transfer", "apply", str(copy.model))


@pytest.mark.parametrize("model", ["tiny", "turned"])
def test_a_vector_that_is_zero_is_not_carried(copy: Place, model: str) -> None:
    path = copy.model / file_name(model, 2)
    vector = read_vector(path)
    write_vector(path, SteeringVector(np.zeros_like(vector.values), 2, {**vector.provenance, "norm": "0"}))

    with pytest.raises(FormatError, match=rf"{path.name}: .*the vector is zero"):
        invoke("transfer", "apply", str(copy.model))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["the"] * 30, "all alike"),
        (["a b c d e f g h i j k l m"] * 12, "all alike"),
        (["a b c d e f g h i j k l m"] * 11 + ["The river rose."], "all alike"),
    ],
    ids=["one word", "one text", "all but one"],
)
def test_texts_that_do_not_differ_are_refused(copy: Place, texts: list[str], message: str) -> None:
    write_jsonl(copy.data / "texts.jsonl", [{"text": text} for text in texts])
    copy.plan({**PLANNED, "text": {"files": ["texts.jsonl"]}})

    with pytest.raises(SteerEvalError, match=message):
        invoke("transfer", "diagnose", str(copy.model))


def test_memory_is_bounded_as_elsewhere(copy: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_EVAL_TRANSFER_FIT_MEMORY", "-1")
    assert invoke("transfer", "fit", str(copy.model)).exit_code == 2
    monkeypatch.setenv("STEER_EVAL_TRANSFER_FIT_MEMORY", "0.000001")
    shutil.rmtree(copy.model / "transfer")
    copy.plan(PLANNED)
    assert invoke("transfer", "fit", str(copy.model)).exit_code == 0
    answer = invoke("transfer", "diagnose", str(copy.model), "--memory", "0.000001")
    assert "nulls" in answer.stderr
    assert "rows" in answer.stderr


def test_between_two_layers_of_a_hybrid(tmp_path: Path) -> None:
    """Recurrent layers among the others: read, carried and measured by the commands themselves."""
    place = Place(tmp_path / "tiny", tmp_path / "tiny-data")
    place.model.mkdir()
    save_tiny_model(tmp_path / "base", "qwen3_5")
    (place.model / "study.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    write_jsonl(
        place.data / "contrast_pairs.jsonl",
        [{"scenario": s, "angry": f"I am done. {s}", "calm": f"I see. {s} Fine."} for s in SCENARIOS],
    )
    assert invoke("extract", str(place.model)).exit_code == 0
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
