"""What `steer-eval transfer` refuses: impossible plans, and maps and vectors that carry nothing or say nonsense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_study import SCENARIOS, invoke
from transfer_study import BACK, NAME, PLANNED, Place

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.safetensors_file import read_header
from steer_eval.formats.strict_json import write_jsonl
from steer_eval.formats.transfer import TransferMap, read_transfer_map, write_transfer_map
from steer_eval.formats.vector import SteeringVector, file_name, read_vector, write_vector
from steer_eval.inventory import Root, take_inventory
from steer_eval.transfer.diagnose import measured
from steer_eval.transfer.heldout import PairedRows
from steer_eval.transfer.protocol import PROTOCOLS


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


@pytest.mark.parametrize("norm", [0.0, 2e-15], ids=["zero", "rounding"])
@pytest.mark.parametrize("model", ["tiny", "turned"])
def test_a_vector_of_which_nothing_is_left_is_not_carried(copy: Place, model: str, norm: float) -> None:
    """What two equal replies leave has a norm, which is nothing beside the residuals that it is a difference of."""
    path = copy.model / file_name(model, 2)
    vector = read_vector(path)
    rest = (vector.values * (norm / vector.norm)).astype(np.float32)
    write_vector(path, SteeringVector(rest, 2, {**vector.provenance, "norm": str(norm)}))

    with pytest.raises(FormatError, match=rf"{path.name}: .*the vector is zero"):
        invoke("transfer", "apply", str(copy.model))


@pytest.mark.parametrize("replies", [("I am done.", "I am done."), None], ids=["equal", "each the other's"])
def test_pairs_that_add_nothing_are_refused(copy: Place, replies: tuple[str, str] | None) -> None:
    ways = [("I am done. She left.", "I see."), ("I see.", "I am done. She left.")] if replies is None else [replies]
    write_jsonl(
        copy.data / "contrast_pairs.jsonl",
        [{"scenario": s, "angry": one, "calm": other} for s in SCENARIOS for one, other in ways],
    )

    for step in (["extract"], ["transfer", "diagnose"]):
        with pytest.raises(SteerEvalError, match="the contrast pairs add nothing to the") as refused:
            invoke(*step, str(copy.model))
        assert "different texts" in str(refused.value.fix)


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_vector_is_nothing_beside_the_differences_that_it_is_a_mean_of(end: str) -> None:
    random = np.random.default_rng(0)
    rows = PairedRows(random.standard_normal((40, 5)), random.standard_normal((40, 5)), np.arange(40))
    ends = {name: random.standard_normal((7, 5)) for name in ("source", "target")}
    ends[end] -= ends[end].mean(axis=0)

    with pytest.raises(SteerEvalError, match=f"add nothing to the {end}'s residuals"):
        measured(PROTOCOLS["recommended"], rows, **ends, seed=0, draws=1)


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
