"""Workflow commands are read back as the runner reads them."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from steer_eval.cli.annotations import SUMMARY_BYTES, command, error_annotation, summary, workflow_commands
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import SEVERITIES, Finding

_COMMAND = re.compile(r"::(?P<name>[a-z]+) (?P<properties>.*?)::(?P<message>.*)")
PLAIN = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"]) | st.sampled_from("%,:\n=&"))


def read(line: str) -> tuple[str, dict[str, str], str]:
    """A command's name, properties and message: split first, unescaped then."""
    match = _COMMAND.fullmatch(line)
    assert match is not None, line
    properties = dict(part.split("=", 1) for part in match["properties"].split(",") if part)
    return (
        match["name"],
        {key: unescaped(value, "\r\n:,") for key, value in properties.items()},
        unescaped(match["message"], "\r\n"),
    )


def unescaped(text: str, characters: str) -> str:
    for character in characters:
        text = text.replace(f"%{ord(character):02X}", character)
    return text.replace("%25", "%")


@given(PLAIN, PLAIN, PLAIN)
def test_whatever_the_texts_say_the_command_reads_back(message: str, file: str, title: str) -> None:
    line = command("error", message, file=file, line=None, title=title)

    assert len(line.splitlines()) == 1 or not set("\r\n") & set(line)
    assert read(line) == ("error", {"file": file, "title": title}, message)


@pytest.mark.parametrize(
    ("severity", "name"), [("error", "error"), ("warning", "warning"), ("note", "notice")], ids=SEVERITIES
)
def test_a_finding_is_one_command(severity: str, name: str) -> None:
    finding = Finding("table", severity, "a,b:c%d.jsonl", "line 3: x", "50% of\nit", "e", None, "mend it")

    assert workflow_commands([finding]) == [
        f"::{name} file=a%2Cb%3Ac%25d.jsonl,line=3,title=steer-eval table::"
        r"line 3: x: 50%25 of\nit%0Aexpected: e%0Afix: mend it"
    ]


def test_a_place_without_a_line_is_in_the_message() -> None:
    [line] = workflow_commands([Finding("claim-select", "error", "study.yaml", "claims[0]", "no such layer")])

    assert read(line) == (
        "error",
        {"file": "study.yaml", "title": "steer-eval claim-select"},
        "claims[0]: no such layer",
    )


def test_the_worst_come_first() -> None:
    lines = workflow_commands([Finding("table", each, "f", "", "m") for each in ("note", "error", "warning", "error")])

    assert [read(line)[0] for line in lines] == ["error", "error", "warning", "notice"]


def test_a_finding_can_not_give_commands_of_its_own() -> None:
    evil = "x\n::set-env name=A::b\r::error::c \x1b[2J"
    [line] = workflow_commands([Finding("table", "error", evil, evil, evil, evil, [evil], evil)])

    assert line.count("\n") == line.count("\r") == line.count("\x1b") == 0
    assert read(line)[1]["file"].startswith("x\n::set-env")


def test_a_target_that_can_not_be_read_is_an_annotation() -> None:
    bad = FormatError("persona/study.yaml", "line 4", "no mapping", fix="write one")

    assert read(error_annotation(bad)) == (
        "error",
        {"file": "persona/study.yaml", "line": "4", "title": "steer-eval"},
        "persona/study.yaml: line 4: no mapping\nfix: write one",
    )
    assert error_annotation(SteerEvalError("there is no folder")) == "::error title=steer-eval::there is no folder"


def table(markdown: str) -> list[list[str]]:
    """The cells of the only table, as text, by row; anything in a cell but text fails."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    cells: list[list[str]] = []
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            cells.append([])
        elif token.type in {"td_open", "th_open"}:
            assert all(child.type in {"text", "text_special"} for child in content.children or ()), content
            cells[-1].append("".join(child.content for child in content.children or ()))
    assert sum(token.type == "table_open" for token in tokens) == 1
    return cells


@given(st.text(st.sampled_from("ab`*_[]()|\\<>&~#!-: \n$1.")))
def test_texts_of_others_stay_in_their_cell_of_the_summary(text: str) -> None:
    finding = Finding("table", "error", f"f{text}f", "", f"m{text}m")
    rows = table(summary([finding], target=text, checked=3))

    shown = " ".join(f"f{text}f".split())
    assert rows[1][:2] == ["error", shown]
    assert rows[1][2:] == [" ".join(f"m{text}m".replace("\n", r"\n").split()), "table"]


def test_the_summary_counts_and_has_the_worst_first() -> None:
    findings = [
        Finding("table", "warning", "w", "line 2", "m", "e", "o", "x"),
        Finding("vector", "error", "v", "", "m"),
    ]
    whole = summary(findings, target="persona", checked=17)

    assert whole.startswith("### steer-eval validate: persona\n\n1 error, 1 warning; 17 files checked\n\n")
    assert table(whole) == [
        ["severity", "place", "what is wrong", "rule"],
        ["error", "v", "m", "vector"],
        ["warning", "w: line 2", "m expected: e observed: o fix: x", "table"],
    ]


def test_a_clean_summary_has_no_table() -> None:
    assert summary([], target="a_b", checked=17) == (
        "### steer-eval validate: a\\_b\n\nno findings; 17 files checked\n\n\n"
    )


def test_a_summary_stays_below_githubs_limit_and_says_what_it_leaves_out() -> None:
    findings = [Finding("table", "error", "f", f"line {line}", "怒" * 300) for line in range(1, 2001)]
    whole = summary(findings, target="persona", checked=1)
    rows = whole.count("| error |")

    assert 0 < len(whole.encode()) - SUMMARY_BYTES < 1000 or len(whole.encode()) <= SUMMARY_BYTES
    assert 0 < rows < len(findings)
    assert whole.rstrip().endswith(f"and {len(findings) - rows} more")
