"""`steer-eval transfer` with fewer rows than dimensions: what is carried rests on the rows, and never on rounding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_models import HIDDEN
from tiny_study import Folders, invoke
from transfer_study import PLANNED

from steer_eval.formats.transfer import rank_of, read_transfer_map, read_transferred, write_transfer_map
from steer_eval.transfer.maps import random_rotation

STEM = "transfer/tiny_L2_to_tiny_L1"
ROWS = 30


def plan(folders: Folders, **changes: Any) -> None:
    file = folders.model / "study.yaml"
    planned = {**PLANNED, "target": {"model": "tiny", "layer": 1}, "protocol": "plain", **changes}
    study = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**study, "transfers": [planned]}, sort_keys=False))


def steps(folders: Folders, *each: list[str]) -> None:
    for step in each:
        answer = invoke(*step[:2], str(folders.model), *step[2:])
        assert answer.exit_code == 0, answer.output


def validated(folders: Folders) -> list[tuple[str, str]]:
    answer = invoke("validate", str(folders.model), "--json")
    return [(each["rule"], Path(each["file"]).name) for each in json.loads(answer.stdout)["findings"]]


def carried(folder: Path) -> np.ndarray:
    return read_transferred(folder / f"{STEM}_vectors.safetensors").carried["procrustes"].astype(np.float64)


@pytest.fixture
def fitted(folders: Folders) -> Folders:
    plan(folders)
    steps(folders, ["transfer", "fit"], ["transfer", "apply"])
    return folders


@pytest.mark.parametrize("protocol", ["plain", "sentences"])
def test_batches_of_another_size_measure_what_was_published(folders: Folders, protocol: str) -> None:
    plan(folders, protocol=protocol)
    steps(
        folders,
        ["transfer", "fit"],
        ["transfer", "apply"],
        ["transfer", "diagnose", "--memory", "1e-7"],
        ["card"],
        ["validate"],
    )

    before = carried(folders.model)
    (folders.model / f"{STEM}.safetensors").unlink()
    steps(folders, ["transfer", "fit", "--memory", "1e-7"], ["transfer", "apply"])
    assert np.linalg.norm(carried(folders.model) - before) < 1e-4 * np.linalg.norm(before)


def test_a_map_turns_no_more_directions_than_it_had_rows(fitted: Folders) -> None:
    maps = read_transfer_map(fitted.model / f"{STEM}.safetensors")

    assert HIDDEN > ROWS
    assert (maps.provenance["n_rows"], rank_of(maps.orthogonal)) == (str(ROWS), ROWS)


def test_one_that_turns_more_is_found_and_fitted_again(fitted: Folders) -> None:
    """As older versions did, the rest of which was decided by rounding."""
    path = fitted.model / f"{STEM}.safetensors"
    good = path.read_bytes()
    whole = random_rotation(np.random.default_rng(0), HIDDEN, HIDDEN).astype(np.float32)
    write_transfer_map(path, replace(read_transfer_map(path), orthogonal=whole))
    steps(fitted, ["transfer", "apply"], ["card"])

    assert validated(fitted) == [("transfer-map", path.name)]
    steps(fitted, ["transfer", "fit"], ["transfer", "apply"], ["card"], ["validate"])
    assert path.read_bytes() == good


def test_a_rotation_to_nothing_is_found(fitted: Folders) -> None:
    path = fitted.model / f"{STEM}.safetensors"
    maps = read_transfer_map(path)
    write_transfer_map(path, replace(maps, orthogonal=np.zeros_like(maps.orthogonal)))
    (fitted.model / f"{STEM}_vectors.safetensors").unlink()
    steps(fitted, ["card"])

    answer = invoke("validate", str(fitted.model), "--json")
    [found] = json.loads(answer.stdout)["findings"]
    assert (found["rule"], found["where"], found["observed"]) == ("transfer-map", "R", 0)


def test_diagnostics_of_another_rank_are_not_of_the_map(fitted: Folders) -> None:
    steps(fitted, ["transfer", "diagnose"], ["card"], ["validate"])
    path = fitted.model / f"{STEM}_diagnostics.json"
    document = json.loads(path.read_text())
    settings = document["protocols"]["plain"]["maps"]["procrustes"]["settings"]
    assert settings["rank"] == ROWS
    settings["rank"] = HIDDEN
    path.write_text(json.dumps(document))
    steps(fitted, ["card"])

    assert [rule for rule, _ in validated(fitted)] == ["transfer-diagnostics"]
