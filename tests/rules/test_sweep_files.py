from __future__ import annotations

import time

import legacy
import pytest
from legacy import MANIFESTS
from legacy_edits import SUMMARY, SWEEP, absent, line, words

from steer_eval.inventory import Artifact
from steer_eval.results_files import row_from_json
from steer_eval.rules.sweep_files import COLLAPSE_RATIO, SweepFile, collapse_ratio_of, model_called


def sweep_of(cells: list[tuple[int, float]], ratio: float = 1.5) -> SweepFile:
    rows = [
        {
            "layer": layer,
            "coef": coefficient,
            "base_ppl": 10.0,
            "ppl": 10.0 * ratio,
            "ppl_ratio": ratio,
            "collapsed": False,
            "generations": [],
        }
        for layer, coefficient in cells
    ]
    artifact = Artifact("data/sweep_x.jsonl", "sweep_x.jsonl", "sweep", 1, tuple(rows))
    return SweepFile(artifact, "x", tuple(row_from_json(row, "x", number) for number, row in enumerate(rows, start=1)))


def test_a_grid_lacks_the_cells_between_its_layers_and_coefficients():
    grid = [(layer, float(coefficient)) for layer in (1, 2, 3) for coefficient in (1, 2, 4)]

    assert sweep_of(grid).missing == ()
    [cell] = sweep_of([each for each in grid if each != (2, 4.0)]).missing
    assert (cell.layer, cell.coef) == (2, 4.0)


def test_a_plan_that_is_no_grid_lacks_nothing():
    assert sweep_of([(layer, float(layer)) for layer in range(5)]).missing == ()


def test_ten_thousand_layers_and_coefficients_are_no_hundred_million_cells():
    start = time.monotonic()
    sweep = sweep_of([(layer, float(layer)) for layer in range(10_000)])

    assert sweep.missing == ()
    assert sweep.at(9_999, 9_999.0) is not None
    assert time.monotonic() - start < 5


def flagged(*ratios: float, threshold: float) -> dict[str, SweepFile]:
    place = sweep_of([(1, float(number)) for number in range(len(ratios))])
    rows = [
        row_from_json({**value, "ppl_ratio": ratio, "ppl": 10 * ratio, "collapsed": ratio > threshold}, "x", number)
        for number, (value, ratio) in enumerate(zip(place.artifact.value, ratios, strict=True), start=1)
    ]
    return {"x": SweepFile(place.artifact, "x", tuple(rows))}


RATIOS = (1.1, 1.3, 1.7, 2.1, 2.4, 2.9, 3.3, 4.5, 6.0, 9.0, 12.0, 20.0)


@pytest.mark.parametrize("threshold", [2.95, 3.0, 3.25])
def test_the_collapse_ratio_is_the_reference_studys_where_it_explains_the_marks(threshold):
    assert collapse_ratio_of(flagged(*RATIOS, threshold=threshold)) == COLLAPSE_RATIO


@pytest.mark.parametrize("threshold", [1.5, 2.0, 5.0, 10.0])
def test_another_collapse_ratio_is_taken_from_the_marks(threshold):
    sweeps = flagged(*RATIOS, threshold=threshold)
    ratio = collapse_ratio_of(sweeps)

    assert all((row.ppl_ratio > ratio) == row.collapsed for row in sweeps["x"].rows)


def test_without_sweeps_it_is_the_reference_studys():
    assert collapse_ratio_of({}) == COLLAPSE_RATIO


MODELS = ("fox_large", "fox_xlarge", "wolf_small", "bear")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("large", "fox_large"),
        ("xlarge", "fox_xlarge"),
        ("fox_large", "fox_large"),
        ("bear", "bear"),
        ("arge", None),
        ("", None),
        ("fox", None),
    ],
)
def test_a_short_name_means_one_model(name, model):
    assert model_called(name, MODELS) == model


def test_a_short_name_that_fits_two_models_means_none():
    assert model_called("large", ["fox_large", "wolf_large"]) is None
    assert model_called("large", ["fox_large", "large"]) == "large"


def test_a_whole_sweep_whose_numbers_are_rounded_is_no_mistake(tmp_path):
    place = legacy.build(tmp_path)
    absent(SUMMARY)(place)
    words("data/README.md", ", `size_comparison.json`", "")(place)
    for number in range(1, 13):
        rounded = lambda row: row.update({key: round(row[key], 3) for key in ("ppl", "ppl_ratio", "base_ppl")})  # noqa: E731
        line(SWEEP, number, rounded)(place)

    assert place.findings() == MANIFESTS
