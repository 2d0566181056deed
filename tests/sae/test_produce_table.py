"""`steer-eval sae features` on a tiny study: what it reads, what it refuses, and an architecture that is no Llama."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sae_study import SAE, edit, write_documents
from some_saes import random_sae
from tiny_models import HIDDEN, save_tiny_model
from tiny_study import SCENARIOS, Folders, invoke

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.saelens import read_saelens, write_saelens
from steer_eval.formats.strict_json import read_json, read_jsonl, write_json, write_jsonl

FOLDER = "saes/tiny/layers.2"
TABLE = "saes/tiny_L2_features.json"
SMALL = {**SAE, "features": 48, "table": {"coefficient": 1, "top": 5}}


@pytest.fixture(scope="module")
def trained(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = produced.copy(tmp_path_factory.mktemp("trained") / "repos")
    write_documents(folders)
    edit(folders, saes=[SMALL], claims=[])
    assert invoke("sae", "train", str(folders.model)).exit_code == 0
    return folders


@pytest.fixture
def place(trained: Folders, tmp_path: Path) -> Folders:
    return trained.copy(tmp_path / "repos")


def table_of(place: Folders) -> dict[str, Any]:
    answer = invoke("sae", "features", str(place.model))
    assert answer.exit_code == 0, answer.output
    table = read_json(place.model / TABLE)
    schema.check(table, "features", file=TABLE)
    return dict(table)


def refused(place: Folders, command: str = "features") -> SteerEvalError:
    with pytest.raises(SteerEvalError) as caught:
        invoke("sae", command, str(place.model))
    assert not (place.model / TABLE).exists()
    return caught.value


def record(place: Folders, **recorded: str | None) -> None:
    path = place.model / FOLDER / "cfg.json"
    config = read_json(path)
    said = {**config["metadata"]["steer_eval"], **recorded}
    config["metadata"]["steer_eval"] = {key: value for key, value in said.items() if value is not None}
    write_json(path, config)


@pytest.mark.parametrize(("width", "layer", "where"), [(HIDDEN - 16, 2, "d_in"), (HIDDEN, 1, "metadata.hook_name")])
def test_an_sae_of_something_else_is_refused_before_anything_is_read(
    place: Folders, monkeypatch: pytest.MonkeyPatch, width: int, layer: int, where: str
) -> None:
    write_saelens(place.model / FOLDER, random_sae(width, 48, 4, layer=layer))
    monkeypatch.setattr(
        "steer_eval.sae.produce_table.table_replies", lambda *_: pytest.fail("something was read for it")
    )

    error = refused(place)

    assert isinstance(error, FormatError)
    assert (error.file, error.where) == (f"{FOLDER}/cfg.json", where)
    assert error.fix


@pytest.mark.parametrize("said", ["abc", "nan", "-1"])
def test_a_threshold_that_is_no_norm_is_refused(place: Folders, said: str) -> None:
    record(place, sink_norm=said)

    error = refused(place)

    assert isinstance(error, FormatError)
    assert (error.file, error.where) == (f"{FOLDER}/cfg.json", "metadata.steer_eval.sink_norm")


def test_a_threshold_below_all_norms_leaves_nothing_to_measure(place: Folders) -> None:
    record(place, sink_norm="0.001")

    error = refused(place)

    assert "attention sink" in error.message
    assert "sink_norm" in error.message


@pytest.mark.parametrize("recorded", [{"quality": None}, {"quality": "{}"}, {"sink_norm": "abc"}])
def test_an_sae_that_does_not_say_how_good_it_is_is_trained_again(
    place: Folders, recorded: dict[str, str | None]
) -> None:
    before = (place.model / FOLDER / "cfg.json").read_bytes()
    record(place, **recorded)

    answer = invoke("sae", "train", str(place.model), "--json")

    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["saes"][0]["dead_share"] >= 0
    assert (place.model / FOLDER / "cfg.json").read_bytes() == before


def without_random_texts(place: Folders, prompts: set[int]) -> None:
    """Let the random direction's texts of some prompts be empty."""
    path = place.data / "sweep_tiny.jsonl"
    rows = [row.value for row in read_jsonl(path, schema="sweep_row")]
    [pushed] = [row for row in rows if (row["label"], row["layer"], row["coef"]) == ("random", 2, 1)]
    for text in pushed["generations"]:
        if text["prompt_idx"] in prompts:
            text["gen"] = ""
    write_jsonl(path, rows)


def test_the_random_control_is_over_the_prompts_that_have_its_texts(place: Folders) -> None:
    whole = table_of(place)
    without_random_texts(place, {1, 3})

    partial = table_of(place)

    assert "n_random_prompts" not in whole
    assert (partial["n_prompts"], partial["n_random_prompts"]) == (len(SCENARIOS), len(SCENARIOS) - 2)
    assert "random_delta" in partial["discoveries"]
    for row, same in zip(partial["top_features"], whole["top_features"], strict=True):
        control = {"random_delta", "random_delta_interval", "random_delta_q"}
        assert control <= row.keys()
        assert {key: row[key] for key in row.keys() - control} == {key: same[key] for key in same.keys() - control}
    report = json.loads(invoke("validate", str(place.model), "--json").stdout)
    assert {each["rule"] for each in report["findings"] if each["file"].endswith(TABLE)} <= {
        "checksum",
        "manifest-size",
    }
    without_random_texts(place, set(range(len(SCENARIOS))))
    assert "random_delta" not in table_of(place)["discoveries"]


@pytest.mark.parametrize(("architecture", "block"), [("qwen3_5", "model.layers.2"), ("gpt2", "transformer.h.2")])
def test_other_architectures_from_text_to_table(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, block: str
) -> None:
    """One whose blocks are partly recurrent, and one whose blocks go by other names."""
    monkeypatch.setenv("STEER_EVAL_CACHE", str(tmp_path / "cache"))
    base = folders.model.parent / "base"
    shutil.rmtree(base)
    save_tiny_model(base, architecture)
    write_documents(folders)
    edit(folders, saes=[SMALL], claims=[])
    for command in (["extract"], ["sweep", "--run", str(tmp_path / "run")], ["sae", "train"]):
        assert invoke(*command, str(folders.model)).exit_code == 0

    table = table_of(folders)

    sae = read_saelens(folders.model / FOLDER)
    assert (sae.d_in, sae.d_sae, sae.block) == (HIDDEN, 48, block)
    assert read_json(folders.model / FOLDER / "cfg.json")["metadata"]["hf_hook_name"] == block
    assert json.loads(sae.provenance["quality"])["held_out_fvu"] < 1
    assert len(table["top_features"]) == 5
    assert table["top_features"][0]["effect"] > 0
    assert "random_delta" in table["discoveries"]
    assert any(row["contexts"] for row in table["top_features"])
    assert invoke("card", str(folders.model)).exit_code == 0
    report = json.loads(invoke("validate", str(folders.model), "--strict", "--json").stdout)
    assert report["findings"] == []
