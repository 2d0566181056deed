"""What a study says of its SAEs, read back from a model repo and from a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured_documents import QUALITY, TABLE
from some_saes import random_sae

from steer_eval.errors import FormatError
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.strict_json import write_json
from steer_eval.sae.results import features_file, quality_file, read_quality, read_saes, read_tables
from steer_eval.study import Study, load_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    import yaml
    from sae_study import SAE
    from tiny_study import document

    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**document(), "saes": [SAE]}))
    return load_study(path)


def written(repo: Path, **recorded: str) -> None:
    write_saelens(repo / "saes/tiny/layers.2", replace(random_sae(12, 96, 4), provenance=recorded))


def trouble(log: dict[str, str]) -> Callable[..., Any]:
    def attempt(file: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except FormatError as error:
            log[file] = str(error)
            return None

    return attempt


def test_a_published_sae_says_itself_how_good_it_is(study: Study, tmp_path: Path) -> None:
    written(tmp_path, quality=json.dumps(QUALITY))
    # Its weights are not needed for that.
    (tmp_path / "saes/tiny/layers.2/sae_weights.safetensors").unlink()

    assert read_saes(study, tmp_path, trouble({})) == {("tiny", 2): QUALITY}


def test_in_a_run_a_file_says_it(study: Study, tmp_path: Path) -> None:
    written(tmp_path, quality=json.dumps(QUALITY))
    again = {**QUALITY, "held_out_fvu": 0.25}
    del again["dead_share"], again["training_tokens"]
    write_json(tmp_path / quality_file("tiny", 2), again)

    assert read_saes(study, tmp_path, trouble({})) == {("tiny", 2): again}


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ({}, "does not say how good it is"),
        ({"quality": "?"}, "quality"),
        ({"quality": json.dumps({**QUALITY, "held_out_l0": -1})}, "held_out_l0"),
    ],
)
def test_one_that_does_not_say_it_is_kept_with_its_reason(
    study: Study, tmp_path: Path, recorded: dict[str, str], message: str
) -> None:
    written(tmp_path, **recorded)
    log: dict[str, str] = {}

    assert read_saes(study, tmp_path, trouble(log)) == {}
    assert list(log) == [quality_file("tiny", 2)]
    assert message in log[quality_file("tiny", 2)]


def test_without_an_sae_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"saes/tiny/layers\.2/cfg\.json: the file is absent"):
        read_quality(tmp_path, "tiny", 2)


def test_a_planned_table_is_read_and_a_bad_one_is_not(study: Study, tmp_path: Path) -> None:
    path = tmp_path / features_file("tiny", 2)
    write_json(path, TABLE)
    assert read_tables(study, tmp_path, trouble({})) == {("tiny", 2): TABLE}

    write_json(path, {**TABLE, "top_features": []})
    log: dict[str, str] = {}
    assert read_tables(study, tmp_path, trouble(log)) == {}
    assert "top_features" in log[features_file("tiny", 2)]
    unplanned = replace(study, saes=(replace(study.saes[0], table=None),))
    log.clear()
    assert (read_tables(unplanned, tmp_path, trouble(log)), log) == ({}, {})
