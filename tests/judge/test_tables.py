"""Cards say who gave scores, and how far judges agree, from the rows alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_study import Folders, invoke

from steer_eval.judge.tables import JudgeTable, agreements, judge_tables

ROW = {"layer": 1, "coef": 1.0, "mature_anger": 2.5, "juvenile_rage": 1.0, "coherence": 4.0}


def table(judge: str, *rows: dict[str, Any]) -> JudgeTable:
    return JudgeTable(judge, "m", f"judge_{judge}_m.jsonl", tuple({**ROW, **row} for row in rows))


def test_what_all_rows_say_is_said() -> None:
    same = table("a", {"protocol": "sample"}, {"protocol": "sample", "coef": 2.0})
    mixed = table("a", {"protocol": "sample"}, {"protocol": "paper-cell", "coef": 2.0})

    assert same.said("protocol") == "sample"
    assert mixed.said("protocol") is None
    assert same.said("rubric") is None


@pytest.mark.parametrize("intervals", [None, [], {}, {"margin": None}, {"margin": [1]}, {"margin": ["a", "b"]}, 3])
def test_an_interval_of_another_form_is_none(intervals: Any) -> None:
    odd = table("a", {"intervals": intervals, "judge_accuracy": intervals, "protocol": intervals})

    assert not odd.has_intervals
    assert odd.said("protocol") is None
    assert odd.accuracy is None or intervals == 3


def test_scores_of_collapsed_cells_make_no_agreement() -> None:
    first = table("a", {}, {"coef": 2.0, "coherence": 1.0}, {"coef": 8.0, "coherence": 1.0, "collapsed": True})
    second = table("b", {}, {"coef": 2.0, "coherence": 1.0}, {"coef": 8.0, "coherence": 1.0})

    [found] = agreements(first, (first, second)).values()
    assert {each.n for each in found} == {2}


def test_a_card_shows_judge_protocol_and_agreement(folders: Folders, tmp_path: Path) -> None:
    assert invoke("judge", str(folders.model), "--judge", "probe", "--out", str(folders.data)).exit_code == 0
    assert invoke("card", str(folders.model)).exit_code == 0
    alone = (folders.model / "README.md").read_text()
    rows = [json.loads(line) for line in (folders.data / "judge_probe_tiny.jsonl").read_text().splitlines()]

    assert "### Scores of texts by `probe`" in alone
    assert "protocol sample, rubric mature-anger." in alone
    assert f"puts {100 * rows[0]['judge_accuracy']:.1f} % of its own texts" in alone
    assert "No other judge has scored these texts" in alone
    for row in rows:
        assert f"| {row['layer']} | {row['coef']:+g} | {row['mature_anger']:g} |" in alone
    assert [each.judge for each in judge_tables(folders.data, ["tiny"])] == ["probe"]

    other = [{**row, "judge": "x](http://evil) `y`", "judge_model": "[link](http://evil)"} for row in rows]
    (folders.data / "judge_other_tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    assert invoke("card", str(folders.model)).exit_code == 0
    both = (folders.model / "README.md").read_text()
    assert "with `other` mature_anger" in both
    assert "[link](http" not in both
    assert invoke("card", str(folders.model), "--check").exit_code == 0
