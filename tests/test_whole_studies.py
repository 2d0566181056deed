"""Studies with SAEs, transfers and a comparison: what cards say of them, and that it is read, loaded and checked."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard, ModelCard
from studies import build, claim, write_lines, write_study
from tiny_study import invoke
from whole_studies import COMPARISON, QUALITY, whole, whole_document

from steer_eval.audit import audit_text
from steer_eval.cards import check_cards, render_data_repo, render_model_repo
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD
from steer_eval.formats import schema
from steer_eval.formats.strict_json import read_json, read_jsonl
from steer_eval.inventory import Root, take_inventory
from steer_eval.judge.tables import JudgeTable
from steer_eval.report_cells import Naming, labelled_files
from steer_eval.results import Results
from steer_eval.sae.belongs import recorded_text
from steer_eval.sae.text import OfflineText
from steer_eval.validate import validate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def card(place):
    return (place.model / "README.md").read_text(encoding="utf-8")


def table(text: str, header: str) -> list[dict[str, str]]:
    """The rows of the table whose header begins so."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(header))
    names = [cell.strip() for cell in lines[start].strip("|").split("|")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return rows


def test_a_whole_study_is_clean(place):
    assert [each.to_json() for each in validate(place.repositories()).findings if each.severity != "note"] == []


def test_the_card_says_how_good_the_sae_is(card):
    [row] = table(card, "| layer | SAE features")

    assert row == {
        "layer": "3",
        "SAE features": "12",
        "SAE k": "3",
        "training tokens": "3600",
        "held-out FVU": "0.218",
        "held-out L0": "2.8",
        "dead features": "8.33 %",
        "excess cross-entropy": "0.326",
    }
    assert 'SAE.load_from_disk("saes/tiny/layers.3", device="cpu")' in card
    assert "| `saes/tiny/layers.3/` |" in card


def test_the_card_shows_the_features_with_their_noise(place, card):
    rows = table(card, "| feature |")
    published = read_json(place.model / "saes/tiny_L3_features.json")["top_features"]

    assert [int(row["feature"]) for row in rows] == [each["feature_id"] for each in published]
    for row, each in zip(rows, published, strict=True):
        assert float(row["delta"]) == pytest.approx(each["delta"], abs=5e-4)
        low, high = map(float, row["95 % interval of delta"].split(" to "))
        assert [low, high] == pytest.approx(each["delta_interval"], abs=5e-4)
        assert float(row["same-text delta"]) == pytest.approx(each["forced_delta"], abs=5e-4)
        assert float(row["random direction's delta"]) == pytest.approx(each["random_delta"], abs=5e-4)
        assert float(row["from the vector alone"]) == pytest.approx(each["predicted"], abs=5e-4)
        assert float(row["steered token freq"].removesuffix(" %")) == pytest.approx(
            100 * each["steered_token_freq"], abs=0.05
        )
    # A context stays on its line, in a block of code.
    assert f"\n{rows[0]['feature']}: …The old [door] was shut.…\n" in card


def test_the_card_shows_each_diagnostic_beside_its_null(place, card):
    rows = {row["map"]: row for row in table(card, "| map |")}
    document = read_json(place.model / "transfer/tiny_L3_to_tiny_L1_diagnostics.json")
    maps = document["protocols"]["recommended"]["maps"]

    assert list(rows) == ["ridge", "procrustes", "random"]
    for kind, row in rows.items():
        for title, key in (
            ("held-out R²", "held_out_r2"),
            ("cosine to native", "cosine_to_native"),
            ("retrieval", "retrieval"),
        ):
            test = maps[kind][key]
            assert row[title] == f"{test['value']:z.3f} ({test['null_95']:z.3f}), p {test['p']:.3f}"
            assert re.search(rf"\b{test['draws']} for [^;.]*{title.split()[0]}", card, re.IGNORECASE)
            assert f"{1 / (test['draws'] + 1):.3f} with {test['draws']} draws" in card


def test_what_rounds_to_zero_has_no_sign(place):
    results = place.results()
    [(name, document)] = results.transfers.items()
    document = json.loads(json.dumps(document))
    document["protocols"]["recommended"]["svcca"].update(value=-0.0002, null_95=-0.0004)
    table_of = json.loads(json.dumps(results.feature_tables["tiny", 3]))
    table_of["top_features"][0]["predicted"] = -0.0001

    said = _model_card(place, replace(results, transfers={name: document}, feature_tables={("tiny", 3): table_of}))
    assert table(said, "| debiased CKA |")[0]["SVCCA"].startswith("0.000 (0.000), p ")
    assert table(said, "| feature |")[0]["from the vector alone"] == "+0.000"


def test_a_table_without_a_random_direction_has_no_column_of_it(place):
    results = place.results()
    kept = json.loads(json.dumps(results.feature_tables["tiny", 3]))
    # As where too few texts of a random direction can be compared; what it does to the same text is always known.
    lacking = {"random_delta", "random_delta_interval", "random_delta_q"}
    for found in (kept["discoveries"], *kept["top_features"]):
        for name in lacking & found.keys():
            del found[name]
    schema.check(kept, "features", file="features.json")
    said = _model_card(place, replace(results, feature_tables={("tiny", 3): kept}))

    [first, *_] = table(said, "| feature |")
    assert len(first) == 10
    section = said.split("### Features that steering changes")[1].split("\n## ")[0]
    assert "random direction's delta" not in section
    assert f"norm {kept['discoveries']['random_forced_delta']} on the same text." in section


def test_the_card_sets_every_method_beside_its_control(place, card):
    rows = {row["method"]: row for row in table(card, "| method |")}
    steered = [row for row in place.results().comparisons["tiny"].rows if row.cell.label == "steered"]

    assert list(rows) == [row.cell.variant for row in steered]
    assert rows["addition"]["PPL ratio"] == "2.40"
    assert rows["addition"]["control's PPL ratio"] == "1.05"
    assert rows["addition"]["texts changed"] == str(COMPARISON["prompts"])
    assert (rows["stack"]["PPL ratio"], rows["stack"]["collapsed"], rows["stack"]["texts changed"]) == (
        "4.00†",
        "yes",
        "–",
    )
    own, controls = list(rows["addition"])[3::2], list(rows["addition"])[4::2]
    # Whatever is shown of a method is shown of its control, right beside it.
    assert [re.sub(r"control('s)? ", "", name) for name in controls] == [
        name.removesuffix(" of the ratio") for name in own
    ]
    assert [rows["rotation"][name] for name in controls] == ["1.05", "1.03 to 1.07", "no", "2"]
    assert {rows["patch-identity"][name] for name in controls} == {"–"}
    assert rows["patch-identity"]["texts changed"] == "0"
    assert {name: row["where"] for name, row in rows.items()} == {
        **dict.fromkeys(("addition", "rotation", "anchor+addition"), "L=3 c=+2"),
        **dict.fromkeys(("features", "patch", "patch-identity"), "L=3"),
        **dict.fromkeys(("carried-ridge", "carried-procrustes"), "L=1 c=+2"),
        "stack": "several layers",
        "anchor": "–",
    }
    assert "Stacked layers: 1, 3." in card
    held = next(row for row in steered if row.cell.variant == "features").edits[0]["features"]
    assert f"Features that were held: {', '.join(map(str, held))}." in card


def test_margins_stand_beside_the_methods_that_a_judge_scored(place):
    scores = {"mature_anger": 4.0, "juvenile_rage": 1.5, "coherence": 4.5}
    cell = {"variant": "addition", "layer": 3, "coef": 2.0}
    rows = ({**cell, "label": "steered", **scores}, {**cell, "label": "random", **scores, "mature_anger": 2.0})
    judged = JudgeTable("owl", "tiny", "judge_owl_tiny.jsonl", (), rows)
    results = replace(place.results(), judges=(judged,))

    shown = {
        row["method"]: (row["margin (owl)"], row["control's margin (owl)"])
        for row in table(_model_card(place, results), "| method |")
    }
    assert shown["addition"] == ("2.5", "0.5")
    assert set(shown.values()) == {("2.5", "0.5"), ("–", "–")}
    assert (
        "| `judge_owl_tiny_comparison.jsonl` | scores of cells of that comparison, by `owl` | 2 cells |"
        in (render_data_repo(place.study(), results)["README.md"])
    )


def test_the_audit_understands_margins_of_controls(tmp_path):
    judged = whole(tmp_path)
    scores = {"mature_anger": 4.0, "juvenile_rage": 1.5, "coherence": 4.5}
    cell = {"variant": "addition", "layer": 3, "coef": 2.0, **scores}
    lines = [
        {**cell, "label": "steered", "margin": 2.5},
        {**cell, "label": "random", "mature_anger": 2.0, "margin": 0.5},
    ]
    write_lines(judged.data / "judge_owl_tiny_comparison.jsonl", lines)
    write_lines(judged.data / "judge_owl_tiny.jsonl", [{"layer": 3, "coef": 2.0, **scores}])
    text = _model_card(judged, judged.results())

    for said, word in ((text, "reproduced"), (text.replace("| 0.5 |", "| 1.5 |"), "contradicted")):
        found = [each for each in audited(judged, said).verdicts if each.claim.select.variant == "addition"]
        margins = [each for each in found if each.claim.measure == "margin"]
        assert [each.claim.select.label for each in margins] == ["steered", "random"]
        assert [each.word for each in margins] == ["reproduced", word]


def test_two_draws_of_one_cell_are_said_to_be_two(place, card):
    study, said = place.study(), "another draw than the one in the table of controls above"
    [plan] = study.comparisons
    same = replace(study, comparisons=(replace(plan, seed=study.sweep.random_seed),))

    assert f"The control's random direction of addition and rotation was drawn for this comparison: {said}" in card
    assert said not in render_model_repo(same, place.results())["README.md"]


def _with_sae(results: Results, **recorded: str | None) -> Results:
    """Results whose SAE records something else; nothing, where it is None."""
    its = results.sae_outlines["tiny", 3]
    said = {key: value for key, value in {**its.provenance, **recorded}.items() if value is not None}
    return replace(results, sae_outlines={("tiny", 3): replace(its, provenance=said)})


def _model_card(place, results: Results) -> str:
    return render_model_repo(place.study(), results)["README.md"]


def test_only_an_sae_that_never_saw_sinks_is_said_to_know_none(place, card):
    said = "it was trained without them"

    assert said in card
    for recipe in ("plain", "another's"):
        assert said not in _model_card(place, _with_sae(place.results(), recipe=recipe))


def test_words_of_others_are_credited(place, card):
    study, credit = place.study(), "held out (English Wikipedia, CC BY-SA 3.0), with the token"
    sample = OfflineText("wikipedia-sample")
    quoting = replace(study, saes=tuple(replace(plan, text=sample) for plan in study.saes))

    assert credit not in card
    assert credit in _model_card(place, _with_sae(place.results(), text=recorded_text(sample)))
    # The text of an SAE that does not name one is the planned one; else it is what the SAE says.
    assert credit in render_model_repo(quoting, _with_sae(place.results(), text=None))["README.md"]
    assert credit not in render_model_repo(quoting, place.results())["README.md"]


def test_the_card_says_of_an_sae_what_it_is_and_not_what_is_planned(place, card):
    study = place.study()
    other = tuple(replace(plan, features=99, k=7, recipe="plain", tokens=5) for plan in study.saes)

    assert render_model_repo(replace(study, saes=other), place.results())["README.md"] == card


def test_the_card_leaves_open_what_no_sae_says(place):
    [row] = table(_model_card(place, replace(place.results(), sae_outlines={})), "| layer | SAE features")

    assert (row["layer"], row["SAE features"], row["SAE k"]) == ("3", "–", "–")


def test_the_card_says_what_the_anchor_replaces(place, card):
    said = "a system prompt of its own for conversations without one, `unsteered` has that"
    compared = place.results().comparisons["tiny"]
    without = replace(compared, rows=tuple(row for row in compared.rows if row.cell.variant != "anchor"))

    assert said in card
    assert said not in _model_card(place, replace(place.results(), comparisons={"tiny": without}))


def test_a_study_that_plans_these_parts_and_has_none_says_nothing_of_them(place, tmp_path):
    plain = build(tmp_path)
    results = replace(place.results(), saes={}, feature_tables={}, transfers={}, comparisons={}, tables=())
    without = replace(plain.results(), tables=())

    assert _model_card(place, results) == render_model_repo(plain.study(), without)["README.md"]
    data = [render_data_repo(*each)["README.md"] for each in ((place.study(), results), (plain.study(), without))]
    assert data[0] == data[1]


def test_what_a_rerun_can_not_measure_is_left_open(place):
    quality = {key: value for key, value in QUALITY.items() if key not in ("dead_share", "training_tokens")}
    [row] = table(_model_card(place, replace(place.results(), saes={("tiny", 3): quality})), "| layer | SAE features")

    assert (row["training tokens"], row["dead features"], row["held-out FVU"]) == ("–", "–", "0.218")


@pytest.mark.parametrize(
    "number", ["| 0.218 |", "8.33 %", "2.40 |", "Stacked layers: 1, 3.", "1.05 |"], ids=["fvu", "dead", "r", "s", "c"]
)
def test_a_number_changed_by_hand_is_found(tmp_path, number):
    place = whole(tmp_path)
    path = place.model / "README.md"
    text = path.read_text(encoding="utf-8")
    assert number in text
    changed = number.translate(str.maketrans("0123456789", "1234567890"))
    path.write_text(text.replace(number, changed, 1), encoding="utf-8")

    repositories = place.repositories()
    [finding] = check_cards(repositories.study, place.results(), model=repositories.model, data=repositories.data)
    assert finding.rule == "card-differs"


def audited(place, text: str):
    data = Root(place.data, "persona-data/", "dataset", place.study().chosen_names)
    inventory = take_inventory([Root(place.model, "persona/", "model"), data])
    return audit_text(text, "README.md", inventory, validate(place.repositories()).findings)


def test_the_audit_understands_the_tables(place, card):
    tables = {
        **{"| layer | SAE features": 7, "| feature |": 6 * 11, "| map |": 3 * 10, "| debiased CKA": 6},
        # Ratio, two ends, mark, texts, and the control's; a stack that collapsed has no texts, the no-op no control.
        # Where: the layer of all but the anchor and the stack, and the coefficient of what is added or turned towards.
        "| method |": 10 * 2 * 5 - 1 - 5 + 8 + 5,
    }
    lines = card.splitlines()
    for header, count in tables.items():
        start = next(index for index, line in enumerate(lines) if line.startswith(header))
        end = next(index for index in range(start, len(lines)) if not lines[index].startswith("|"))
        verdicts = [each.verdict for each in audited(place, card).places if start < each.line - 1 < end]
        said = [each.word for each in verdicts if not any("only says" in check.reason for check in each.checks)]
        assert len(said) == count, (header, len(said))
        assert set(said) == {"reproduced"}, [each.claim.words for each in verdicts if each.word != "reproduced"]


def test_the_audit_understands_most_of_the_card(place, card):
    coverage = audited(place, card).coverage
    unclear = [
        (each.line, card.splitlines()[each.line - 1][:100])
        for each in audited(place, card).stated
        if any(check.reason == NOT_UNDERSTOOD for check in each.verdict.checks)
    ]

    assert coverage.understood >= 0.9 * coverage.numbers, unclear


def test_a_wrong_number_of_the_tables_is_contradicted(place, card):
    cosine = {row["map"]: row for row in table(card, "| map |")}["ridge"]["cosine to native"]
    for old, new in (("| 0.218 |", "| 0.318 |"), ("8.33 %", "9.33 %"), (cosine, f"9{cosine}")):
        words = [verdict.word for verdict in audited(place, card.replace(old, new)).verdicts]
        assert words.count("contradicted") == 1, (old, new)


@pytest.mark.parametrize(
    ("column", "wrong"),
    [("control's PPL ratio", "1.25"), ("control's 95 % interval", "1.03 to 1.27"), ("control's texts changed", "1")],
)
def test_a_wrong_number_of_a_control_is_contradicted(place, card, column, wrong):
    line = next(line for line in card.splitlines() if line.startswith("| rotation |"))
    cells, names = line.split(" | "), list(table(card, "| method |")[0])
    cells[names.index(column)] = wrong
    found = audited(place, card.replace(line, " | ".join(cells))).verdicts

    [contradicted] = [verdict for verdict in found if verdict.word == "contradicted"]
    assert (contradicted.claim.select.variant, contradicted.claim.select.label) == ("rotation", "random")


@pytest.mark.parametrize("wrong", ["L=1 c=+2", "L=3 c=+4", "L=3 c=-2"])
def test_a_method_at_another_place_is_contradicted(place, card, wrong):
    line = next(line for line in card.splitlines() if line.startswith("| rotation |"))
    found = audited(place, card.replace(line, line.replace("L=3 c=+2", wrong))).verdicts

    [contradicted] = [verdict for verdict in found if verdict.word == "contradicted"]
    assert contradicted.claim.select.variant == "rotation"
    assert contradicted.claim.measure == ("applied_layer" if wrong.startswith("L=1") else "applied_coefficient")


def test_a_place_in_other_words_leaves_its_row_not_understood(place, card):
    line = next(line for line in card.splitlines() if line.startswith("| rotation |"))
    said = card.replace(line, line.replace("L=3 c=+2", "L=3 c=+2 on wikitext"))
    row = said.splitlines().index(line.replace("L=3 c=+2", "L=3 c=+2 on wikitext")) + 1
    stated = [each for each in audited(place, said).stated if each.line == row]

    assert stated
    assert all(each.verdict.word == "not-checkable" for each in stated)


CLAIMS = [
    claim("perplexity_ratio", "1.50", identity="rotated", variant="rotation"),
    claim("perplexity_ratio", "1.05", identity="control", variant="rotation", label="random"),
    claim("collapsed", True, identity="stacked", variant="stack"),
    claim("sae_heldout_fvu", "0.218", identity="fvu", layer=3),
    claim("sae_dead_share", "8.33", identity="dead", layer=3),
    claim("transfer_heldout_r2", "0.993", identity="carried", variant="ridge"),
]


def test_claims_about_these_parts_are_understood_wherever_the_card_has_them(tmp_path):
    """In the table of claims and in the front matter, each on the method or on its control, as the study means it."""
    place = whole(tmp_path)
    write_study(place.model, whole_document(claims=CLAIMS))
    place.seal()
    text = (place.model / "README.md").read_text(encoding="utf-8")

    assert "| `perplexity_ratio` of `rotation` | 1.50 |" in text
    assert "| `perplexity_ratio` of `rotation` (`random`) | 1.05 |" in text
    results = {result.metric_name: result for result in ModelCard(text).data.eval_results}
    assert results["perplexity ratio at rotation"].dataset_config == "comparison"
    assert results["perplexity ratio at rotation random"].metric_value == 1.05
    start = text.splitlines().index("## Claims")
    of_claims = [each for each in audited(place, text).stated if start < each.line - 1 < start + 5 + len(CLAIMS)]
    of_metrics = [each for each in audited(place, text).stated if each.line < 80 and "value:" in _line(text, each)]
    # Each number in its sentence and as the value; a truth value is no number of the sentence.
    assert [each.verdict.word for each in of_claims] == ["reproduced"] * (2 * len(CLAIMS) - 1)
    assert [each.verdict.word for each in of_metrics] == ["reproduced"] * 2


def _line(text: str, place) -> str:
    return text.splitlines()[place.line - 1]


def test_load_dataset_gives_the_comparison_value_by_value(place, tmp_path):
    from datasets import load_dataset

    configs = DatasetCard((place.data / "README.md").read_text(encoding="utf-8")).data.to_dict()["configs"]
    assert {"config_name": "comparison", "data_files": [{"split": "tiny", "path": "comparison_tiny.jsonl"}]} in configs
    loaded = load_dataset(str(place.data), "comparison", cache_dir=str(tmp_path / "cache"))["tiny"]
    written = [each.value for each in read_jsonl(place.data / "comparison_tiny.jsonl", schema="comparison_row")]

    def bare(value):
        if isinstance(value, dict):
            return {key: bare(each) for key, each in value.items() if each is not None}
        return [bare(each) for each in value] if isinstance(value, list) else value

    assert [bare(dict(each)) for each in loaded] == [bare(each) for each in written]


def test_the_configs_name_the_sae_and_the_comparison(place):
    model, data = (json.loads((each / "config.json").read_text(encoding="utf-8")) for each in (place.model, place.data))

    assert model["saes"] == [{"model": "lab/tiny-base", "layer": 3, "file": "saes/tiny/layers.3"}]
    assert data["tables"]["comparison"] == {"tiny": "comparison_tiny.jsonl"}


def test_the_report_shows_every_method_and_its_control(place, tmp_path):
    scores = {"mature_anger": 4.0, "juvenile_rage": 1.5, "coherence": 4.5}
    judged = whole(tmp_path)
    write_lines(
        judged.data / "judge_owl_tiny_comparison.jsonl",
        [{"variant": "addition", "label": "steered", "layer": 3, "coef": 2.0, **scores}],
    )
    inventory = take_inventory([Root(judged.data, "d/", "dataset", judged.study().chosen_names)])

    [part] = labelled_files("", inventory, Naming())

    rows = place.results().comparisons["tiny"].rows
    assert (part.title, part.judges) == ("comparison of methods, tiny", ("owl",))
    assert [cell.ratio for cell in part.cells] == [row.ppl_ratio for row in rows]
    assert [len(cell.texts) for cell in part.cells] == [len(row.generations) for row in rows]
    assert [cell.name for cell in part.cells[:4]] == [
        "unsteered",
        "addition",
        "addition, random control",
        "rotation",
    ]
    assert len({cell.identity for cell in part.cells}) == len(rows)
    assert [score.margin for cell in part.cells for score in cell.scores] == [2.5]


def test_the_report_is_a_page(place, tmp_path):
    answer = invoke("report", str(place.model), "--out", str(tmp_path / "report.html"))

    assert answer.exit_code == 0, answer.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "comparison of methods, tiny" in page
    assert "carried-ridge, random control" in page
