from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import COEFFICIENTS, LAYERS, RATIOS, document, row, rows, text_of

from steer_eval.cells import Cell
from steer_eval.heatmap import render_heatmap
from steer_eval.results import Sweep
from steer_eval.study import Study, load_study

SVG = "{http://www.w3.org/2000/svg}"
STEERED = [(layer, coef) for layer in LAYERS for coef in COEFFICIENTS]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(text_of(document()))
    return load_study(path)


def drawn(study: Study, ratios: dict[tuple[int, float], float]) -> list[tuple[dict[str, str], str]]:
    """Attributes and label of each cell, in the order of the picture."""
    sweep = Sweep("sweep_tiny.jsonl", tuple(row(study, Cell("tiny", "steered", *at), r) for at, r in ratios.items()))
    return cells_of(render_heatmap(study, "tiny", sweep))


def cells_of(svg: str) -> list[tuple[dict[str, str], str]]:
    elements = list(ElementTree.fromstring(svg))  # noqa: S314 - our own picture
    cells = [index for index, each in enumerate(elements) if each.tag == f"{SVG}rect" and "stroke" in each.attrib]
    assert all(elements[index + 1].tag == f"{SVG}text" for index in cells)
    return [(elements[index].attrib, elements[index + 1].text) for index in cells]


def lightness(fill: str) -> float:
    red, green, blue = (int(fill[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_picture_is_svg_with_one_labelled_cell_per_point(study):
    sweep = Sweep("sweep_tiny.jsonl", tuple(rows(study, "tiny")))
    svg = render_heatmap(study, "tiny", sweep)
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own picture
    cells = cells_of(svg)

    assert root.tag == f"{SVG}svg"
    assert "lab/tiny-base" in root.find(f"{SVG}title").text
    assert len({(cell["x"], cell["y"]) for cell, _ in cells}) == len(cells) == len(STEERED)
    assert [label for _, label in cells] == [f"{RATIOS[at]:.2f}{'†' if RATIOS[at] > 3 else ''}" for at in STEERED]
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {f"layer {layer}" for layer in LAYERS} <= set(texts)
    assert {f"{coef:+g}" for coef in COEFFICIENTS} <= set(texts)
    for cell, _ in cells:
        assert float(cell["x"]) + float(cell["width"]) <= float(root.attrib["width"])
        assert float(cell["y"]) + float(cell["height"]) <= float(root.attrib["height"])


def test_the_order_of_rows_does_not_matter(study):
    forwards = Sweep("sweep_tiny.jsonl", tuple(rows(study, "tiny")))
    backwards = Sweep("sweep_tiny.jsonl", tuple(reversed(forwards.rows)))

    assert render_heatmap(study, "tiny", forwards) == render_heatmap(study, "tiny", backwards)


# Even in the logarithm, as the colours are.
RATIO = st.floats(-1, 9).map(math.exp)


@settings(max_examples=40, deadline=None)
@given(st.lists(RATIO, min_size=len(STEERED), max_size=len(STEERED)))
def test_darker_is_larger_and_a_dagger_is_a_collapse(study, chosen):
    cells = drawn(study, dict(zip(STEERED, chosen, strict=True)))
    by_ratio = sorted(zip(chosen, cells, strict=True), key=lambda item: item[0])
    light = [lightness(cell["fill"]) for _, (cell, _) in by_ratio]

    assert all(after <= before + 1e-9 for before, after in pairwise(light))
    for ratio, (_, label) in by_ratio:
        assert ("†" in label) is (ratio > 3)
        assert float(label.rstrip("†")) == pytest.approx(ratio, abs=0.005 if ratio < 100 else 0.5)


def test_the_scale_spans_from_one_to_the_largest(study):
    ratios = dict.fromkeys(STEERED, 1.0) | {STEERED[-1]: 50.0}
    light = [lightness(cell["fill"]) for cell, _ in drawn(study, ratios)]

    assert min(light[:-1]) > 0.9
    assert light[-1] < 0.1


def test_labels_can_be_read_on_every_colour(study):
    for top in (1.0, 1.5, 3.0, 40.0):
        ratios = {at: max(1.0, top * index / len(STEERED)) for index, at in enumerate(STEERED, start=1)}
        sweep = Sweep("x", tuple(row(study, Cell("tiny", "steered", *at), ratio) for at, ratio in ratios.items()))
        svg = render_heatmap(study, "tiny", sweep)
        pairs = re.findall(r'height="34" fill="(#\w{6})".*\n.*fill="(#\w{3})"', svg)
        assert len(pairs) == len(STEERED)
        for fill, ink in pairs:
            assert contrast(fill, "#" + "".join(2 * digit for digit in ink[1:])) >= 3


def contrast(first: str, second: str) -> float:
    """Contrast ratio of the Web Content Accessibility Guidelines."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_the_oracle_of_contrast_agrees_with_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert lightness("#000000") == 0
    assert lightness("#ffffff") == pytest.approx(1)


def test_a_missing_cell_is_drawn_empty(study):
    ratios = {at: ratio for at, ratio in RATIOS.items() if at != (3, 2.0)}
    cells = dict(zip(STEERED, drawn(study, ratios), strict=True))

    assert cells[3, 2.0][1] == "–"
    assert cells[3, 2.0][0]["fill"] == "none"
    assert cells[3, 1.0][1] == "1.60"


def test_an_empty_sweep_is_drawn_too(study):
    assert [label for _, label in drawn(study, {})] == ["–"] * len(STEERED)
