from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.judge.rubric import STUDY_AXES, load_rubric, probe_texts

SHIPPED = load_rubric()


def own(tmp_path: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> str:
    document = {
        "schema": "steer-eval/rubric/1",
        "name": "warmth",
        "title": "Warmth",
        "scale": {"low": 0, "high": 2, "step": 1},
        "axes": {
            name: {"question": "How?", "levels": [{"score": 0, "text": "None."}, {"score": 2, "text": "Much."}]}
            for name in ("warm", "cold")
        },
        "margin": {"plus": "warm", "minus": "cold"},
    }
    change(document)
    path = tmp_path / "rubric.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return str(path)


def test_the_shipped_rubric_has_the_axes_and_the_scale_of_the_study() -> None:
    assert SHIPPED.names == STUDY_AXES
    assert SHIPPED.levels == (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)
    assert SHIPPED.margin == ("mature_anger", "juvenile_rage")
    assert SHIPPED.margin_of({"mature_anger": 4.5, "juvenile_rage": 1.0}) == 3.5
    assert SHIPPED.margin_of({"mature_anger": 4.5}) is None


def test_the_texts_of_juvenile_rage_are_forty_different_ones() -> None:
    file = SHIPPED.axis("juvenile_rage").probe
    assert file is not None
    texts = probe_texts(SHIPPED, file)

    assert len(texts) == len(set(texts)) == 40


def test_users_bring_their_own_axes(tmp_path: Path) -> None:
    rubric = load_rubric(own(tmp_path))

    assert rubric.names == ("warm", "cold")
    assert rubric.levels == (0, 1, 2)
    assert rubric.margin_definition() == "warm - cold"


def test_the_digest_is_over_what_a_judge_reads(tmp_path: Path) -> None:
    before = load_rubric(own(tmp_path)).sha256

    assert load_rubric(own(tmp_path, lambda d: d.update(title="Other"))).sha256 == before
    assert load_rubric(own(tmp_path, lambda d: d["axes"]["warm"].update(question="Why?"))).sha256 != before
    assert load_rubric(own(tmp_path, lambda d: d["scale"].update(high=2, step=0.5))).sha256 != before


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda d: d["scale"].update(step=0.3), "scale"),
        (lambda d: d["scale"].update(low=3), "scale"),
        (lambda d: d["scale"].update(step=0.0001), "scale"),
        (lambda d: d["axes"]["warm"]["levels"].append({"score": 0.5, "text": "x"}), "axes.warm.levels"),
        (lambda d: d["axes"]["warm"]["levels"].append({"score": 0, "text": "x"}), "axes.warm.levels"),
        (lambda d: d["axes"]["warm"]["levels"][1].update(score=1), "axes.warm.levels"),
        (lambda d: d["margin"].update(minus="cool"), "margin"),
        (lambda d: d["axes"].update(margin=d["axes"].pop("cold")), "axes.margin"),
        (lambda d: d.update(extra=1), ""),
    ],
)
def test_a_rubric_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], where: str
) -> None:
    with pytest.raises(FormatError) as refused:
        load_rubric(own(tmp_path, change))

    assert refused.value.where == where


def test_an_unknown_rubric_is_named_with_those_that_ship() -> None:
    with pytest.raises(SteerEvalError) as refused:
        load_rubric("mature-angre")

    assert "mature-anger" in refused.value.fix


@settings(deadline=None)
@given(st.floats(-10, 10))
def test_the_nearest_level_is_a_level_and_no_other_is_nearer(value: float) -> None:
    nearest = SHIPPED.nearest(value)

    assert SHIPPED.on_scale(nearest)
    assert all(abs(nearest - value) <= abs(level - value) + 1e-9 for level in SHIPPED.levels)


def test_between_two_levels_the_lower_one_is_taken() -> None:
    assert SHIPPED.nearest(2.25) == 2.0
    assert SHIPPED.nearest(2.2500001) == 2.5
