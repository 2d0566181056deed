from __future__ import annotations

import pytest

from steer_eval.errors import FormatError
from steer_eval.formats.pin import DataPin, data_pin, pinned

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_what_was_pinned_is_the_pin_and_stands_after_the_repo():
    config = pinned({"repo": "lab/x", "data": "lab/x-data", "vectors": []}, COMMIT)

    assert list(config) == ["repo", "data", "data_revision", "vectors"]
    assert data_pin(config) == DataPin("lab/x-data", COMMIT)
    assert data_pin(pinned(config, COMMIT[::-1])) == DataPin("lab/x-data", COMMIT[::-1])
    assert pinned(config, COMMIT) == config


def test_without_a_revision_there_is_no_pin():
    assert data_pin({"data": "lab/x-data"}) is None
    assert data_pin({}) is None


@pytest.mark.parametrize("revision", ["main", COMMIT[:12], COMMIT.upper(), f"{COMMIT}\n", 7, ["x"]])
def test_only_a_whole_commit_id_is_a_pin(revision):
    with pytest.raises(FormatError, match=r"config\.json: data_revision"):
        data_pin({"data": "lab/x-data", "data_revision": revision})


def test_a_pin_names_its_repo():
    with pytest.raises(FormatError, match=r"m/config\.json: data: "):
        data_pin({"data_revision": COMMIT}, "m/config.json")
