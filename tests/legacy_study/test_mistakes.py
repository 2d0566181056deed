"""Every mistake in a study without `study.yaml` is found where it is, and every rule has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import legacy_edits as edits
import legacy_mistakes as mistakes
import mistakes as study_mistakes
import pytest
import torch
from legacy import MANIFESTS

from steer_eval.formats import schema
from steer_eval.formats.manifest import write_manifest
from steer_eval.rules.catalogue import RULES


def test_a_clean_study_lacks_nothing_but_its_manifests(place):
    assert place.findings() == MANIFESTS

    for root in (place.model, place.data):
        write_manifest(root)
    validation = place.validation()
    assert validation.findings == ()
    files = {str(path) for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()}
    assert set(validation.checked) == files


@pytest.mark.parametrize(("edit", "expected"), mistakes.MISTAKES.values(), ids=mistakes.MISTAKES)
def test_a_mistake_is_found_where_it_is_and_says_what_to_do(place, edit, expected):
    edit(place)
    validation = place.validation()

    assert sorted(each for each in place.shown(validation) if each not in MANIFESTS) == sorted(expected)
    for finding in validation.findings:
        schema.check(json.loads(json.dumps(finding.to_json(), allow_nan=False)), "finding", file="x")
    # What a reader of a schema refuses says what it is in place of how to mend it.
    silent = {finding.rule for finding in validation.findings if not finding.fix}
    assert silent <= {"table", "vector", "file-refused", "not-finite"}


ELSEWHERE = {
    ("best-cell-tie", "warning"),
    ("feature-ranking", "warning"),
    ("convert-differs", "error"),
    ("convert-old-path", "note"),
    ("convert-refused", "error"),
    ("data-absent", "note"),
    ("manifest-duplicate", "error"),
    ("manifest-size", "error"),
    ("model-left-out", "warning"),
    ("model-not-run", "error"),
    ("method-not-run", "error"),
    ("values-not-read", "note"),
    ("comparison-edits", "error"),
    ("comparison-no-op", "error"),
    ("comparison-sweep", "error"),
    ("comparison-unchecked", "warning"),
    ("feature-statistics", "error"),
    ("sae-activity", "error"),
    ("sae-quality", "error"),
    ("transfer-diagnostics", "error"),
    ("transfer-licence", "warning"),
    ("sae-provenance", "error"),
    ("publish-behind", "error"),
    ("publish-behind", "warning"),
    ("publish-card", "warning"),
    ("publish-home-path", "error"),
    ("publish-large", "error"),
    ("publish-left-out", "note"),
    ("publish-left-out", "warning"),
    ("publish-local-model", "warning"),
    ("publish-pin", "error"),
    ("publish-secret", "error"),
    ("publish-tag", "error"),
    ("publish-unknown", "error"),
    ("publish-visibility", "error"),
    ("repo-empty", "error"),
    ("study-absent", "warning"),
    ("vector-converted", "note"),
}
"""Rules that other commands make, or that no single edit of a clean study brings: tested in files of their own."""


def test_every_rule_is_exercised():
    """At each severity that the catalogue has."""
    tables = [*study_mistakes.MISTAKES.values(), *mistakes.MISTAKES.values()]
    exercised = {(rule, severity) for _, expected in tables for severity, rule, *_ in expected}
    exercised |= {(rule, severity) for _, late in study_mistakes.LATE_MISTAKES.values() for severity, rule, _ in late}

    assert {(rule.name, rule.severity) for rule in RULES} - exercised == ELSEWHERE


@pytest.mark.parametrize("rule", sorted({rule for rule, _ in ELSEWHERE}))
def test_a_rule_that_is_exercised_elsewhere_is(rule):
    tests = [path for path in Path(__file__).parents[1].rglob("test_*.py") if path != Path(__file__)]

    assert any(rule in path.read_text(encoding="utf-8") for path in tests)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_vector_that_was_rounded_after_its_norm_was_taken_is_no_mistake(place, dtype):
    edits.torch_file(edits.LARGE_2, lambda value: value.update(vector=value["vector"].to(dtype)))(place)

    assert "vector-norm" not in {rule for _, rule, *_ in place.findings()}


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float16, 1.002), (torch.bfloat16, 1.02)])
def test_another_norm_than_rounding_gives_is_a_mistake(place, dtype, factor):
    def change(value: dict[str, Any]) -> None:
        value["vector"] = value["vector"].to(dtype)
        value["norm"] = float(value["vector"].float().norm()) * factor

    edits.torch_file(edits.LARGE_2, change)(place)

    assert ("error", "vector-norm", edits.LARGE_2, "norm") in place.findings()


def test_replies_that_differ_in_their_case_are_two(place):
    edits.line(edits.PAIRS, 2, lambda row: row.update(plain=row["composed"].upper()))(place)

    assert place.findings() == MANIFESTS
