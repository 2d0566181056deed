"""The page as text: whole without a script, the same for the same values, and nothing in it but what is meant."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import LAYERS, RATIOS, OnDisk, build, claim, write_lines

from steer_eval.drawing import scale
from steer_eval.formats.manifest import check_manifest
from steer_eval.report import FILE, aligned, default_pair, embedded, render, write_report
from steer_eval.report_cells import Cell, Generation
from steer_eval.report_data import Page, load_page
from steer_eval.repository import open_repository
from steer_eval.reproduce import reproduce
from steer_eval.resources import folder

MEGABYTE = 2**20
HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028 & \"quoted' {{ 7 * 7 }} "
    "\u202egnp.exe\x00\ud800"
)
VOID = {"meta", "link", "input", "br", "img"}
ALLOWED = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "nav", "section", "script"),
    *("h1", "h2", "h3", "p", "a", "b", "bdi", "code", "span", "ul", "li", "dl", "dt", "dd", "div", "figure"),
    *("figcaption", "details", "summary", "form", "fieldset", "legend", "label", "input", "select", "option"),
    *("optgroup", "button", "output", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "rect", "text", "path", "line", "circle"),
}


class Parsed(HTMLParser):
    """Elements, anchors and links of a page; refuses elements that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    claims = [
        claim("perplexity_ratio", "9.99", identity="wrong", layer=3, coef=2.0),
        claim("perplexity_ratio", "2.40", identity="right", layer=3, coef=2.0),
    ]
    return build(tmp_path_factory.mktemp("study"), models=("tiny",), claims=claims)


@pytest.fixture(scope="module")
def page(place: OnDisk) -> Page:
    return load_page(str(place.model))


def hostile(page: Page, text: str) -> Page:
    """A page whose every text of others is one text."""
    sweep = page.sweeps[0]
    cells = tuple(
        replace(cell, name=text, system_prompt=text, texts=(Generation(text, text, None),)) for cell in sweep.cells
    )
    verdicts = tuple(
        replace(
            verdict,
            id=text,
            claim=text,
            file=text,
            measure=text,
            checks=tuple(replace(check, reason=text, file=text, where=text) for check in verdict.checks),
        )
        for verdict in page.verdicts
    )
    findings = tuple(
        replace(finding, rule=text, file=text, where=text, message=text, expected=text, observed=[text], fix=text)
        for finding in page.findings
    )
    facts = tuple(replace(fact, term=text, values=(text,)) for fact in page.facts)
    changed = replace(sweep, title=text, model=text, base_model=text, file=text, source=text, cells=cells)
    return replace(
        page, title=text, description=text, facts=facts, verdicts=verdicts, findings=findings, sweeps=(changed,)
    )


def test_equal_values_give_equal_bytes(page: Page, place: OnDisk) -> None:
    assert render(page) == render(load_page(str(place.model)))


def test_all_is_there_without_a_script(page: Page) -> None:
    parsed = Parsed(render(page))
    said = {tag: " ".join(parts) for tag, parts in parsed.texts.items()}

    for verdict in page.verdicts:
        assert verdict.claim in said["th"]
        assert all(check.reason in said["td"] for check in verdict.checks)
    for cell in page.cells:
        for text in cell.texts:
            assert text.gen in said["td"]
            assert text.prompt in said["th"]
    assert all(f"{ratio:.2f}" in said["text"] for ratio in RATIOS.values())
    assert all(f"layer {layer}" in said["text"] for layer in LAYERS)
    assert said["bdi"].startswith("A persona")


def test_it_is_well_formed_and_its_anchors_are_unique(page: Page) -> None:
    parsed = Parsed(render(page))
    anchors = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]

    assert {tag for tag, _ in parsed.elements} <= ALLOWED
    assert len(anchors) == len(set(anchors))
    inner = [attributes["href"] for _, attributes in parsed.elements if (attributes.get("href") or "").startswith("#")]
    assert len(inner) > 20
    assert {href[1:] for href in inner} <= set(anchors)
    assert all("scope" in attributes for attributes in parsed.of("th"))


def test_its_policy_lets_only_its_own_style_and_script_through(page: Page) -> None:
    html = render(page)
    parsed = Parsed(html)
    [policy] = [each["content"] for each in parsed.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[-1]

    assert rules["default-src"] == "'none'"
    for directive, text in (("style-src", style), ("script-src", script)):
        assert rules[directive] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert [each for each in parsed.of("script") if each.get("type") != "application/json"] == [{}]
    assert not [each for _, each in parsed.elements if "style" in each or any(name.startswith("on") for name in each)]
    outside = [
        value for _, each in parsed.elements for name, value in each.items() if name in {"src", "href", "action"}
    ]
    assert all(value.startswith("#") or value == "data:," for value in outside)
    assert "http:" not in html
    assert "https:" not in html


def test_hostile_texts_stay_texts(page: Page) -> None:
    html = render(hostile(page, HOSTILE))
    plain, parsed = Parsed(render(page)), Parsed(html)

    assert [tag for tag, _ in parsed.elements if tag in {"script", "style", "img", "iframe"}] == [
        "style",
        "script",
        "script",
    ]
    assert {tag for tag, _ in parsed.elements} <= ALLOWED
    assert {tag: sorted(each) for tag, each in parsed.elements} == {tag: sorted(each) for tag, each in plain.elements}
    assert "{{ 7 * 7 }}" in html
    assert not re.search("[\x00\ud800\u202e]", html)
    html.encode("utf-8")
    data = json.loads(parsed.texts["script"][0])
    assert HOSTILE in {cell["name"].split(": ", 1)[1] for cell in data["cells"].values()}


# Letters of which markup, character references and templates are made.
MARKUP = st.text(st.sampled_from("<>/&\"'=;#! -\n\x00abscript{}%\u2028"), min_size=1, max_size=40)


@settings(max_examples=25, deadline=None)
@given(text=MARKUP | st.just(HOSTILE))
def test_no_text_changes_the_structure(page: Page, text: str) -> None:
    parsed, plain = Parsed(render(hostile(page, text))), Parsed(render(hostile(page, "x")))

    assert [(tag, sorted(each)) for tag, each in parsed.elements] == [
        (tag, sorted(each)) for tag, each in plain.elements
    ]


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_embedded_data_is_json_that_ends_no_element(value: object) -> None:
    text = embedded(value)

    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&\n\u2028") & set(text)


def test_a_long_word_is_left_whole(page: Page) -> None:
    word = "x" * 5000
    assert word in render(hostile(page, word))


def test_an_empty_page_is_a_page() -> None:
    parsed = Parsed(render(Page("Nothing", "", (), (), (), 3.0, (), (), ())))

    assert "no claims were judged" in "".join(parsed.texts["span"])
    assert parsed.of("section") == [{"id": "findings", "aria-labelledby": "findings-title"}]


def test_cells_that_make_no_grid_are_a_table_without_a_picture(page: Page) -> None:
    sweep = page.sweeps[0]
    template = sweep.cells[2]
    many = tuple(replace(template, identity=f"x{number}", layer=number, coef=float(number)) for number in range(100))
    parsed = Parsed(render(replace(page, sweeps=(replace(sweep, cells=many),))))

    assert parsed.of("svg") == []
    assert len([each for each in parsed.of("tbody") if "data-cell" in each]) == 100


def test_ties_are_marked_in_every_cell_that_ties(tmp_path: Path) -> None:
    place = build(tmp_path)
    axes = {"mature_anger": 4.0, "juvenile_rage": 1.0, "coherence": 4.0, "margin": 3.0}
    cells = [{"layer": layer, "coef": 1.0, **axes} for layer in LAYERS] + [{"layer": 3, "coef": 4.0, **axes}]
    write_lines(place.data / "judge_strict_tiny.jsonl", cells)
    html = render(load_page(str(place.model)))
    texts = Parsed(html).texts["text"]

    assert texts.count("+3★") == 2
    assert texts.count("+3†") == 1, "what collapsed has no best text"
    assert "2 cells tie at +3" in html


def cell(
    identity: str, label: str, *, ratio: float = 1.0, collapsed: bool = False, said: tuple[str, ...] = ("a",)
) -> Cell:
    texts = tuple(Generation(prompt, f"{identity} on {prompt}") for prompt in said)
    return Cell(identity, identity, label, 1, texts, ratio=ratio, collapsed=collapsed)


@pytest.mark.parametrize(
    ("cells", "pair"),
    [
        ([("zero", 1.0, False), ("steered", 1.5, False), ("steered", 2.5, False), ("steered", 9.0, True)], (0, 2)),
        ([("steered", 1.5, False), ("anchor", 1.1, False), ("steered", 1.2, False)], (1, 0)),
        ([("steered", 1.5, False), ("steered", 1.1, False), ("steered", 2.0, False)], (1, 2)),
        ([("steered", 1.5, False)], (0, 0)),
        ([("prompt_only", 1.0, False), ("patch", 1.0, False)], (0, 1)),
    ],
)
def test_the_comparison_opens_with_a_control_and_the_strongest_that_speaks(page: Page, cells, pair) -> None:
    made = tuple(
        cell(f"c{number}", label, ratio=ratio, collapsed=collapsed)
        for number, (label, ratio, collapsed) in enumerate(cells)
    )
    changed = replace(page, sweeps=(replace(page.sweeps[0], cells=made),))

    assert tuple(each.identity for each in default_pair(changed)) == tuple(f"c{number}" for number in pair)


def test_texts_are_aligned_by_prompt() -> None:
    left, right = cell("l", "zero", said="ab"), cell("r", "steered", said="bc")

    assert list(aligned(left, right)) == [("a", "l on a", None), ("b", "l on b", "r on b"), ("c", None, "r on c")]


def test_colours_can_be_read_on_both_sides() -> None:
    style = (folder("cards") / "report.css").read_text(encoding="utf-8")
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(roots) == 2
    for root in roots:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", root))
        words = ("contradicted", "drifted", "inconclusive", "not-checkable", "reproduced")
        pairs = [
            *product(("ink", "soft", "link"), ("page", "card")),
            *((word, f"{word}-back") for word in words),
            *product([f"hue{number}" for number in range(8)], ("card",)),
            *product(("below", "above", "contradicted"), ("card",)),
        ]
        for front, back in pairs:
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
        assert contrast(colours["focus"], colours["page"]) >= 3


def contrast(first: str, second: str) -> float:
    levels = [scale.luminance(tuple(int(each[at : at + 2], 16) for at in (1, 3, 5))) for each in (first, second)]
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def test_the_packaged_study_fits(packaged_study: Path) -> None:
    page = load_page(str(packaged_study))
    html = render(page)

    assert (len(list(page.cells)), sum(len(cell.texts) for cell in page.cells)) == (72 + 20, 1040 + 200)
    assert len(html.encode()) < 3 * MEGABYTE
    Parsed(html)


def test_the_upstream_study_is_a_page(upstream: Path) -> None:
    html = render(load_page(str(upstream / "model"), str(upstream / "dataset")))
    parsed = Parsed(html)

    assert len(parsed.of("svg")) == 3 + 5 + 3 + 2, "ratios, margins of five judges, curves, features"
    assert "17 cells tie at 0" in html
    assert len(html.encode()) < 3 * MEGABYTE


def test_a_run_keeps_its_page_and_a_manifest_that_names_it(place: OnDisk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduce(place.repositories(), level="recompute", cells="claimed", run=run)
    written = write_report(run, [open_repository(str(place.data), "dataset")])

    assert written == run / FILE
    assert check_manifest(run) == []
    first = written.read_bytes()
    assert write_report(run, [open_repository(str(place.data), "dataset")]).read_bytes() == first
    assert check_manifest(run) == []


def test_a_changed_run_is_not_sealed_again(place: OnDisk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduce(place.repositories(), level="recompute", cells="claimed", run=run)
    (run / "environment.json").write_text("{}", encoding="utf-8")
    write_report(run)

    assert {finding.rule for finding in check_manifest(run)} == {"checksum", "file-unlisted"}
