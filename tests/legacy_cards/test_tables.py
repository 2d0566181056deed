"""Every table that a card lists loads with `datasets`."""

from __future__ import annotations

import json
import shutil

from legacy_cards.opened import loads, opened

from steer_eval.legacy.tables import tables


def test_every_table_of_the_published_study_loads(published, upstream, tmp_path):
    for path in (upstream / "dataset").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    loads(tmp_path, published)

    assert {each.name: set(each.files) for each in published.study.tables if len(each.files) > 1} == {
        "sweep": {"qwen_large", "qwen_small", "qwen_xlarge"},
        "judge_deepseek": {"qwen_large", "qwen_small", "qwen_xlarge"},
        "judge_qwen": {"qwen_large", "qwen_small"},
    }


def test_every_table_of_a_study_loads(place):
    loads(place.data, opened(place.model, place.data))


def test_files_of_one_table_that_differ_load_with_nulls(place):
    path = place.path("data/judge_owl_small.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["margin"]
        row["coef"] = int(row["coef"]) if row["coef"].is_integer() else row["coef"]
        row["remark"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sweep = place.path("data/sweep_fox_large.jsonl")
    collapsed = [json.loads(line) for line in sweep.read_text().splitlines()]
    for row in collapsed:
        row["generations"] = []
    sweep.write_text("".join(json.dumps(row) + "\n" for row in collapsed))
    found = opened(place.model, place.data)

    loads(place.data, found)
    owl = next(each for each in found.study.tables if each.name == "judge_owl")
    assert not owl.alike
    assert owl.columns["margin"] == owl.columns["coef"] == "float64"


def test_files_that_no_type_fits_are_tables_of_their_own(place):
    path = place.path("data/judge_owl_small.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "extra": {"by": "hand"}}) + "\n" for row in rows))
    other = place.path("data/judge_owl_large.jsonl")
    rows = [json.loads(line) for line in other.read_text().splitlines()]
    other.write_text("".join(json.dumps({**row, "extra": "by hand"}) + "\n" for row in rows))
    found = opened(place.model, place.data)

    names = {each.name for each in tables(found.study.inventory, found.study.sweeps)}
    assert {"judge_owl_small", "judge_owl_large"} <= names
    assert "judge_owl" not in names
    loads(place.data, found)


def test_a_damaged_table_is_in_no_configuration(place):
    place.path("data/transfer_eval.jsonl").write_text('{"label": "native"}\n')
    found = opened(place.model, place.data)

    assert "transfer_eval" not in {each.name for each in found.study.tables}
    assert "transfer_eval" in found.data_card
    loads(place.data, found)
