"""A study's SAE, held to the study's model before anything is computed with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from some_saes import random_sae

from steer_eval.errors import FormatError
from steer_eval.formats.saelens import CONFIG, WEIGHTS, write_saelens
from steer_eval.model_reference import LocalSource, ModelReference
from steer_eval.sae.stored import QUALITY_KEY, SINK_KEY, read_trained, sink_threshold, study_sae, trained_quality

MODEL = ModelReference("tiny", "lab/tiny-base", "float32", LocalSource("../base"))
FOLDER = "saes/tiny/layers.2"
WIDTH = 12
QUALITY = {
    "held_out_fvu": 0.2,
    "held_out_l0": 4.0,
    "held_out_tokens": 100,
    "sinks_left_out": 1,
    "cross_entropy": 3.0,
    "cross_entropy_sae": 3.5,
    "excess_cross_entropy": 0.5,
    "cross_entropy_mean_ablation": 5.0,
    "cross_entropy_tokens": 90,
    "dead_share": 0.0,
    "training_tokens": 900,
}
NO_NORM = ["abc", "", "nan", "-1", "-inf", "0", "0.0"]


def change_config(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    recorded = {"sink_norm": "50.0", "quality": json.dumps(QUALITY)}
    write_saelens(tmp_path / FOLDER, replace(random_sae(WIDTH, 24, 4), provenance=recorded))
    return tmp_path


def taken(repo: Path, *, width: int | None = WIDTH, layer: int = 2) -> FormatError:
    with pytest.raises(FormatError) as caught:
        study_sae(repo, MODEL, layer, width=width)
    return caught.value


def test_an_sae_that_fits_is_read(repo):
    sae = study_sae(repo, MODEL, 2, width=WIDTH)

    assert (sae.d_in, sae.layer, sae.model) == (WIDTH, 2, "lab/tiny-base")
    assert sink_threshold(sae, FOLDER) == 50.0
    # Nothing is computed with it where there is no model.
    assert study_sae(repo, MODEL, 2, width=None).d_sae == 24


@pytest.mark.parametrize(
    ("change", "where", "expected", "observed"),
    [
        (lambda config: config["metadata"].update(hook_name="blocks.1.hook_resid_post"), "metadata.hook_name", 2, 1),
        (lambda config: config["metadata"].update(model_name="lab/x"), "metadata.model_name", "lab/tiny-base", "lab/x"),
    ],
)
def test_an_sae_of_something_else_is_refused(repo, change, where, expected, observed):
    change_config(repo / FOLDER, change)

    error = taken(repo, width=None)

    assert (error.file, error.where) == (f"{FOLDER}/{CONFIG}", where)
    assert (error.expected, error.observed) == (expected, observed)
    assert "sae train" in error.fix


def test_an_sae_of_another_width_is_refused(repo):
    error = taken(repo, width=48)

    assert (error.file, error.where, error.expected, error.observed) == (f"{FOLDER}/{CONFIG}", "d_in", 48, WIDTH)
    assert "width" in error.reason


def test_what_is_absent_says_how_it_is_made(repo):
    assert "sae train" in taken(repo, layer=3).fix
    (repo / FOLDER / WEIGHTS).unlink()
    error = taken(repo)
    assert (error.file, "absent" in error.reason, "sae train" in error.fix) == (f"{FOLDER}/{WEIGHTS}", True, True)


@pytest.mark.parametrize("said", NO_NORM)
def test_what_is_no_norm_is_refused(repo, said):
    change_config(repo / FOLDER, lambda config: config["metadata"]["steer_eval"].update(sink_norm=said))

    error = taken(repo)

    assert (error.file, error.where, error.observed) == (f"{FOLDER}/{CONFIG}", SINK_KEY, said)
    assert error.fix


def test_no_token_is_a_sink_where_none_is_said(repo):
    sae = random_sae(WIDTH, 24, 4)

    assert sink_threshold(sae, FOLDER) == float("inf")
    assert sink_threshold(replace(sae, provenance={"sink_norm": "inf"}), FOLDER) == float("inf")


@pytest.mark.parametrize(
    "quality",
    [None, "", "{}", "nope", "[]", json.dumps({key: value for key, value in QUALITY.items() if key != "dead_share"})],
)
def test_an_sae_that_does_not_say_how_good_it_is_is_none_that_was_trained_here(repo, quality):
    assert read_trained(repo / FOLDER).provenance["sink_norm"] == "50.0"
    recorded = {} if quality is None else {"quality": quality}

    with pytest.raises(FormatError) as caught:
        trained_quality(recorded, FOLDER)

    assert caught.value.file == f"{FOLDER}/{CONFIG}"
    assert caught.value.where.startswith(QUALITY_KEY)
    change_config(repo / FOLDER, lambda config: config["metadata"].update(steer_eval=recorded))
    with pytest.raises(FormatError):
        read_trained(repo / FOLDER)
