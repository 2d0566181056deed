"""What the cards say is missing, contradicted or foreign in a study."""

from __future__ import annotations

import json
import re

import legacy_contents as contents
from legacy_cards.opened import opened, table

from steer_eval.legacy.limits import limits


def test_limits_of_the_published_study(published):
    found = limits(published.study)

    assert set(found.no_zero) == set(found.no_random) == {"qwen_large", "qwen_small", "qwen_xlarge"}
    assert found.no_negative == ("qwen_xlarge",)
    assert not found.no_anchor
    assert found.prompts == (10, 40)
    assert found.unjudged == (("qwen", "qwen_xlarge"),)
    assert found.no_features == ("qwen_xlarge",)
    assert set(found.no_sae) == {"Qwen/Qwen3.5-2B", "Qwen/Qwen3.5-0.8B"}
    assert found.no_map
    assert found.absent == (
        "saes/qwen_large_L14_sae.pt",
        "saes/qwen_small_L14_sae.pt",
        "vectors/transfer_map_large_to_small.pt",
    )
    incoherent = {
        (each.judgement.model, each.judgement.judge): [s.cell for s in each.cells] for each in found.incoherent
    }
    assert incoherent["qwen_large", "deepseek"] == [(6, 4.0), (10, 4.0), (18, 4.0)]
    assert incoherent["qwen_small", "deepseek"] == [(6, 4.0), (10, 2.0), (10, 4.0), (18, 4.0), (22, 4.0)]
    assert incoherent["qwen_xlarge", "deepseek"] == [(13, 4.0), (23, 4.0)]
    assert [(each.model, each.judge, each.best.cell) for each in found.coefficients] == [
        ("qwen_large", "deepseek", (14, 1.0))
    ]


def test_limits_follow_from_the_files(place):
    found = limits(opened(place.model, place.data).study)
    assert (found.absent, found.no_map, found.no_sae, found.no_negative) == ((), False, (), ())
    assert found.no_zero

    rows = [json.loads(line) for line in place.path("data/sweep_fox_large.jsonl").read_text().splitlines()]
    zero = {**rows[0], "coef": 0.0, "ppl": rows[0]["base_ppl"], "ppl_ratio": 1.0, "label": "zero"}
    noise = {**rows[0], "label": "random"}
    with place.path("data/sweep_fox_large.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (zero, noise))
    place.path("model/vectors/transfer_map_large_to_small.pt").unlink()
    place.path("model/saes/fox_large_L5_sae.pt").unlink()
    place.path("data/anchor_eval.jsonl").unlink()
    place.path("data/judge_hare_small.jsonl").unlink()

    found = limits(opened(place.model, place.data).study)
    assert found.no_zero == found.no_random == ("fox_small",)
    assert found.no_map
    assert found.no_anchor
    assert found.no_sae == (contents.BASE_MODEL["large"],)
    assert found.unjudged == (("hare", "fox_small"),)
    assert found.absent == ("saes/fox_large_L5_sae.pt", "vectors/transfer_map_large_to_small.pt")


def test_findings_are_listed_without_the_places_of_this_machine(place):
    place.edit_torch("model/vectors/fox_small_L2_caa.pt", lambda value: value.update(norm=99.0))
    text = opened(place.model, place.data).model_card

    assert ["`vector-norm`", "error"] in [row[:2] for row in table(text, "rule", "severity")]
    assert re.search(r"^error: vectors/fox_small_L2_caa\.pt, norm: .* \[vector-norm\]$", text, re.MULTILINE)
    checked = {row[0]: row[1] for row in table(text, "checked", "found")}
    assert next(found for what, found in checked.items() if what.startswith("norm, layer")) == "see the limitations"
    assert next(found for what, found in checked.items() if what.startswith("summaries")) == "it holds"


def test_what_strangers_write_stays_in_its_place(place):
    hostile = "x | y\n# Heading\n```"
    place.edit_line("data/judge_owl_transfer.jsonl", 2, lambda row: row.update(label=hostile))
    place.edit_torch("model/vectors/fox_small_L2_caa.pt", lambda value: value.update(model="den/evil\n---\n# Title"))
    text = opened(place.model, place.data).model_card

    assert "\n# Heading" not in text
    assert "\n# Title" not in text
    assert len([line for line in text.splitlines() if line.startswith("```")]) % 2 == 0
