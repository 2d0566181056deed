"""The page in a real Chromium: with a mouse, by keyboard, on a phone, at night, on paper, and with hostile texts."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from studies import LAYERS, PROMPTS, build, claim, write_lines
from whole_studies import whole

from steer_eval.formats.atomic import write_text
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.report import render
from steer_eval.report_data import load_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install -e '.[dev]'")

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1200, "height": 900}
HOSTILE = (
    "<script>window.owned = 1</script>",
    "</script><script>window.owned = 2</script>",
    "<img src=x onerror='window.owned = 3'>",
    "javascript:window.owned=4",
    '"><svg onload="window.owned = 5">',
    "a\u2028b\u2029c",
    "W" * 3000,
    "\u202egnp.exe",
    "{{ 7 * 7 }}",
)
BEST = {"mature_anger": 4.0, "juvenile_rage": 1.0, "coherence": 4.0, "margin": 3.0, "notes": "firm & <b>calm</b>"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        # Chromium refuses its sandbox to root, which is who runs in a container.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Visit:
    """An open page, and all that must not have happened while it was open."""

    page: Any
    url: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def shown(self, rows: str) -> list[str]:
        """Anchors of the rows of a list that are visible."""
        return self.page.eval_on_selector_all(
            f"{rows} > tbody", "all => all.filter((row) => row.checkVisibility()).map((row) => row.id)"
        )

    def focused(self, expression: str) -> Any:
        return self.page.evaluate(f"(document.activeElement.{expression})")

    def tab_to(self, selector: str, limit: int = 80) -> None:
        for _ in range(limit):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"the tab key does not reach {selector}")

    def heads(self) -> list[str]:
        """What the comparison says that it compares."""
        return self.page.locator("#pairs thead th span").all_inner_texts()

    def reads(self, column: int) -> list[str]:
        return self.page.locator(f"#pairs tbody tr td:nth-of-type({column})").all_inner_texts()


Open = Callable[..., Visit]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens pages; afterwards nothing was said on the console and nothing asked of anybody."""
    visits: list[Visit] = []

    def open_page(path: Path, *, fragment: str = "", viewport: dict[str, int] | None = None, **options: Any) -> Visit:
        context = chromium.new_context(viewport=viewport or DESK, **options)
        page = context.new_page()
        made = Visit(page, path.as_uri())
        page.on("console", lambda message: made.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: made.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: made.said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: made.asked.append(request.url))
        page.goto(made.url + fragment)
        visits.append(made)
        return made

    yield open_page
    for made in visits:
        assert made.said == []
        assert {url.split("#")[0] for url in made.asked} <= {made.url, "data:,"}
        made.page.context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with claims of each sort, findings, scores and texts."""
    folder = tmp_path_factory.mktemp("report")
    claims = [
        claim("perplexity_ratio", "2.40", identity="right", layer=3, coef=2.0),
        claim("perplexity_ratio", "9.99", identity="wrong", layer=3, coef=2.0),
        claim("collapsed", True, identity="collapse", layer=3, coef=4.0),
        claim("vector_cosine", "1.000", identity="open", layer=3),
    ]
    place = build(folder, claims=claims)
    place.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(base_ppl=21.0))
    scores = [{"layer": layer, "coef": 1.0, **BEST} for layer in LAYERS]
    write_lines(place.data / "judge_strict_tiny.jsonl", scores)
    write_text(folder / "report.html", render(load_page(str(place.model))))
    return folder / "report.html"


def test_verdicts_are_filtered_by_word_measure_and_text(visit: Open, report: Path) -> None:
    made = visit(report)
    page, rows = made.page, "#verdict-list"
    form = page.locator("form[data-list=verdict-list]")
    assert made.shown(rows) == ["claim-wrong", "claim-open", "claim-right", "claim-collapse"]
    assert form.locator("output").inner_text() == "4 of 4 claims"
    assert form.locator(".choice b").all_inner_texts() == ["1", "1", "2"]

    form.get_by_label("reproduced").check()
    assert made.shown(rows) == ["claim-right", "claim-collapse"]
    form.get_by_label("contradicted").check()
    assert made.shown(rows) == ["claim-wrong", "claim-right", "claim-collapse"]
    form.get_by_label("Measure").select_option("perplexity_ratio")
    assert made.shown(rows) == ["claim-wrong", "claim-right"]
    form.get_by_label("Text").fill("9.99")
    assert made.shown(rows) == ["claim-wrong"]
    assert form.locator("output").inner_text() == "1 of 4 claims"
    form.get_by_role("button", name="Clear").click()
    sync_api.expect(form.locator("output")).to_have_text("4 of 4 claims")
    assert len(made.shown(rows)) == 4
    form.get_by_label("Text").fill("no such words")
    assert made.shown(rows) == []
    assert len(made.shown("#finding-list")) > 0, "a filter is of its own list only"


def test_findings_are_filtered_the_same_way(visit: Open, report: Path) -> None:
    made = visit(report)
    form = made.page.locator("form[data-list=finding-list]")
    count = len(made.shown("#finding-list"))
    form.get_by_label("Rule").select_option("sweep-arithmetic")
    found = made.shown("#finding-list")

    assert 0 < len(found) < count
    rules = made.page.eval_on_selector_all("#finding-list > tbody:not([hidden])", "all => all.map(e => e.dataset.kind)")
    assert set(rules) == {"sweep-arithmetic"}


def test_a_row_opens_to_its_checks(visit: Open, report: Path) -> None:
    page = visit(report).page
    row = page.locator("#claim-right")
    checks = row.locator(".checks")
    assert not checks.is_visible()
    assert page.locator("#claim-wrong .checks").is_visible(), "what failed is open from the start"

    row.locator("summary").click()
    assert checks.is_visible()
    assert "published data" in checks.inner_text()
    assert "±0.005" in checks.inner_text()
    assert "sweep_tiny.jsonl" in checks.inner_text()
    row.get_by_text("perplexity_ratio is 2.40").click()
    assert not checks.is_visible()
    button = page.locator("form[data-list=verdict-list]").get_by_role("button", name="Open all")
    button.click()
    assert page.locator("#verdict-list .checks").evaluate_all("all => all.every((each) => each.checkVisibility())")
    page.locator("form[data-list=verdict-list]").get_by_role("button", name="Close all").click()
    assert not checks.is_visible()


def test_a_cell_of_a_heat_map_opens_in_the_comparison(visit: Open, report: Path) -> None:
    made = visit(report)
    cell = made.page.locator("svg.grid").first.locator("[data-cell='tiny-L3-c2']")
    assert "layer 3, coefficient +2: perplexity ratio 2.4" in cell.get_attribute("aria-label")
    cell.click()

    assert made.heads() == ["tiny: unsteered", "tiny: L=3 c=+2"]
    assert made.reads(2) == [f"tiny steered L=3 c=+2: text {index}" for index in range(len(PROMPTS))]
    # The focus follows the jump, which the browser may make in its next frame.
    sync_api.expect(made.page.locator("#compare")).to_be_focused()
    assert 0 <= made.page.locator("#compare").evaluate("e => e.getBoundingClientRect().top") < DESK["height"] - 100
    assert made.page.url.endswith("#compare/tiny-zero/tiny-L3-c2")


def test_two_cells_are_compared_and_can_be_linked_to(visit: Open, report: Path) -> None:
    made = visit(report)
    page = made.page
    page.locator("#left").select_option("tiny-anchor")
    page.locator("#right").select_option("tiny-random-L1-c2")
    assert made.heads() == ["tiny: system prompt", "tiny: random direction L=1 c=+2"]
    facts = page.locator("#pairs thead th").nth(1).inner_text()
    assert "perplexity ratio 1.2" in facts
    assert "system prompt: Be firm." in facts
    assert page.locator("#pairs tbody th").all_inner_texts() == list(PROMPTS)

    texts = made.reads(1), made.reads(2)
    page.get_by_role("button", name="Swap").click()
    assert (made.reads(2), made.reads(1)) == texts
    again = visit(report, fragment=page.url.split(report.name)[1])
    assert again.heads() == made.heads()
    assert (again.reads(1), again.reads(2)) == (made.reads(1), made.reads(2))

    page.locator("#right").select_option("tiny-L3-c4")
    assert made.reads(2) == ["–"] * len(PROMPTS)
    assert "there are no texts of tiny: L=3 c=+4" in page.locator("#compare output").inner_text()
    page.locator("#right").select_option("tiny-L1-c1")
    assert "strict: margin +3" in page.locator("#pairs thead").inner_text()
    assert "“firm & <b>calm</b>”" in page.locator("#pairs thead").inner_text()
    page.locator("#left").select_option("tiny-L1-c1")
    assert "3 prompts, 3 with the same text" in page.locator("#compare output").inner_text()


def test_the_comparison_is_the_same_without_a_script(visit: Open, report: Path) -> None:
    with_script, without = visit(report), visit(report, java_script_enabled=False)

    assert without.heads() == with_script.heads()
    assert without.reads(1) == with_script.reads(1)
    assert without.page.locator(".filter").first.is_visible() is False
    assert without.page.locator("#verdict-list > tbody").count() == 4
    without.page.locator("#claim-right summary").click()
    assert without.page.locator("#claim-right .checks").is_visible()


def test_a_keyboard_is_enough(visit: Open, report: Path) -> None:
    made = visit(report)
    keyboard = made.page.keyboard
    keyboard.press("Tab")
    assert made.focused("className") == "skip"
    keyboard.press("Enter")
    assert made.page.url.endswith("#verdicts")

    made.tab_to("input[name=word]")
    keyboard.press("Space")
    assert made.shown("#verdict-list") == ["claim-wrong"]
    keyboard.press("Space")
    made.tab_to("#claim-right summary")
    keyboard.press("Enter")
    assert made.page.locator("#claim-right .checks").is_visible()

    made.tab_to("svg.grid a.cell", limit=200)
    assert made.focused("dataset.cell") == "tiny-L1-c-1"
    ring = made.page.evaluate("getComputedStyle(document.activeElement.querySelector('.ring')).strokeWidth")
    assert float(ring.removesuffix("px")) >= 3, "where the focus is can be seen"
    walk = [("ArrowRight", "L1-c1"), ("ArrowDown", "L3-c1"), ("End", "L3-c4"), ("ArrowUp", "L1-c4"), ("Home", "L1-c-1")]
    for key, place in walk:
        keyboard.press(key)
        assert made.focused("dataset.cell") == f"tiny-{place}", key
    keyboard.press("ArrowLeft")
    assert made.focused("dataset.cell") == "tiny-L1-c-1", "at the edge the focus stays"
    keyboard.press("Tab")
    assert made.focused("closest('svg.grid') === null || document.activeElement.dataset.cell !== 'tiny-L1-c1'")
    keyboard.press("Shift+Tab")
    assert made.focused("dataset.cell") == "tiny-L1-c-1", "the tab key comes back to where it left"
    keyboard.press("ArrowRight")
    keyboard.press("Enter")
    assert made.heads()[1] == "tiny: L=1 c=+1"
    # The focus follows the jump, which the browser may make in its next frame.
    sync_api.expect(made.page.locator("#compare")).to_be_focused()
    made.tab_to("#right")
    keyboard.press("ArrowDown")
    assert made.heads()[1] == "tiny: L=1 c=+2"


def test_focus_can_be_seen_everywhere(visit: Open, report: Path) -> None:
    made = visit(report)
    for _ in range(60):
        made.page.keyboard.press("Tab")
        seen = made.page.evaluate(
            """() => {
              const focused = document.activeElement;
              if (focused === document.body) return true;
              const marked = focused.closest("a.cell")?.querySelector(".ring") ?? focused.closest(".choice") ?? focused;
              const style = getComputedStyle(marked);
              return parseFloat(style.outlineWidth) >= 3 || parseFloat(style.strokeWidth) >= 3;
            }"""
        )
        assert seen, made.focused("outerHTML")


@pytest.mark.parametrize("anchor", ["claim-right", "findings", "model-tiny", "compare", "tiny-L1-c2", "finding-1"])
def test_an_address_leads_to_its_place(visit: Open, report: Path, anchor: str) -> None:
    made = visit(report, fragment=f"#{anchor}")
    target = made.page.locator(f"[id='{anchor}']")

    top = target.evaluate("e => e.getBoundingClientRect().top")
    at_end = made.page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
    assert -2 <= top <= 40 or (at_end and top < DESK["height"])
    assert target.evaluate("e => e.checkVisibility()")
    details = target.locator("details").first
    if anchor in {"claim-right", "tiny-L1-c2"}:
        assert details.evaluate("e => e.open")


def test_an_address_shows_what_a_filter_hides(visit: Open, report: Path) -> None:
    made = visit(report)
    made.page.locator("form[data-list=verdict-list]").get_by_label("contradicted").check()
    assert made.shown("#verdict-list") == ["claim-wrong"]
    made.page.evaluate("location.hash = 'claim-right'")
    sync_api.expect(made.page.locator("#claim-right")).to_be_visible()
    assert made.page.locator("#claim-right .checks").is_visible()


@pytest.mark.parametrize("fragment", ["#%", "#nothing", "#compare/x/y", "#compare/__proto__/toString", "#<img src=x>"])
def test_a_bad_address_does_nothing(visit: Open, report: Path, fragment: str) -> None:
    assert visit(report, fragment=fragment).heads()[0] == "tiny: unsteered"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_page_and_all_text_can_be_read(
    visit: Open, report: Path, scheme: str, viewport: dict[str, int]
) -> None:
    page = visit(report, color_scheme=scheme, viewport=viewport).page
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")

    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) is (scheme == "dark")
    assert page.evaluate(UNREADABLE) == []


# Text whose contrast with what is behind it is below 4.5; pictures are held to theirs where they are drawn.
UNREADABLE = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const level = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((p) => (p /= 255) <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *:not(svg, svg *, script, option, optgroup)")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility()) continue;
    const [one, other] = [level(parse(getComputedStyle(element).color)), level(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) bad.push(`${element.tagName}.${element.className} ${ratio}`);
  }
  return bad;
}"""


def test_colours_of_pictures_change_with_the_scheme(visit: Open, report: Path) -> None:
    fills = [
        visit(report, color_scheme=scheme).page.eval_on_selector_all(
            "svg.grid .cell:not(.unmeasured) .face", "all => all.map((each) => getComputedStyle(each).fill)"
        )
        for scheme in ("light", "dark")
    ]

    assert len(set(fills[0])) > 4
    assert all(light != dark for light, dark in zip(*fills, strict=True))


def test_on_paper_all_is_open_and_no_control_is_shown(visit: Open, report: Path) -> None:
    made = visit(report, color_scheme="dark")
    page = made.page
    page.locator("form[data-list=verdict-list]").get_by_label("contradicted").check()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert not page.locator(".filter").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator(".checks").evaluate_all("all => all.every((each) => each.checkVisibility())")
    assert len(made.shown("#verdict-list")) == 4, "a filter is not a choice of what to print"
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()") == "#1d1c1a"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert not page.locator("#claim-collapse .checks").is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_without_a_script_paper_is_open_too(visit: Open, report: Path) -> None:
    page = visit(report, java_script_enabled=False).page
    page.emulate_media(media="print")

    boxes = [page.locator(".checks").nth(index).bounding_box() for index in range(page.locator(".checks").count())]
    assert boxes
    assert all(box and box["height"] > 10 for box in boxes)


def test_the_layout_does_not_shift(visit: Open, report: Path) -> None:
    page = visit(report).page
    shift = page.evaluate(
        """() => new Promise((done) => {
          let sum = 0;
          new PerformanceObserver((list) => list.getEntries().forEach((entry) => (sum += entry.value)))
            .observe({ type: "layout-shift", buffered: true });
          setTimeout(() => done(sum), 300);
        })"""
    )

    assert shift == 0


def test_names_and_roles_are_what_is_seen(visit: Open, report: Path) -> None:
    page = visit(report).page

    assert page.get_by_role("table", name="Verdicts on 4 claims").count() == 1
    assert page.get_by_role("row", name=re.compile(r"contradicted perplexity_ratio is 9\.99")).count() == 1
    assert page.get_by_role("columnheader", name="expected").count() == 1
    assert page.get_by_role("navigation", name="Sections").get_by_role("link").count() == 4
    assert page.get_by_role("group", name="Perplexity ratio, tiny").get_by_role("link").count() == 8
    assert page.get_by_role("img", name=re.compile("Perplexity ratio over coefficient")).count() == 1
    assert page.get_by_role("combobox", name="Left").count() == 1
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, summary, a")]
          .filter((each) => !(each.labels?.length || each.textContent.trim() || each.ariaLabel)).length"""
    )
    assert unnamed == 0


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_do_nothing(visit: Open, tmp_path: Path, text: str) -> None:
    place = build(tmp_path, claims=[{**claim("perplexity_ratio", "9.99", layer=3, coef=2.0), "claim": text}])
    for line in (1, 5):
        place.edit_line("sweep_tiny.jsonl", line, lambda row: row.update(generations=spoiled(row["generations"], text)))
    notes = {**BEST, "notes": text}
    write_lines(place.data / "judge_strict_tiny.jsonl", [{"layer": 1, "coef": 2.0, **notes}])
    path = tmp_path / "report.html"
    write_text(path, render(load_page(str(place.model))))
    made = visit(path, viewport=PHONE)
    page = made.page
    page.locator("#left").select_option("tiny-zero")
    page.locator("#right").select_option("tiny-L1-c2")
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.mouse.wheel(0, 5000)

    assert page.evaluate("window.owned") is None
    shown = re.sub("[\u202a-\u202e]", "\N{REPLACEMENT CHARACTER}", text)
    assert (
        page.evaluate("[...document.querySelectorAll('#pairs td')].map((each) => each.textContent)")[:2] == [shown] * 2
    )
    assert page.locator("#pairs tbody th").first.evaluate("e => e.textContent") == shown
    assert shown in page.locator("#claim-the-claim").evaluate("e => e.textContent")
    assert page.locator("#pairs img, #pairs svg, main script, td script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("a[href^='javascript:']").count() == 0


@pytest.mark.parametrize("text", [HOSTILE[1], HOSTILE[4], HOSTILE[6]], ids=["script", "svg", "long"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_saes_and_transfers_can_be_read_whatever_models_are_called(
    visit: Open, tmp_path: Path, text: str, viewport: dict[str, int]
) -> None:
    place = whole(tmp_path)
    file = place.model / "transfer/tiny_L3_to_tiny_L1_diagnostics.json"
    document = read_json(file)
    document["source"]["model"] = text
    write_json(file, document)
    path = tmp_path / "report.html"
    write_text(path, render(load_page(str(place.model))))
    page = visit(path, viewport=viewport).page
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")

    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    assert page.locator("#transfers figcaption b").inner_text() == f"{text} layer 3 to tiny layer 1"
    for region in page.locator("#saes .scroll, #features .scroll, #transfers .scroll").all():
        # A cell stays on its line, and what goes beyond the edge can be scrolled to by keyboard.
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label")
    heights = page.eval_on_selector_all("#transfers tbody tr", "all => all.map((row) => row.clientHeight)")
    assert len(heights) == 2 * (2 + 3 * 4)
    assert max(heights) < 60


def spoiled(generations: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    first, *rest = generations
    return [{**first, "prompt": text, "gen": text}, *rest]


def test_no_request_is_possible_even_from_inside(chromium: Any, report: Path) -> None:
    page = chromium.new_page()
    page.goto(report.as_uri())
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    blocked = page.evaluate(
        """async (address) => {
          const seen = [];
          addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
          const image = new Image();
          image.src = address;
          const frame = document.createElement("iframe");
          frame.src = address;
          document.body.append(image, frame);
          await fetch(address).catch(() => null);
          await new Promise((done) => setTimeout(done, 100));
          return seen;
        }""",
        report.with_name("other.html").as_uri(),
    )
    page.close()

    assert {"connect-src", "img-src", "frame-src"} <= set(blocked)
    assert asked == []


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory, packaged_study: Path) -> Path:
    path = tmp_path_factory.mktemp("packaged") / "report.html"
    write_text(path, render(load_page(str(packaged_study))))
    return path


def test_the_packaged_study_compares_every_pair_of_its_kinds_of_cell(visit: Open, packaged: Path) -> None:
    made = visit(packaged)
    cells = json.loads(made.page.locator("#page-data").evaluate("e => e.textContent"))["cells"]
    assert len(cells) == 72 + 20
    for left, right in (("smollm2-zero", "smollm2-anchor"), ("smollm2-L18-c2", "smollm2-random-L18-c2")):
        made.page.locator("#left").select_option(left)
        made.page.locator("#right").select_option(right)
        assert len(made.reads(1)) == 40
        assert "–" not in made.reads(1) + made.reads(2)
        assert made.reads(1) != made.reads(2)


def test_the_upstream_study_is_a_page_like_any_other(visit: Open, tmp_path: Path, upstream: Path) -> None:
    path = tmp_path / "report.html"
    write_text(path, render(load_page(str(upstream / "model"), str(upstream / "dataset"))))
    made = visit(path, viewport=PHONE)
    made.page.locator("#right").select_option("anchor_eval-prompt_only")

    assert made.heads()[1] == "anchor_eval: prompt_only"
    assert made.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert made.page.locator("svg.bars").count() == 2
