"""What an SAE records of its training, checked without a model."""

from __future__ import annotations

import json

import pytest
from rules.whole_study_edits import found
from whole_studies import whole

from steer_eval.formats.strict_json import read_json, write_json

FILE = "persona/saes/tiny/layers.3/cfg.json"


def wrong(tmp_path, **recorded: str | None) -> set[tuple[str, str, str]]:
    place = whole(tmp_path)
    path = place.model / FILE.removeprefix("persona/")
    config = read_json(path)
    said = {**config["metadata"]["steer_eval"], **recorded}
    config["metadata"]["steer_eval"] = {key: value for key, value in said.items() if value is not None}
    write_json(path, config)
    return {finding for finding in found(place) if finding[0] == "sae-provenance"}


@pytest.mark.parametrize("method", ["top-k", None])
@pytest.mark.parametrize("said", ["abc", "-1", "nan", "0"])
def test_a_sink_threshold_is_a_norm(tmp_path, said, method):
    """Also of an SAE that was trained elsewhere, as commands compute with it."""
    expected = {("sae-provenance", FILE, "metadata.steer_eval.sink_norm")}

    assert wrong(tmp_path, sink_norm=said, method=method) == expected


@pytest.mark.parametrize("said", ["inf", "100", None])
def test_one_that_leaves_no_token_out_is_good(tmp_path, said):
    assert wrong(tmp_path, sink_norm=said) == set()


@pytest.mark.parametrize("quality", [None, "{}", "nope", json.dumps({"held_out_fvu": "x"})])
def test_an_sae_of_ours_says_how_good_it_is(tmp_path, quality):
    [(_, file, where)] = wrong(tmp_path, quality=quality)

    assert file == FILE
    assert where.startswith("metadata.steer_eval.quality")
