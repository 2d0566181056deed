"""The perplexity heat map of a sweep, as an SVG file for cards.

Invariant: the picture is a pure function of the sweep. Colour encodes the logarithm of the perplexity ratio, from 1 to
the sweep's largest; the number is printed in each cell, so that colour is never the only carrier, and collapsed cells
are marked by a dagger as in the tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from steer_eval.cells import Cell
from steer_eval.drawing.grid import COLLAPSED, Attributes, Frame, axes, face, label, ratio_label, ratio_share
from steer_eval.drawing.scale import SEQUENTIAL, Colour, css
from steer_eval.drawing.svg import document, element
from steer_eval.results import Sweep, SweepRow
from steer_eval.study import Study

FRAME = Frame(left=92, top=64, cell_width=76, cell_height=34)


def render_heatmap(study: Study, model: str, sweep: Sweep) -> str:
    """Draw the perplexity ratios of a sweep's steered cells over layer and coefficient.

    Args:
        study: Layers, coefficients and the collapse ratio.
        model: Name of the model.
        sweep: Its sweep.

    Returns:
        An SVG document.
    """
    layers, coefficients = study.layers(model), study.coefficients(model)
    width = FRAME.left + FRAME.cell_width * len(coefficients) + 16
    bottom = FRAME.top + FRAME.cell_height * len(layers)
    picture = document(
        _parts(study, model, sweep, bottom),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {bottom + 46}",
        width=width,
        height=bottom + 46,
        role="img",
        font_family="system-ui, sans-serif",
        font_size=13,
    )
    return str(picture)


def _parts(study: Study, model: str, sweep: Sweep, bottom: int) -> Iterator[Markup]:
    layers, coefficients = study.layers(model), study.coefficients(model)
    base_model = study.models[model].base_model
    yield element("title", f"Perplexity ratio by layer and coefficient, {base_model}")
    yield element("rect", width="100%", height="100%", fill="#ffffff")
    yield element("text", f"Perplexity ratio, {base_model}", x=16, y=24, font_size=15, font_weight=600, fill="#222")
    yield element("text", "steered over unsteered, on one fixed corpus", x=16, y=42, fill="#555")
    yield from axes(
        FRAME, [f"layer {layer}" for layer in layers], [f"{coef:+g}" for coef in coefficients], {"fill": "#222"}
    )
    found = {
        (layer, coef): row
        for layer in layers
        for coef in coefficients
        if (row := sweep.find(Cell(model, "steered", layer, coef))) is not None
    }
    largest = max((row.ppl_ratio for row in found.values()), default=2.0)
    for y, layer in enumerate(layers):
        for x, coef in enumerate(coefficients):
            text, paint, ink = _shown(found.get((layer, coef)), largest)
            yield face(FRAME, x, y, paint)
            yield label(FRAME, x, y, text, ink)
    legend = f"columns: coefficient   {COLLAPSED} ratio above {study.sweep.collapse_ratio:g}: collapsed"
    yield element("text", legend, x=16, y=bottom + 24, fill="#555")


def _shown(row: SweepRow | None, largest: float) -> tuple[str, Attributes, Attributes]:
    """Label of a cell, and the paint of its face and of its label."""
    stroke: Attributes = {"stroke": "#ffffff", "stroke_width": 2}
    if row is None:
        return "–", {"fill": "none", **stroke}, {"fill": "#555"}
    colour = SEQUENTIAL.at(ratio_share(row.ppl_ratio, largest))
    return (
        ratio_label(row.ppl_ratio, collapsed=row.collapsed),
        {"fill": css(colour), **stroke},
        {"fill": _ink(colour)},
    )


def _ink(colour: Colour) -> str:
    red, green, blue = colour
    return "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#222"
