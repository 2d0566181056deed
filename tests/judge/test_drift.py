"""Drift of texts is tested where texts differ, and told where they are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from judge.cases import RUBRIC, judged_on, subjects
from judge.stub_server import good, serving

from steer_eval.judge.drift import generation_drift


def test_the_same_texts_have_not_drifted(tmp_path: Path) -> None:
    first, second, *_ = published = subjects(3)
    changed = replace(first, samples=tuple(replace(s, text=f"{s.text} And late again.") for s in first.samples))
    with serving(good) as stub:
        before = judged_on(stub, tmp_path, published, protocol="sample", repeats=1)
        after = judged_on(stub, tmp_path, [changed, second], protocol="sample", repeats=1)

    cells = generation_drift(before, after, RUBRIC)["cells"]
    # Without spread there is nothing to test against, and equal scores alone don't say that texts are equal.
    found = [(each["coef"], each["same_texts"], each["verdict"], each["mean"]) for each in cells]
    assert found == [(0.0, False, "inconclusive", 0.0), (1.0, True, "reproduced", 0.0)]
