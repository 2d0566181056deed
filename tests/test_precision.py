import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_study import COEFFICIENTS, LAYERS, SCENARIOS, Folders, invoke

from steer_eval.cells import random_direction
from steer_eval.formats.vector import SteeringVector, cosine, file_name, read_vector, write_vector
from steer_eval.precision import DRIFT, RATIO_CELLS, TEXT_CELLS, TEXT_PROMPTS, evenly
from steer_eval.results_files import read_environments


def sweep(folders: Folders, out: Path, *arguments: str) -> dict:
    run = out.with_name(f"{out.name}-run")
    result = invoke("sweep", str(folders.model), "--run", str(run), "--out", str(out), *arguments)
    assert result.exit_code == 0, result.output
    return {
        (row["label"], row["layer"], row["coef"]): row
        for row in map(json.loads, (out / "sweep_tiny.jsonl").read_text(encoding="utf-8").splitlines())
    }


def test_a_sweep_in_bfloat16_says_how_far_it_is_from_float32(folders, tmp_path):
    rows = sweep(folders, tmp_path / "faster", "--dtype", "bfloat16")
    exact = sweep(folders, tmp_path / "exact")
    environment = read_environments(tmp_path / "faster")["tiny"]
    assert environment["dtype"] == "bfloat16"
    assert "bfloat16" in environment["machine_class"]
    drift = environment["drift"]
    steered = [("steered", layer, coefficient) for layer in LAYERS for coefficient in COEFFICIENTS]
    assert len(steered) <= min(RATIO_CELLS, TEXT_CELLS)
    differences = sorted(abs(rows[cell]["ppl_ratio"] / exact[cell]["ppl_ratio"] - 1) for cell in steered)
    assert drift["against"] == "float32"
    assert drift["ratio_cells"] == len(steered)
    assert drift["ratio_largest"] == pytest.approx(differences[-1], rel=1e-3)
    assert drift["ratio_median"] == pytest.approx((differences[2] + differences[3]) / 2, rel=1e-3)
    assert 0 < drift["ratio_largest"] < 0.1
    texts = [
        (mine["gen"], theirs["gen"])
        for cell in steered
        for mine, theirs in zip(rows[cell]["generations"], exact[cell]["generations"], strict=True)
    ]
    assert drift["texts"] == len(texts) <= len(steered) * TEXT_PROMPTS
    assert drift["texts_identical"] == sum(mine == theirs for mine, theirs in texts)
    assert drift["collapse_differs"] == 0


@pytest.mark.parametrize("higher", ["float32", "bfloat16"])
def test_a_cell_that_collapses_in_one_precision_only_is_not_left_out(folders, tmp_path, higher):
    """The collapse ratio is set between the two ratios of one cell; all texts that are there count."""
    lower = "bfloat16" if higher == "float32" else "float32"
    steered = [("steered", layer, coefficient) for layer in LAYERS for coefficient in COEFFICIENTS]
    for seed in range(20):
        for layer in LAYERS:
            path = folders.model / file_name("tiny", layer)
            vector = read_vector(path)
            write_vector(path, replace(vector, values=random_direction(vector.values, seed=seed, layer=layer)))
        measured = (sweep(folders, tmp_path / f"{seed}{dtype}", "--dtype", dtype) for dtype in (higher, lower))
        high, low = ({each: row["ppl_ratio"] for each, row in rows.items()} for rows in measured)
        apart = {cell: high[cell] - low[cell] for cell in steered if low[cell] > 1}
        if max(apart.values(), default=0.0) > 1e-4:
            break
    cell = max(apart, key=lambda cell: apart[cell])
    threshold = (high[cell] + low[cell]) / 2
    assert 1 < low[cell] < threshold < high[cell]
    change(folders, lambda study: study["sweep"].update(collapse_ratio=threshold))
    rows = sweep(folders, tmp_path / "faster", "--dtype", "bfloat16")
    exact = sweep(folders, tmp_path / "exact", "--dtype", "float32")
    drift = read_environments(tmp_path / "faster")["tiny"]["drift"]

    differing = [each for each in steered if rows[each]["collapsed"] != exact[each]["collapsed"]]
    assert cell in differing
    assert drift["collapse_differs"] == len(differing)
    mine, theirs = (
        {(each, text["prompt_idx"]): text["gen"] for each in steered for text in table[each].get("generations", ())}
        for table in (rows, exact)
    )
    assert drift["texts"] == len(mine)
    assert drift["texts_identical"] == sum(theirs.get(place) == text for place, text in mine.items())
    # Where float32 collapses, the texts of the cell are among those that are not identical.
    assert any(place[0] == cell for place in mine) == (higher == "float32")


def change(folders: Folders, how: Callable[[dict[str, Any]], object]) -> None:
    path = folders.model / "study.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    how(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def test_a_study_in_bfloat16_needs_no_option_for_that(folders, tmp_path):
    change(folders, lambda study: study["models"]["tiny"].update(dtype="bfloat16"))
    sweep(folders, tmp_path / "own")
    environment = read_environments(tmp_path / "own")["tiny"]
    assert environment["dtype"] == "bfloat16"
    assert environment["drift"]["ratio_cells"] == len(LAYERS) * len(COEFFICIENTS)
    sweep(folders, tmp_path / "exact", "--dtype", "float32")
    assert "drift" not in read_environments(tmp_path / "exact")["tiny"]


def test_vectors_in_bfloat16_say_how_far_they_are_from_float32(folders, tmp_path):
    for name, dtype in (("faster", "bfloat16"), ("exact", "float32")):
        assert invoke("extract", str(folders.model), "--out", str(tmp_path / name), "--dtype", dtype).exit_code == 0
    for layer in LAYERS:
        ours, exact = (read_vector(tmp_path / name / file_name("tiny", layer)) for name in ("faster", "exact"))
        assert DRIFT not in exact.provenance
        stated = json.loads(ours.provenance[DRIFT])
        # So few pairs are all in the sample.
        assert (stated["against"], stated["pairs"]) == ("float32", len(SCENARIOS))
        assert stated["cosine"] == pytest.approx(cosine(ours, exact), abs=1e-6)
        assert stated["norm"] == pytest.approx(abs(ours.norm / exact.norm - 1), abs=1e-6)
        assert 0.99 < stated["cosine"] < 1


def test_the_drift_of_vectors_is_measured_once(folders, tmp_path):
    place = tmp_path / "faster"
    arguments = ("extract", str(folders.model), "--out", str(place), "--dtype", "bfloat16")
    assert invoke(*arguments).exit_code == 0
    path = place / file_name("tiny", LAYERS[0])
    first, vector = path.read_bytes(), read_vector(path)
    assert invoke(*arguments).exit_code == 0
    assert path.read_bytes() == first
    # Interrupted before it was stated.
    bare = {key: value for key, value in vector.provenance.items() if key != DRIFT}
    write_vector(path, SteeringVector(vector.values, vector.layer, bare))
    assert invoke(*arguments).exit_code == 0
    assert path.read_bytes() == first


def test_a_sweep_in_float32_has_nothing_to_compare(folders, tmp_path):
    sweep(folders, tmp_path / "exact", "--dtype", "float32")
    environment = read_environments(tmp_path / "exact")["tiny"]
    assert environment["dtype"] == "float32"
    assert "drift" not in environment


def test_the_memory_changes_nothing_but_the_speed(folders, tmp_path):
    small = sweep(folders, tmp_path / "small", "--memory", "0.000001")
    large = sweep(folders, tmp_path / "large", "--memory", "1")
    for cell, row in small.items():
        assert row["ppl_ratio"] == pytest.approx(large[cell]["ppl_ratio"], rel=1e-5)
        for mine, theirs in zip(row.get("generations", ()), large[cell].get("generations", ()), strict=True):
            assert "determined" in mine or mine["gen"] == theirs["gen"]


def test_the_memory_that_batches_had_is_recorded(folders, tmp_path):
    sweep(folders, tmp_path / "asked", "--memory", "0.5")
    assert read_environments(tmp_path / "asked")["tiny"]["batching"]["memory_gb"] == 0.5
    for name in ("found", "again"):
        sweep(folders, tmp_path / name)
    assert read_environments(tmp_path / "found")["tiny"]["batching"]["memory_gb"].startswith("half of what is free")
    # However much that was: a sweep again gives the same files.
    assert (tmp_path / "found/environment.json").read_bytes() == (tmp_path / "again/environment.json").read_bytes()


@given(st.lists(st.integers(), max_size=40, unique=True), st.integers(1, 15))
def test_a_sample_is_of_all_parts_alike(items, count):
    sample = evenly(items, count)
    assert len(sample) == min(len(items), count)
    places = [items.index(item) for item in sample]
    assert places == sorted(set(places))
    gaps = {after - before for before, after in itertools.pairwise(places)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    if count >= len(items):
        assert sample == items
