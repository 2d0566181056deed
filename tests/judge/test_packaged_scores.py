"""The scores that the packaged study publishes are the probe's."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_eval.formats.strict_json import read_jsonl
from steer_eval.judge.cases import Case, open_case
from steer_eval.judge.fluency import novelty
from steer_eval.judge.probe import ProbeJudge
from steer_eval.judge.protocol import plan
from steer_eval.judge.rows import cell_scores
from steer_eval.judge.rubric import Rubric, load_rubric
from steer_eval.judge.subjects import Ask, Judgement

RUBRIC = load_rubric()
FILE = "judge_probe_smollm2.jsonl"


@pytest.fixture(scope="module")
def case(packaged_study: Path) -> Case:
    return open_case(str(packaged_study), None, None, RUBRIC)


class Words(ProbeJudge):
    """The probe with a coherence of repetition alone, which is the most that it can be."""

    def _answer(self, ask: Ask, rubric: Rubric) -> Judgement:
        if ask.axes == ("coherence",):
            return Judgement(ask, {"coherence": 1 + 4 * novelty(ask.samples[0].text)})
        return super()._answer(ask, rubric)


def test_the_published_scores_are_computed_again(case: Case) -> None:
    probe = Words(case.pairs, RUBRIC, None)
    asks = plan("sample", case.subjects, RUBRIC, repeats=1, checks=False)
    judgements = probe.judge(asks, RUBRIC, "sample", lambda _: None)
    again = {score.cell: score for score in cell_scores(judgements, RUBRIC, "sample")}
    again = {cell: score for cell, score in again.items() if cell.variant is None}
    published = {
        (row.value["layer"], float(row.value["coef"])): row.value
        for row in read_jsonl(case.data / FILE, schema="judge_row")
    }

    steered = {cell: score for cell, score in again.items() if cell.label == "steered"}
    assert {(cell.layer, cell.coef) for cell in steered} == set(published)
    for cell, score in steered.items():
        row = published[cell.layer, cell.coef]
        assert row["rubric_sha256"] == RUBRIC.sha256
        assert row["judge_accuracy"] == pytest.approx(probe.validation.accuracy, abs=1e-6)
        assert row["asked"] == row["scored"] == 3 * 40
        for axis in ("mature_anger", "juvenile_rage"):
            assert row[axis] == score.scores[axis]
            assert row["means"][axis] == pytest.approx(score.means[axis], abs=1e-5)
        assert row["means"]["coherence"] <= score.means["coherence"] + 1e-5


def test_the_probe_finds_the_persona_in_no_cell(case: Case) -> None:
    """As docs/judging.md and the study's description say."""
    rows = [row.value for row in read_jsonl(case.data / FILE, schema="judge_row")]
    best = [row for row in rows if row["margin"] == max(each["margin"] for each in rows)]
    lowest = sorted(rows, key=lambda row: (row["margin"], row["means"]["margin"]))[:2]

    assert max(row["mature_anger"] for row in rows) == 2
    assert [row["margin"] for row in best] == [0.5] * 4
    assert [(row["layer"], row["coef"], row["margin"]) for row in lowest] == [(10, 4, -2), (25, 4, -1)]
