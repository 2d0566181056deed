from __future__ import annotations

import itertools
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.extracted import SAYS_WHERE
from steer_eval.claims.printed import Printed
from steer_eval.claims.verdict import WORDS, Check, Verdict
from steer_eval.cli.output import MIN_WIDTH, findings_text, print_findings, print_report
from steer_eval.findings import SEVERITIES, Finding
from steer_eval.reproduce import LEVELS, Report

MARKUP = ["[red]x[/nope]", "[/]", "[bold]", "[link=https://example.org]here[/link]", ":smile: [b", r"\[red]", "[1, 2]"]


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def verdict(word: str, *, text: str = "a claim", expected: bool | Printed = True) -> Verdict:
    check = Check("re-run", expected is True, "", word, f"because of {text}", "", "")
    return Verdict(Claim("the-claim", text, "collapsed", Selector(), expected), "study.yaml", 1, (check,))


def report(
    *, words: tuple[str, ...] = (), severities: tuple[str, ...] = (), requested: str = "rerun", text: str = "a claim"
) -> Report:
    return Report(
        repo="lab/persona",
        data="lab/persona-data",
        revision=None,
        requested=requested,
        reached=requested,
        findings=tuple(Finding("rule", severity, "file", "", "message") for severity in severities),
        verdicts=tuple(verdict(word, text=text) for word in words),
        run=Path("runs") / "[red]run[/nope]",
        environments={},
        recorded={},
    )


@pytest.mark.parametrize("text", MARKUP)
def test_nothing_in_a_finding_is_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    print_findings([Finding("rule", "error", f"f{text}", f"w{text}", f"m{text}", f"e{text}", f"o{text}", f"x{text}")])

    margin = " " * len(f"  warning  w{text}  ")
    assert capsys.readouterr().out == (
        f"f{text}\n  error    w{text}  m{text} [rule]\n"
        f"{margin}expected: e{text}\n{margin}observed: o{text}\n{margin}fix: x{text}\n1 error\n"
    )


def test_findings_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([Finding("rule", severity, "f", "", "m") for severity in ("note", "error", "error")])

    assert capsys.readouterr().out.splitlines()[-1] == "2 errors, 1 note"


def test_findings_stand_under_their_file_the_worst_first(capsys: pytest.CaptureFixture[str]) -> None:
    places = [
        ("note", "a", "1"),
        ("warning", "b", "2"),
        ("error", "c", "3"),
        ("error", "a", "4"),
        ("warning", "a", "5"),
    ]
    print_findings([Finding("rule", severity, file, where, "m") for severity, file, where in places])

    assert capsys.readouterr().out.splitlines() == [
        *("c", "  error    3  m [rule]"),
        *("a", "  error    4  m [rule]", "  warning  5  m [rule]", "  note     1  m [rule]"),
        *("b", "  warning  2  m [rule]"),
        "2 errors, 2 warnings, 1 note",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_findings_fit_the_terminal_and_lose_nothing(width: int) -> None:
    where, text = "claims[12].select", "怒りの word " * 30
    finding = Finding("claim-select", "error", "study.yaml", where, text, "x" * 100, None, f"do {text}")
    whole = findings_text([finding], Console(width=width, file=StringIO()))
    lines = whole.splitlines()

    assert max(map(cell_len, lines)) <= width
    margin = lines[1].index("怒")
    assert lines[1][:margin].split() == ["error", where]
    assert all(not line[:margin].strip() for line in lines[2:]), "the columns stay apart"
    shown = "".join("".join(line[margin:].split()) for line in lines[1:])
    assert shown == "".join(f"{text}[claim-select]expected:{'x' * 100}fix:do{text}".split())


def test_a_long_place_does_not_push_the_message_out_of_the_terminal() -> None:
    finding = Finding("rule", "error", "f", "key." * 50, "message")
    lines = findings_text([finding], Console(width=80, file=StringIO())).splitlines()

    assert lines[1].endswith("  message [rule]")
    assert "".join(line[11:].split("  ")[0] for line in lines[1:]) == "key." * 50


def test_line_ends_and_names_that_are_no_unicode_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([Finding("rule", "error", "b\udcff", "w\nw", "m\r\nm", "e\n", None, "x\n::error::y")])

    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "b\\udcff",
        r"error    w\nw  m\r\nm [rule]",
        r"expected: e\n",
        r"fix: x\n::error::y",
        "1 error",
    ]


@pytest.mark.parametrize("text", MARKUP)
def test_nothing_in_a_claim_is_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    print_report(report(words=("reproduced",), text=text))
    output = capsys.readouterr().out

    assert any(line.lstrip().startswith(f"{text} ") for line in output.splitlines())
    assert f"reproduced the-claim: because of {text}\n" in output
    assert "report.html: runs/[red]run[/nope]\n" in output


def test_the_verdicts_of_both_kinds_of_evidence_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    checks = tuple(
        Check(evidence, value, "±0.005", word, "", "", "")
        for evidence, value, word in (("published data", 2.4, "reproduced"), ("re-run", 2.5, "drifted"))
    )
    told = Claim("id", "the ratio is {expected}", "perplexity_ratio", Selector(), Printed.parse("2.40"))
    whole = report()
    print_report(Report(**{**vars(whole), "verdicts": (Verdict(told, "study.yaml", 1, checks),)}))
    lines = capsys.readouterr().out.splitlines()
    [header] = [line.split() for line in lines if line.lstrip().startswith("claim")]
    [row] = [line.split() for line in lines if "±0.005" in line]

    assert header == ["claim", "expected", "published", "data", "verdict", "re-run", "verdict"]
    assert row == ["the", "ratio", "is", "2.40", "2.40", "2.4", "±0.005", "reproduced", "2.5", "±0.005", "drifted"]


def test_one_kind_of_evidence_has_a_column_for_its_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    told = Claim("id", "the ratio is {expected}", "perplexity_ratio", Selector(), Printed.parse("2.40"))
    check = Check("published data", 2.4, "±0.005", "reproduced", "", "", "")
    print_report(Report(**{**vars(report()), "verdicts": (Verdict(told, "study.yaml", 1, (check,)),)}))
    lines = capsys.readouterr().out.splitlines()

    [header] = [line.split() for line in lines if line.lstrip().startswith("claim")]
    assert header == ["claim", "expected", "published", "data", "tolerance", "verdict"]


def test_numbers_that_only_say_where_are_listed_and_are_no_claims(capsys: pytest.CaptureFixture[str]) -> None:
    told = Claim("3:1", "at layer 14", "", Selector(), Printed.parse("14"))
    check = Check("published data", None, "", "not-checkable", SAYS_WHERE, "", "")
    print_report(Report(**{**vars(report()), "verdicts": (Verdict(told, "card.md", 3, (check,)),)}))
    output = capsys.readouterr().out

    assert "3: at layer 14" in output
    assert "no claim " in output
    assert "no claims\n" in output
    assert SAYS_WHERE not in output


def test_long_lines_are_not_wrapped_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * MIN_WIDTH + "end"
    print_findings([Finding("rule", "warning", long, "", long, long[:200], None, long)])
    print_report(report(words=("drifted",), text=long))
    lines = capsys.readouterr().out.splitlines()

    assert long in lines
    assert f"  warning    {long} [rule]" in lines
    assert f"expected: {long[:200].rstrip()}" in [line.strip() for line in lines]
    assert f"fix: {long}" in [line.strip() for line in lines]
    assert f"drifted the-claim: because of {long}" in lines


def subsets(values: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [chosen for size in range(len(values) + 1) for chosen in itertools.combinations(values, size)]


@pytest.mark.parametrize("requested", LEVELS)
@pytest.mark.parametrize("words", subsets(WORDS), ids=lambda words: "+".join(words) or "no claims")
def test_the_exit_code_says_what_was_found(words: tuple[str, ...], requested: str) -> None:
    """The whole table: 0 good, 1 findings, 2 no claim could be checked; warnings and unchecked claims if strict."""
    judged = () if requested == "check" else words
    for severities in subsets(SEVERITIES):
        whole = report(words=judged, severities=severities, requested=requested)
        failing = bool({"contradicted", "drifted", "inconclusive"} & set(judged)) or "error" in severities
        if judged == ("not-checkable",):
            lax = strict = 2
        else:
            lax = 1 if failing else 0
            strict = 1 if failing or "warning" in severities or "not-checkable" in judged else 0

        assert whole.exit_code(strict=False) == lax, severities
        assert whole.exit_code(strict=True) == strict, severities


@pytest.mark.parametrize(
    ("words", "severities", "codes"),
    [
        (("reproduced",), (), (0, 0)),
        (("reproduced",), ("note",), (0, 0)),
        (("reproduced",), ("warning",), (0, 1)),
        (("reproduced",), ("error",), (1, 1)),
        (("contradicted", "reproduced"), (), (1, 1)),
        (("drifted", "reproduced"), (), (1, 1)),
        (("inconclusive", "reproduced"), (), (1, 1)),
        (("not-checkable", "reproduced"), (), (0, 1)),
        (("not-checkable",), (), (2, 2)),
        (("not-checkable", "not-checkable"), ("error",), (2, 2)),
        ((), (), (0, 0)),
    ],
)
def test_exit_codes_as_the_contract_has_them(words, severities, codes) -> None:
    whole = report(words=words, severities=severities, requested="recompute")

    assert (whole.exit_code(strict=False), whole.exit_code(strict=True)) == codes
