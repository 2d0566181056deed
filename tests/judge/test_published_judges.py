"""The tables of docs/judging.md are what the published data gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from steer_eval.cells import Cell
from steer_eval.judge.cases import Case, open_case
from steer_eval.judge.fluency import novelty
from steer_eval.judge.judging import Judged, compare_all
from steer_eval.judge.probe import ProbeJudge
from steer_eval.judge.protocol import plan
from steer_eval.judge.rows import cell_scores
from steer_eval.judge.rubric import Rubric, load_rubric
from steer_eval.judge.subjects import Ask, Judgement

PAGE = Path(__file__).parents[2] / "docs" / "judging.md"
RUBRIC = load_rubric()


@pytest.fixture(scope="module")
def case(upstream: Path) -> Case:
    return open_case(str(upstream / "model"), str(upstream / "dataset"), "qwen35-mature-anger", RUBRIC)


def table(first: str, second: str) -> dict[str, list[str]]:
    text = PAGE.read_text(encoding="utf-8").partition(f"<!-- table: {first} {second} -->\n")[2]
    rows = [line.strip("| ").split(" | ") for line in text.partition("\n\n")[0].splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def shown(found: dict[str, Any]) -> list[str]:
    numbers = [f"{found[key]:.3f}" for key in ("kappa", "alpha", "spearman")]
    shares = [f"{100 * found[key]:.0f} %" for key in ("exact", "within_half")]
    return [str(found["n"]), *numbers, *shares, f"{found['mean_difference']:+.2f}"]


def test_the_two_published_judges(case: Case) -> None:
    [found] = compare_all([], case.recorded, RUBRIC)

    assert (found["first"], found["second"]) == ("deepseek", "qwen")
    assert {axis["axis"]: shown(axis) for axis in found["axes"]} == table("deepseek", "qwen")
    imputed = sum(each.imputed for each in case.recorded)
    assert f"left out: {imputed} of the published ones" in " ".join(PAGE.read_text(encoding="utf-8").split())


def test_scores_of_cells_without_text_are_left_out(case: Case) -> None:
    deepseek = {
        cell: scores for each in case.recorded if each.name == "deepseek" for cell, scores in each.scores.items()
    }
    texts = {subject.cell for subject in case.subjects}

    assert set(deepseek) <= texts
    assert not any(cell == Cell("qwen_small", "steered", 6, 8.0) for cell in deepseek)


class Words(ProbeJudge):
    """The probe with a coherence of repetition alone: no published text is unlikelier than sound text."""

    def _answer(self, ask: Ask, rubric: Rubric) -> Judgement:
        if ask.axes == ("coherence",):
            return Judgement(ask, {"coherence": 1 + 4 * novelty(ask.samples[0].text)})
        return super()._answer(ask, rubric)


def test_the_probe_and_the_published_judges(case: Case) -> None:
    probe = Words(case.pairs, RUBRIC, None)
    asks = plan("sample", case.subjects, RUBRIC, repeats=1, checks=False)
    judgements = probe.judge(asks, RUBRIC, "sample", lambda _: None)
    scores = tuple(cell_scores(judgements, RUBRIC, "sample"))
    judged = Judged("probe", probe.identity(), "sample", RUBRIC, tuple(judgements), scores)
    found = {(each["first"], each["second"]): each["axes"] for each in compare_all([judged], case.recorded, RUBRIC)}

    for judge in ("deepseek", "qwen"):
        assert {axis["axis"]: shown(axis) for axis in found["probe", judge]} == table("probe", judge)
    share = re.search(r"puts (\d+) % of (\d+) texts", " ".join(PAGE.read_text(encoding="utf-8").split()))
    assert share is not None
    assert share[1] == f"{100 * probe.validation.accuracy:.0f}"
    assert int(share[2]) == sum(probe.validation.texts.values())


def test_the_numbers_of_prompts_that_the_page_names() -> None:
    from steer_eval.judge.uncertainty import prompts_needed

    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"±1 takes {prompts_needed(1.0, 1.0)} prompts and ±0.5 takes {prompts_needed(1.0, 0.5)}" in text
