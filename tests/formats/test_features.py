from __future__ import annotations

import json
import math

import pytest
from pt_files import features, write_document

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.features import FeatureRow, FeatureTable, read_features


def test_a_table_is_read_in_its_order(tmp_path):
    table = read_features(write_document(tmp_path / "x.json", features()))

    assert table == FeatureTable(
        "lab/tiny-base",
        14,
        2.0,
        30,
        (
            FeatureRow(0, 0.5, 2.0, 1.5, 1.0, 0.5),
            FeatureRow(7, -0.5, 3.0, 3.5, 1.0, 0.5),
            FeatureRow(14, -1.5, 4.0, 5.5, 1.0, 0.5),
        ),
    )
    assert type(table.coefficient) is float


def test_more_columns_do_no_harm(tmp_path):
    document = features()
    document["top_features"][0]["label"] = "anger"

    assert len(read_features(write_document(tmp_path / "x.json", {**document, "judge": None})).rows) == 3


BAD = {
    "no model": ({"model": None}, {}, "model"),
    "layer of a float": ({"layer": 14.0}, {}, "layer"),
    "coefficient of text": ({"coef": "2"}, {}, "coef"),
    "no prompts": ({"n_prompts": 0}, {}, "n_prompts"),
    "no features": ({"top_features": []}, {}, "top_features"),
    "negative feature": ({}, {"feature_id": -1}, "top_features[1].feature_id"),
    "feature of a float": ({}, {"feature_id": 7.0}, "top_features[1].feature_id"),
    "negative mean": ({}, {"base_mean": -0.1}, "top_features[1].base_mean"),
    "share above one": ({}, {"steered_freq": 1.1}, "top_features[1].steered_freq"),
    "delta of null": ({}, {"delta": None}, "top_features[1].delta"),
}


@pytest.mark.parametrize(("change", "of_row", "where"), BAD.values(), ids=BAD)
def test_what_breaks_the_schema_is_named(tmp_path, change, of_row, where):
    document = features()
    document["top_features"][1].update(of_row)
    path = write_document(tmp_path / "x.json", {**document, **change})

    with pytest.raises(FormatError) as caught:
        read_features(path, name="saes/x.json")

    assert (caught.value.file, caught.value.where) == ("saes/x.json", where)


def test_a_value_that_is_no_number_is_refused(tmp_path):
    document = features()
    document["top_features"][2]["delta"] = math.nan

    with pytest.raises(NotFiniteError, match=r"^saes/x.json: .*NaN is not JSON"):
        read_features(write_document(tmp_path / "x.json", document), name="saes/x.json")


def test_the_published_tables_are_read(upstream):
    files = sorted((upstream / "model" / "saes").glob("*_features.json"))
    assert len(files) == 2
    for file in files:
        document = json.loads(file.read_text(encoding="utf-8"))
        table = read_features(file)
        assert [row.__dict__ for row in table.rows] == [
            {"feature": row.pop("feature_id"), **row, "statistics": None} for row in document["top_features"]
        ]
        assert (table.model, table.layer, table.n_prompts) == (
            document["model"],
            document["layer"],
            document["n_prompts"],
        )
        assert table.coefficient == document["coef"]
