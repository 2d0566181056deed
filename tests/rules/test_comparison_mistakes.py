"""Mistakes in a comparison, each with the findings that it gives.

The rules comparison-edits, comparison-unchecked, comparison-no-op and comparison-sweep, and those of sweeps as far as a
comparison is held to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from rules.whole_study_edits import (
    ADDED,
    COMPARED,
    TRANSFER,
    edit,
    found,
    line_of,
    of_row,
    repeated_row,
    without,
    without_row,
)
from studies import OnDisk, write_study
from whole_studies import whole, whole_document

from steer_eval.cells import Cell
from steer_eval.comparison.cells import comparison_cells
from steer_eval.rules.comparisons import comparison_findings
from steer_eval.validate import validate

MISTAKES: dict[str, tuple[Callable[[OnDisk], object], list[tuple[str, str, str]]]] = {
    "a control that is absent": (without_row, [("sweep-missing", COMPARED, "")]),
    "a row that stands twice": (repeated_row, [("sweep-duplicate", COMPARED, "line 21")]),
    "a wrong ratio": (
        of_row("rotation", lambda row: row.update(ppl_ratio=1.4)),
        [("sweep-arithmetic", COMPARED, f"line {line_of('rotation')}: ppl_ratio")],
    ),
    "a wrong interval": (
        of_row("rotation", lambda row: row["ppl_ratio_interval"].__setitem__(1, 2.9)),
        [("sweep-arithmetic", COMPARED, f"line {line_of('rotation')}: ppl_ratio_interval[1]")],
    ),
    "a wrong mark of collapse": (
        of_row("rotation", lambda row: row.update(collapsed=True, generations=[])),
        [("sweep-arithmetic", COMPARED, f"line {line_of('rotation')}: collapsed")],
    ),
    "a base that is not that of the place": (
        of_row("patch", lambda row: row.update(base_ppl=21.0, ppl_ratio=row["ppl"] / 21.0)),
        [("sweep-arithmetic", COMPARED, f"line {line_of('patch')}: base_ppl")],
    ),
    "a collapsed cell with a text": (
        of_row(
            "stack",
            lambda row: row.update(
                generations=[{"prompt_idx": 0, "prompt": "The lift is broken again.", "gen": "x", "n_tokens": 1}]
            ),
        ),
        [("sweep-texts", COMPARED, f"line {line_of('stack')}: generations")],
    ),
    "a text that is absent": (
        of_row("rotation", lambda row: row["generations"].pop()),
        [("sweep-texts", COMPARED, f"line {line_of('rotation')}: generations")],
    ),
    "another prompt": (
        of_row("rotation", lambda row: row["generations"][1].update(prompt="Hello.")),
        [("sweep-prompt", COMPARED, f"line {line_of('rotation')}: generations")],
    ),
    "another layer": (of_row("addition", edit(layer=1)), [("comparison-edits", COMPARED, f"{ADDED}: edits[0].layer")]),
    "another coefficient": (
        of_row("addition", edit(coefficient=3.0)),
        [("comparison-edits", COMPARED, f"{ADDED}: edits[0].coefficient")],
    ),
    "another norm": (
        of_row("stack", edit(norm=5.0)),
        [("comparison-edits", COMPARED, f"line {line_of('stack')}: edits[0].norm")],
    ),
    "a control that is the method": (
        of_row("addition", edit(vector_sha256="f" * 64), "random"),
        [("comparison-edits", COMPARED, f"line {line_of('addition', 'random')}: edits[0].vector_sha256")],
    ),
    "other features": (
        of_row("features", lambda row: row["edits"][0].update(features=row["edits"][0]["features"][::-1])),
        [("comparison-edits", COMPARED, f"line {line_of('features')}: edits[0].features")],
    ),
    "another activation": (
        of_row("features", lambda row: row["edits"][0]["values"].__setitem__(0, 9.0)),
        [("comparison-edits", COMPARED, f"line {line_of('features')}: edits[0].values")],
    ),
    "an edit that is absent": (
        of_row("stack", lambda row: row["edits"].pop()),
        [("comparison-edits", COMPARED, f"line {line_of('stack')}: edits")],
    ),
    "a patch from elsewhere": (
        of_row("patch", edit(source="random")),
        [("comparison-edits", COMPARED, f"line {line_of('patch')}: edits[0].source")],
    ),
    "another anchor": (
        of_row("anchor", lambda row: row.update(system_prompt="Be kind.")),
        [("sweep-anchor", COMPARED, f"line {line_of('anchor')}: system_prompt")],
    ),
    "a control with other words": (
        of_row("anchor", lambda row: row.update(system_prompt="Be firm."), "random"),
        [("sweep-anchor", COMPARED, f"line {line_of('anchor', 'random')}: system_prompt")],
    ),
    "a system prompt where there is none": (
        of_row("rotation", lambda row: row.update(system_prompt="Be firm.")),
        [("sweep-anchor", COMPARED, f"line {line_of('rotation')}: system_prompt")],
    ),
    "an identity that changes a text": (
        of_row("patch-identity", lambda row: row["generations"][1].update(gen="Else.")),
        [("comparison-no-op", COMPARED, f"line {line_of('patch-identity')}: prompt 1")],
    ),
    "no SAE": (without("saes"), [("comparison-unchecked", COMPARED, f"line {line_of('features')}")]),
    "no activity of an SAE": (
        without("saes/tiny/layers.3/activity.safetensors"),
        [("comparison-unchecked", COMPARED, f"line {line_of('features')}")],
    ),
    "no feature table": (
        without("saes/tiny_L3_features.json"),
        [("comparison-unchecked", COMPARED, f"line {line_of('features')}")],
    ),
    "no vector": (
        without("vectors/tiny_L1_caa.safetensors"),
        [
            ("vector", "persona/vectors/tiny_L1_caa.safetensors", ""),
            ("transfer-source", f"persona/{TRANSFER}_vectors.safetensors", "v_small_native"),
            ("comparison-unchecked", COMPARED, f"line {line_of('stack')}"),
        ],
    ),
    "no carried vector": (
        without("vectors/transferred/tiny-L3_to_tiny-L1-ridge.safetensors"),
        [("comparison-unchecked", COMPARED, f"line {line_of('carried-ridge')}")],
    ),
    "no random carried vector": (
        without("vectors/transferred/tiny-L3_to_tiny-L1-random.safetensors"),
        [("comparison-unchecked", COMPARED, f"line {line_of('carried-ridge', 'random')}")],
    ),
    "no pairs": (
        lambda place: (place.data / "contrast_pairs.jsonl").unlink(),
        [("table", "persona-data/contrast_pairs.jsonl", "")],
    ),
}


def test_the_lines_are_those_of_the_plan(tmp_path):
    cells = comparison_cells(whole(tmp_path).study(), "tiny")

    assert [line_of(cell.variant, "random" if cell.label == "random" else "steered") for cell in cells] == list(
        range(1, len(cells) + 1)
    )


@pytest.mark.parametrize(("make", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_where_it_is(tmp_path, make, expected):
    place = whole(tmp_path)
    make(place)

    assert found(place) == sorted(expected)


def test_what_lacks_one_file_is_named_together_with_the_file(tmp_path):
    place = whole(tmp_path)
    without("vectors/tiny_L1_caa.safetensors")(place)

    [finding] = [each for each in validate(place.repositories()).findings if each.rule == "comparison-unchecked"]
    assert finding.severity == "warning"
    for name in ("stack, stack (random), carried-ridge, carried-ridge (random)", "vectors/tiny_L1_caa.safetensors"):
        assert name in finding.message
    assert "rotation" not in finding.message
    assert "steer-eval extract" in finding.fix


def test_what_was_left_on_the_hub_is_not_called_absent(tmp_path):
    place = whole(tmp_path)
    without("saes/tiny/layers.3/sae_weights.safetensors")(place)
    study, results = place.study(), place.results()
    [plan] = study.comparisons

    def rules(left):
        return {
            finding.rule
            for finding in comparison_findings(
                study, plan, results.comparisons["tiny"], results, repo=place.model, prefix="", left=left
            )
        }

    assert rules([]) == {"comparison-unchecked"}
    assert rules(["saes/tiny/layers.3/sae_weights.safetensors"]) == set()


def test_a_row_of_no_planned_method_is_named(tmp_path):
    place = whole(tmp_path)
    document = whole_document()
    del document["comparisons"][0]["features"]
    write_study(place.model, document)

    lines = [line_of("features"), line_of("features", "random")]
    assert found(place) == [("sweep-unplanned", COMPARED, f"line {line}") for line in lines]


def test_one_cell_has_one_perplexity(tmp_path):
    place = whole(tmp_path)
    results = place.results()
    other = next(row for row in results.comparisons["tiny"].rows if row.cell.variant == "rotation")
    fields = ("ppl", "ppl_ratio", "ppl_ratio_interval", "sentence_nll", "collapse_undecided")
    lines = (place.data / "comparison_tiny.jsonl").read_text(encoding="utf-8").splitlines()
    values = json.loads(lines[other.line - 1])
    of_row("addition", lambda row: row.update({key: values[key] for key in fields}))(place)

    assert found(place) == [("comparison-sweep", COMPARED, f"{ADDED}: ppl")]


@pytest.mark.parametrize("variant", ["addition", "anchor"])
def test_one_cell_has_one_text_per_prompt(tmp_path, variant):
    place = whole(tmp_path)
    of_row(variant, lambda row: row["generations"][1].update(gen="Another text."))(place)

    assert found(place) == [("comparison-sweep", COMPARED, f"line {line_of(variant)}: prompt 1")]


def test_texts_of_one_cell_may_part_at_a_near_tie(tmp_path):
    place = whole(tmp_path)
    of_row("addition", lambda row: row["generations"][1].update(gen="Another text.", determined=0))(place)

    assert found(place) == []


def test_an_identity_that_costs_something_is_none(tmp_path):
    place = whole(tmp_path)
    lines = (place.data / "comparison_tiny.jsonl").read_text(encoding="utf-8").splitlines()
    values = json.loads(lines[line_of("patch") - 1])
    fields = ("ppl", "ppl_ratio", "ppl_ratio_interval", "sentence_nll", "collapse_undecided")
    of_row("patch-identity", lambda row: row.update({key: values[key] for key in fields}))(place)

    assert found(place) == [("comparison-no-op", COMPARED, f"line {line_of('patch-identity')}: ppl_ratio")]


def test_a_comparison_that_is_planned_and_absent_is_an_error(tmp_path):
    place = whole(tmp_path)
    (place.data / "comparison_tiny.jsonl").unlink()

    assert found(place) == [("table", COMPARED, "")]


def test_a_bad_row_does_not_hide_the_others(tmp_path):
    place = whole(tmp_path)
    of_row("rotation", lambda row: row.update(ppl=-1.0))(place)

    wrong = found(place)
    assert ("table", COMPARED, f"line {line_of('rotation')}: ppl") in wrong
    assert {(rule, file) for rule, file, _ in wrong} == {("table", COMPARED), ("sweep-missing", COMPARED)}


def test_the_norms_are_those_of_the_vectors(tmp_path):
    """By hand: |v| is sqrt(25 + 9) at layer 3, and a stack injects 2 |v| in two equal shares."""
    rows = {row.cell: row for row in whole(tmp_path).results().comparisons["tiny"].rows}
    norm = float(np.sqrt(34))

    [added] = rows[Cell("tiny", "steered", 3, 2.0, "addition")].edits
    assert added["norm"] == pytest.approx(2 * norm, rel=1e-6)
    for label in ("steered", "random"):
        edits = rows[Cell("tiny", label, None, 2.0, "stack")].edits
        assert [each["norm"] for each in edits] == pytest.approx([norm, norm], rel=1e-6)
