"""Pictures: what is drawn stands where its numbers say, can be read, and can't be anything but a picture."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.drawing import bars, curves, grid, scale
from steer_eval.drawing.svg import document, element

POSITIVE = st.floats(1e-4, 1e7)


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)  # noqa: S314 - our own picture


def marked(picture: str, name: str) -> list[ElementTree.Element]:
    return [each for each in parsed(picture).iter() if name in each.attrib.get("class", "").split()]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")))
def test_no_text_leaves_its_place(text: str) -> None:
    picture = parsed(document([element("text", text, aria_label=text)], role="img"))

    assert len(list(picture.iter())) == 2
    assert (picture[0].text or "") == text
    assert " ".join(picture[0].attrib["aria-label"].split()) == " ".join(text.split())


def test_attributes_are_named_and_rounded() -> None:
    drawn = element("rect", class_="a", stroke_width=2, x=1 / 3, y=2.0, href=None)

    assert drawn == '<rect class="a" stroke-width="2" x="0.33" y="2.0"/>'


@pytest.mark.parametrize("theme", [scale.MORE, scale.SIDES], ids=lambda theme: theme.name)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_step_can_be_read(theme: scale.Theme, dark: bool) -> None:
    rules = [re.fullmatch(r"\.(\w+)\{--face:(#\w{6});--ink:(#\w{3})\}", rule) for rule in theme.rules(dark=dark)]

    assert [rule[1] for rule in rules] == [theme.class_of(step / scale.STEPS) for step in range(scale.STEPS + 1)]
    for rule in rules:
        level = scale.luminance(tuple(int(rule[2][place : place + 2], 16) for place in (1, 3, 5)))
        ink = {"#fff": 1.0, "#000": 0.0}[rule[3]]
        high, low = max(level, ink), min(level, ink)
        assert (high + 0.05) / (low + 0.05) >= 4.5, rule[0]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_lightness_is_even(dark: bool) -> None:
    """More is darker on a light page and lighter on a dark one; of two sides both go away from the middle."""
    steps = [index / 40 for index in range(41)]
    more = [scale.luminance((scale.MORE.dark if dark else scale.MORE.light).at(step)) for step in steps]
    sides = [scale.luminance((scale.SIDES.dark if dark else scale.SIDES.light).at(step)) for step in steps]
    way = 1 if dark else -1

    assert all(way * (after - before) > 0 for before, after in pairwise(more))
    assert all(way * (after - before) < 0 for before, after in pairwise(sides[:21]))
    assert all(way * (after - before) > 0 for before, after in pairwise(sides[20:]))


def test_a_heat_map_has_a_link_for_each_cell_and_marks_that_are_no_colours() -> None:
    plain = grid.GridCell("1.00", "layer 1: one", 0.0, href="#a", identity="a")
    broken = grid.GridCell("9.00†", "layer 2: nine", 1.0, collapsed=True, best=True, href="#b", identity="b")
    drawn = grid.draw(
        grid.Grid("Ratio", ["layer 1", "layer 2"], ["+1"], [[plain], [broken]], scale.MORE),
    )
    links = [each for each in parsed(drawn).iter() if each.tag == "a"]

    assert [(link.attrib["href"], link.attrib["aria-label"]) for link in links] == [
        ("#a", "layer 1: one"),
        ("#b", "layer 2: nine"),
    ]
    assert [len(marked(f"<svg>{drawn}</svg>", mark)) for mark in ("face", "hatch", "best", "ring")] == [2, 1, 1, 2]
    assert [mark.attrib["class"] for mark in links[1] if mark.tag != "title"] == [
        "face",
        "hatch",
        "best",
        "ring",
        "ink",
    ]
    unmeasured = grid.draw(grid.Grid("Ratio", ["layer 1"], ["+1"], [[grid.GridCell("–", "none")]], scale.MORE))
    assert "<a " not in unmeasured
    assert marked(unmeasured, "unmeasured")


def test_hatching_stays_in_its_cell() -> None:
    cell = grid.GridCell("9", "nine", 1.0, collapsed=True)
    drawn = grid.draw(grid.Grid("Ratio", ["layer 1"], ["+1", "+2"], [[cell, cell]], scale.MORE))
    for face, hatch in zip(marked(drawn, "face"), marked(drawn, "hatch"), strict=True):
        x, y, width, height = (float(face.attrib[name]) for name in ("x", "y", "width", "height"))
        points = [(float(a), float(b)) for a, b in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", hatch.attrib["d"])]
        assert len(points) > 10
        assert all(x <= a <= x + width and y <= b <= y + height for a, b in points)


@given(st.floats(1e-4, 0.94), st.floats(1.06, 1e7))
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = curves.ticks(low, high)

    assert found == sorted(set(found))
    assert 1 <= len(found) <= 12
    assert 1.0 in found
    assert all(low * 0.999 <= value <= high * 1.001 for value in found)
    assert all(float(f"{value:.1e}") == value for value in found)


@given(
    st.lists(st.lists(st.tuples(st.floats(-1e6, 1e6), POSITIVE), min_size=1, max_size=6), min_size=1, max_size=30),
    POSITIVE,
)
def test_every_curve_is_inside_the_picture_and_no_label_covers_another(lines, bound: float) -> None:
    made = [
        curves.Line(f"layer {index}", tuple(curves.Point(x, y, y / 2, y * 1e9) for x, y in points))
        for index, points in enumerate(lines)
    ]
    drawn = curves.draw(curves.Plot("Ratio", made, bound, "bound"))
    height = float(parsed(drawn).attrib["height"])
    for path in marked(drawn, "line") + marked(drawn, "band"):
        for x, y in re.findall(r"[ML]([\d.e+-]+) ([\d.e+-]+)", path.attrib["d"]):
            assert curves.LEFT <= float(x) <= curves.WIDTH - curves.RIGHT
            assert curves.TOP - 0.1 <= float(y) <= height - curves.BOTTOM + 0.1
    labels = sorted(float(each.attrib["y"]) for each in marked(drawn, "name"))
    assert all(after - before > 14 for before, after in pairwise(labels))
    assert all(curves.TOP <= label <= height - curves.BOTTOM + 4 for label in labels)


def test_a_plot_is_to_scale() -> None:
    line = curves.Line("layer 3", tuple(curves.Point(x, y) for x, y in ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0))))
    [path] = marked(curves.draw(curves.Plot("Ratio", [line])), "line")
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"])]

    assert math.isclose(points[1][0] - points[0][0], points[2][0] - points[1][0], abs_tol=0.2)
    assert math.isclose(points[0][1] - points[1][1], points[1][1] - points[2][1], abs_tol=0.2)
    assert points[0][1] > points[1][1]


def test_controls_are_behind_and_have_no_label() -> None:
    points = (curves.Point(1.0, 1.0), curves.Point(2.0, 3.0))
    drawn = curves.draw(curves.Plot("Ratio", [curves.Line("layer 1", points), curves.Line("layer 1", points, True)]))

    assert len(marked(drawn, "control")) == len(marked(drawn, "line")) == len(marked(drawn, "name")) == 1
    assert drawn.index('class="control"') < drawn.index('class="line')


@pytest.mark.parametrize("deltas", [(2.0, -1.0), (2.0, 1.0), (-2.0, -1.0), (0.0, 0.0), ()])
def test_bars_are_to_scale_on_their_side(deltas: tuple[float, ...]) -> None:
    drawn = bars.draw("Features", [bars.Bar(str(index), delta, 1.0, 1.0 + delta) for index, delta in enumerate(deltas)])
    shown = marked(drawn, "bar")
    spans = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in shown]

    assert len(shown) == len(deltas)
    assert all(x >= bars.LEFT and x + width <= bars.MIDDLE for x, width in spans)
    if deltas and deltas[0]:
        assert spans[0][1] == pytest.approx(2 * spans[1][1], rel=0.02)
    if deltas == (2.0, -1.0):
        assert spans[1][0] + spans[1][1] == pytest.approx(spans[0][0], abs=0.1)
    values = [each.text for each in marked(drawn, "value")]
    assert values == [f"{delta:+.3g}" for delta in deltas]


def test_long_labels_push_the_bars_aside_and_never_out() -> None:
    lines = [bars.Bar("W" * 3000, 1.0, 0.0, 1.0), bars.Bar("procrustes, held-out R²", -0.5, 0.5, 0.0)]
    drawn = bars.draw("Nulls", lines, bars.Axes("over the null", "from the null"))
    labels = [each for each in marked(drawn, "axis") if each.attrib.get("text-anchor") == "end" and each.text != "1"]

    assert [each.text for each in marked(drawn, "title")] == ["over the null", "from the null"]
    assert len(labels[0].text or "") < 30
    assert labels[1].text == "procrustes, held-out R²"
    for bar in marked(drawn, "bar"):
        assert float(labels[0].attrib["x"]) < float(bar.attrib["x"])
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= bars.MIDDLE


@pytest.mark.parametrize(("low", "said"), [(-0.2, False), (-0.9, True)])
def test_a_zero_is_written_where_there_is_room(low: float, said: bool) -> None:
    drawn = bars.draw("Nulls", [bars.Bar("one", 1.0 - low, low, 1.0)])

    assert ("0" in [each.text for each in marked(drawn, "axis")]) is said
    assert f"{low:.3g}" in [each.text for each in marked(drawn, "axis")]
