"""What the cards of studies without `study.yaml` say: every number comes from the files."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import legacy
import legacy_contents as contents
import numpy as np
from legacy_cards.opened import CARD, opened, table

from steer_eval.audit import audit_text
from steer_eval.legacy_cards import render_data_repo, render_model_repo


def test_no_number_of_a_card_is_contradicted_and_nearly_all_are_understood(each):
    for text in (each.model_card, each.data_card):
        audit = audit_text(text, CARD, each.study.inventory, each.study.found)
        words = [place.verdict.word for place in audit.places]

        assert "contradicted" not in words
        assert words.count("reproduced") > 30
        assert audit.coverage.understood >= 0.8 * audit.coverage.numbers


def test_cards_are_the_same_wherever_the_repos_stand(place, tmp_path):
    elsewhere = legacy.build(tmp_path / "elsewhere")
    first, second = opened(place.model, place.data), opened(elsewhere.model, elsewhere.data)

    assert render_model_repo(first.study) == render_model_repo(second.study)
    assert render_data_repo(first.study) == render_data_repo(second.study)
    assert str(tmp_path) not in first.model_card + first.data_card


def test_no_sentence_of_the_present_card_is_taken_over(each, request):
    present = each.study.card
    words = [line.strip() for line in present.splitlines() if len(line.split()) > 5 and "caa.pt" not in line]
    assert words

    for text in (each.model_card, each.data_card):
        assert not [line for line in words if line in text]


def test_a_changed_number_of_the_data_changes_the_card(place):
    before = opened(place.model, place.data).model_card

    def change(row: dict[str, Any]) -> None:
        row["ppl"] *= 1.01
        row["ppl_ratio"] = row["ppl"] / row["base_ppl"]

    place.edit_line("data/sweep_fox_small.jsonl", 2, change)
    after = opened(place.model, place.data).model_card
    row = json.loads(place.path("data/sweep_fox_small.jsonl").read_text().splitlines()[1])

    changed = set(after.splitlines()) - set(before.splitlines())
    assert any(f"{row['ppl']:.3f} | {row['ppl_ratio']:.3f}" in line for line in changed)


def test_every_file_stands_in_the_inventory_with_its_size(each):
    for role, text in (("model", each.model_card), ("dataset", each.data_card)):
        root = next(root for root in each.study.inventory.roots if root.role == role)
        shown = {row[0].strip("`"): row[2] for row in table(text, "file", "what", "size")}
        files = {
            path.relative_to(root.folder).as_posix(): f"{path.stat().st_size:,} bytes"
            for path in root.folder.rglob("*")
            if path.is_file() and path.name != CARD
        }

        assert shown == files


def test_norms_and_widths_are_those_of_the_tensors(synthetic):
    rows = table(synthetic.model_card, "model", "layer", "norm", "width")

    expected = {
        (contents.BASE_MODEL[model], str(layer)): (
            f"{np.linalg.norm(contents.direction(model, layer).double().numpy()):.4f}",
            str(contents.WIDTH[model]),
        )
        for model in contents.WIDTH
        for layer in contents.LAYERS
    }
    assert {(row[0], row[1]): (row[2], row[3]) for row in rows} == expected


def test_feature_tables_state_coefficient_prompts_and_shares(synthetic):
    text = synthetic.model_card

    assert "at coefficient +1, a push of" in text
    assert "on 20 prompts" in text
    first = table(text, "feature", "base mean")[0]
    row = max(contents.features("small")["top_features"], key=lambda each: abs(each["delta"]))
    assert first[0] == str(row["feature_id"])
    assert first[3] == f"{row['delta']:+.4f}"
    assert first[5:] == [f"{100 * row['base_freq']:.1f}%", f"{100 * row['steered_freq']:.1f}%"]
    assert "can't be compared" not in text


def test_feature_tables_of_unlike_coefficients_come_with_a_warning(place):
    place.edit("model/saes/fox_small_L5_features.json", lambda value: value.update(coef=2.5))

    assert "measured under different coefficients" in opened(place.model, place.data).model_card


def test_heat_maps_show_every_ratio(synthetic):
    svg = render_model_repo(synthetic.study)["figures/perplexity_fox_small.svg"]
    picture = ElementTree.fromstring(svg)  # noqa: S314 - it was drawn here
    labels = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]

    for layer in contents.LAYERS:
        for coefficient in contents.COEFFICIENTS:
            ratio = contents.ratio("small", layer, coefficient)
            assert f"{ratio:.2f}{'†' if ratio > 3 else ''}" in labels
    assert "Perplexity ratio, den/fox-0.5B" in labels
