from __future__ import annotations

from pathlib import Path

import pytest

from steer_eval.errors import SteerEvalError
from steer_eval.judge.cache import FILE, call_key, opened_log
from steer_eval.judge.models import model_named
from steer_eval.model_reference import HubSource, LocalSource, PypiSource

REQUEST = {"base_url": "u", "body": {"model": "m", "messages": []}}


def test_a_key_depends_on_everything_that_decides_the_reply() -> None:
    keys = {
        call_key(REQUEST, repeat="cell 0", attempt=0),
        call_key(REQUEST, repeat="cell 1", attempt=0),
        call_key(REQUEST, repeat="cell 0", attempt=1),
        call_key({**REQUEST, "base_url": "v"}, repeat="cell 0", attempt=0),
        call_key({**REQUEST, "body": {"model": "n", "messages": []}}, repeat="cell 0", attempt=0),
    }

    assert len(keys) == 5
    assert call_key(dict(reversed(REQUEST.items())), repeat="cell 0", attempt=0) in keys


def test_one_process_at_a_time_judges_in_a_folder(tmp_path: Path) -> None:
    with opened_log(tmp_path), pytest.raises(SteerEvalError, match="another process"), opened_log(tmp_path):
        pass


def test_a_replayed_log_is_left_as_it_is(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    with opened_log(first) as log:
        log.add("a", {"kind": "call"})
    torn = (first / FILE).read_bytes() + b'{"key": "b", "ki'
    (first / FILE).write_bytes(torn)

    with opened_log(again, first) as log:
        assert log.find("a") == {"kind": "call"}
        assert log.find("b") is None
        assert log.is_replay

    assert (first / FILE).read_bytes() == torn
    assert log.hits == 1


def test_a_folder_replays_itself(tmp_path: Path) -> None:
    with opened_log(tmp_path) as log:
        log.add("a", {"kind": "call"})
    with opened_log(tmp_path, tmp_path) as log:
        assert log.is_replay
        assert log.find("a") is not None


def test_a_folder_without_calls_can_not_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(SteerEvalError, match=FILE), opened_log(tmp_path / "out", tmp_path):
        pass


def test_a_name_stands_for_one_model(packaged_study: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    folder, _ = model_named(str(tmp_path))
    study, place = model_named(str(packaged_study))
    hub, _ = model_named("lab/model@v1")

    assert folder.source == LocalSource(str(tmp_path))
    assert isinstance(study.source, PypiSource)
    assert place == packaged_study
    assert hub.source == HubSource("lab/model", "v1")
    for name in ("nothing", str(tmp_path / "absent"), ""):
        with pytest.raises(SteerEvalError):
            model_named(name)


def test_a_study_of_several_models_is_no_name_of_one(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "studies" / "qwen35-mature-anger.yaml"
    (tmp_path / "study.yaml").write_text(shipped.read_text())

    with pytest.raises(SteerEvalError, match="several models"):
        model_named(str(tmp_path))
