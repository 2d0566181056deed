"""Recomputing the claims of a repo without a study leaves a report and the card with its verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import legacy
import pytest

from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.recompute import ANNOTATED, default_audit_folder, recompute
from steer_eval.repository import Repositories, open_target
from steer_eval.reproduce import REPORT


def opened(place: legacy.Legacy) -> Repositories:
    target = open_target(str(place.model), str(place.data))
    assert isinstance(target, Repositories)
    return target


def test_the_report_and_the_annotated_card(tmp_path: Path) -> None:
    place = legacy.build(tmp_path)
    run = tmp_path / "run"
    report = recompute(opened(place), level="recompute", run=run)

    document = json.loads((run / REPORT).read_text(encoding="utf-8"))
    schema.check(document, "report", file=REPORT)
    assert document["level"] == {"requested": "recompute", "reached": "recompute"}
    assert report.coverage is not None
    assert 0 < report.coverage.understood <= report.coverage.numbers
    assert report.coverage.numbers + report.coverage.places == len(report.verdicts)
    assert "✓" in (run / ANNOTATED).read_text(encoding="utf-8")


def test_a_check_makes_no_claims(tmp_path: Path) -> None:
    report = recompute(opened(legacy.build(tmp_path)), level="check", run=tmp_path / "run")

    assert (report.verdicts, report.coverage) == ((), None)
    assert not (tmp_path / "run" / ANNOTATED).exists()


def test_a_rerun_needs_a_study(tmp_path: Path) -> None:
    report = recompute(opened(legacy.build(tmp_path)), level="rerun", run=tmp_path / "run")

    assert report.reached == "recompute"
    assert [each.severity for each in report.findings if each.rule == "study-absent"] == ["warning"]


def test_results_of_the_hub_are_checked_as_well(tmp_path: Path) -> None:
    place = legacy.build(tmp_path)
    (place.model / ".eval_results").mkdir()
    text = "- dataset: {id: a/b, task_id: perplexity_ratio}\n  value: 9.99\n  notes: 3B, L=5 c=+1\n"
    (place.model / ".eval_results" / "fox.yaml").write_text(text, encoding="utf-8")
    report = recompute(opened(place), level="recompute", run=tmp_path / "run")

    last = report.verdicts[-1]
    assert (last.file.rsplit("/", 1)[-1], last.line, last.word) == ("fox.yaml", 2, "contradicted")


def test_without_a_card_there_is_nothing_to_check(tmp_path: Path) -> None:
    place = legacy.build(tmp_path)
    (place.model / "README.md").unlink()

    with pytest.raises(SteerEvalError, match=r"neither a study\.yaml nor a card"):
        recompute(opened(place), level="recompute", run=tmp_path / "run")


def test_the_folder_is_called_after_the_repo(tmp_path: Path) -> None:
    assert default_audit_folder(opened(legacy.build(tmp_path))) == Path("runs/model-audit")
