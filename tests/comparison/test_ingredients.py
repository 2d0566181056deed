"""A comparison is made of the study's own files, and not of a table that another SAE or another plan left there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rules.whole_study_edits import TABLE, another_sae, found, of_json, planned
from studies import OnDisk
from whole_studies import LAYER, WIDTH, sae, whole

from steer_eval.comparison.ingredients import Ingredients
from steer_eval.errors import FormatError
from steer_eval.formats.saelens import write_saelens

FILE = TABLE.removeprefix("persona/")


def ingredients(place: OnDisk, *, width: int | None = WIDTH) -> Ingredients:
    study = place.study()
    plan = study.comparison("tiny")
    assert plan is not None
    return Ingredients(study, plan, place.results(), place.model, width=width)


def turned_sae(place: OnDisk) -> None:
    """One of the same sizes and decoder norms, as another seed gives."""
    good = sae()
    write_saelens(place.model / f"saes/tiny/layers.{LAYER}", replace(good, w_enc=good.w_enc.flip(1).contiguous()))


def test_the_features_of_the_study_s_own_table_are_held(tmp_path: Path) -> None:
    found = ingredients(whole(tmp_path))

    assert len(found.raised.features) == len(found.matched.features) == 2


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (another_sae, "top_features[0].decoder_norm"),
        (turned_sae, "top_features[0].predicted"),
        (of_json(TABLE, lambda table: table.update(model="lab/other")), "model"),
        (of_json(TABLE, lambda table: table.update(layer=1)), "layer"),
        (of_json(TABLE, lambda table: table.update(coef=1.0)), "coef"),
        (of_json(TABLE, lambda table: table.update(n_features=13)), "n_features"),
        (planned(saes__table={"coefficient": 1, "top": 6}), "coef"),
    ],
    ids=["norms", "encoder", "model", "layer", "coef", "features", "plan"],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, make: Callable[[OnDisk], Any], where: str) -> None:
    place = whole(tmp_path)
    make(place)

    for features in ("raised", "matched"):
        with pytest.raises(FormatError) as caught:
            getattr(ingredients(place), features)
        assert (caught.value.file, caught.value.where) == (FILE, where)
        assert "steer-eval sae features" in caught.value.fix
        assert caught.value.expected != caught.value.observed
        assert ", not " in caught.value.message


def test_where_nothing_is_computed_the_rules_on_tables_say_so_once(tmp_path: Path) -> None:
    place = whole(tmp_path)
    planned(saes__table={"coefficient": 1, "top": 6})(place)

    assert ingredients(place, width=None).raised.features
    assert found(place) == [("feature-sae", TABLE, "coef")]
