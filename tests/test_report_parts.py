"""SAEs and transfers on the page: every number of the files, and each statistic beside its null."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from studies import OnDisk, build
from test_report import ALLOWED, HOSTILE, Parsed
from whole_studies import FEATURES, QUALITY, K, sae, whole

from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.report import render
from steer_eval.report_data import Page, load_page
from steer_eval.report_parts import OF_STREAMS, Statistic

DIAGNOSTICS = "transfer/tiny_L3_to_tiny_L1_diagnostics.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    return whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def page(place: OnDisk) -> Page:
    return load_page(str(place.model))


def test_an_sae_stands_with_its_quality(page: Page) -> None:
    [shown] = page.saes

    assert (shown.layer, shown.features, shown.k) == (3, FEATURES, K)
    assert shown.quality == QUALITY
    assert shown.file == "saes/tiny/layers.3/sae_weights.safetensors"
    html = render(page)
    for figure in (">3600<", ">0.2184<", ">2.75<", ">8.33 %<", ">0.326<"):
        assert figure in html.split('id="saes"')[1].split("</section>")[0]


@pytest.mark.parametrize("recorded", ["no JSON", "{}", '{"held_out_fvu": "<b>0.1</b>"}', "[1]", "{" * 10_000])
def test_what_is_no_quality_is_not_shown_as_one(tmp_path: Path, recorded: str) -> None:
    strange = whole(tmp_path)
    write_saelens(strange.model / "saes/tiny/layers.3", replace(sae(), provenance={"quality": recorded}))
    page = load_page(str(strange.model))

    [shown] = page.saes
    assert shown.quality == {}
    assert "<b>0.1" not in render(page)


def test_what_a_run_measured_of_an_sae_is_shown_too(tmp_path: Path) -> None:
    again = whole(tmp_path)
    write_json(again.model / "saes/tiny_L3_quality.json", {**QUALITY, "held_out_fvu": 0.21})

    measured = load_page(str(again.model)).saes[1]
    assert (measured.model, measured.layer, measured.features) == ("tiny", 3, None)
    assert measured.quality["held_out_fvu"] == 0.21


def test_every_statistic_of_a_transfer_stands_beside_its_null(place: OnDisk, page: Page) -> None:
    document = read_json(place.model / DIAGNOSTICS)
    [transfer] = page.transfers

    assert transfer.title == "tiny layer 3 to tiny layer 1"
    assert [protocol.name for protocol in transfer.protocols] == ["recommended", "plain"]
    for protocol in transfer.protocols:
        measured = document["protocols"][protocol.name]
        found = {(each.of, each.name): each for each in protocol.statistics}
        expected = {(OF_STREAMS, "debiased CKA"): measured["debiased_cka"], (OF_STREAMS, "SVCCA"): measured["svcca"]}
        for kind, its in measured["maps"].items():
            expected[kind, "held-out R²"] = its["held_out_r2"]
            expected[kind, "cosine to native"] = its["cosine_to_native"]
            expected[kind, "retrieval"] = its["retrieval"]
        assert found.keys() == expected.keys()
        for key, test in expected.items():
            assert found[key] == Statistic(*key, test["value"], test["null_95"], test["p"], test["draws"])
        assert protocol.norms == {kind: its["carried_norm_share"] for kind, its in measured["maps"].items()}


def test_the_page_has_each_of_them_in_a_table_and_in_the_picture(page: Page) -> None:
    part = render(page).split('id="transfers"')[1].split('id="compare"')[0]
    [transfer] = page.transfers

    for protocol in transfer.protocols:
        table = part.split(f"protocol {protocol.name}")[1].split("</table>")[0]
        for each in protocol.statistics:
            cells = (each.name, f"{each.value:.4g}", f"{each.null_95:.4g}", f"{each.p:.3g}", f"{each.draws}")
            row = "".join(f'<td class="number">{cell}</td>' for cell in cells[1:])
            assert f'<tr><th scope="row">{each.of}</th><td>{each.name}</td>{row}</tr>' in table
    for each in transfer.protocols[0].statistics:
        assert f">{each.value - each.null_95:+.3g}<" in part


def test_features_stand_beside_their_controls(place: OnDisk, page: Page) -> None:
    html = render(page).split('id="features"')[1].split('id="transfers"')[0]
    table = read_json(place.model / "saes/tiny_L3_features.json")

    for row in table["top_features"]:
        for change in ("delta", "forced_delta", "random_delta", "random_forced_delta"):
            low, high = row[f"{change}_interval"]
            assert f">{row[change]:+.3g} ({low:+.3g} to {high:+.3g})<" in html
    assert f"{table['discoveries']['random_forced_delta']} in the same text, random direction" in html


def test_a_study_without_these_parts_has_no_such_sections(tmp_path: Path) -> None:
    page = load_page(str(build(tmp_path).model))
    html = render(page)

    assert (page.saes, page.transfers) == ((), ())
    assert not [name for name in ("saes", "transfers") if f'id="{name}"' in html or f'href="#{name}"' in html]


def test_the_page_is_well_formed_and_equal_values_give_equal_bytes(place: OnDisk, page: Page) -> None:
    html = render(page)
    parsed = Parsed(html)
    anchors = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    levels = [int(tag[1]) for tag, _ in parsed.elements if tag in {"h1", "h2", "h3"}]

    assert html == render(load_page(str(place.model)))
    assert {tag for tag, _ in parsed.elements} <= ALLOWED
    assert len(anchors) == len(set(anchors))
    assert all("scope" in attributes for attributes in parsed.of("th"))
    assert all(second - first <= 1 for first, second in pairwise(levels))
    # What scrolls can be reached without a mouse.
    regions = [each for each in parsed.of("div") if each.get("class") == "scroll"]
    assert len([each for each in regions if each.get("role") == "region" and each.get("tabindex") == "0"]) >= 6
    json.dumps(page.to_json(), allow_nan=False)


def test_hostile_names_stay_names(page: Page) -> None:
    def spoiled(text: str) -> Page:
        saes = tuple(replace(each, model=text, file=text, source=text) for each in page.saes)
        transfers = tuple(replace(each, title=text, file=text) for each in page.transfers)
        features = tuple(replace(each, file=text, table=replace(each.table, model=text)) for each in page.features)
        return replace(page, saes=saes, transfers=transfers, features=features)

    html, plain = render(spoiled(HOSTILE)), Parsed(render(spoiled("x")))
    parsed = Parsed(html)
    assert [(tag, sorted(each)) for tag, each in parsed.elements] == [
        (tag, sorted(each)) for tag, each in plain.elements
    ]
    assert "{{ 7 * 7 }}" in html
    assert "\u202e" not in html


def test_the_page_as_data_has_what_the_page_shows(page: Page) -> None:
    value = page.to_json()

    assert list(value["saes"]) == [asdict(each) for each in page.saes]
    assert [each["protocols"][0]["name"] for each in value["transfers"]] == ["recommended"]
