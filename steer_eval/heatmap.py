"""The perplexity heat map of a sweep, as SVG.

Invariant: the picture is a pure function of the sweep. Colour encodes the logarithm of the perplexity ratio, from 1 to
the sweep's largest; the number is printed in each cell, so that colour is never the only carrier, and collapsed cells
are marked by a dagger as in the tables.
"""

from __future__ import annotations

import math
from typing import Any

from steer_eval.cells import Cell
from steer_eval.resources import folder
from steer_eval.results import Sweep, SweepRow
from steer_eval.study import Study

CELL_WIDTH, CELL_HEIGHT = 76, 34
LEFT, TOP = 92, 64

# Stops of a sequential scale, light to dark, even in lightness so that it survives greyscale printing.
_SCALE = ((247, 246, 242), (250, 220, 168), (240, 160, 96), (204, 84, 66), (122, 28, 56), (58, 12, 48))


def render_heatmap(study: Study, model: str, sweep: Sweep) -> str:
    """Draw the perplexity ratios of a sweep's steered cells over layer and coefficient.

    Args:
        study: Layers, coefficients and the collapse ratio.
        model: Name of the model.
        sweep: Its sweep.

    Returns:
        An SVG document.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    layers, coefficients = study.sweep.layers, study.sweep.coefficients
    found = {
        (layer, coef): row
        for layer in layers
        for coef in coefficients
        if (row := sweep.find(Cell(model, "steered", layer, coef))) is not None
    }
    largest = max((row.ppl_ratio for row in found.values()), default=2.0)
    cells = [
        _cell(found.get((layer, coef)), x, y, largest)
        for y, layer in enumerate(layers)
        for x, coef in enumerate(coefficients)
    ]
    environment = Environment(
        loader=FileSystemLoader(folder("cards")),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("heatmap.svg.jinja").render(
        study=study,
        base_model=study.models[model].base_model,
        cells=cells,
        columns=[{"x": LEFT + (x + 0.5) * CELL_WIDTH, "label": f"{coef:+g}"} for x, coef in enumerate(coefficients)],
        lines=[{"y": TOP + (y + 0.5) * CELL_HEIGHT + 5, "label": f"layer {layer}"} for y, layer in enumerate(layers)],
        width=LEFT + CELL_WIDTH * len(coefficients) + 16,
        height=TOP + CELL_HEIGHT * len(layers) + 46,
        cell_width=CELL_WIDTH,
        cell_height=CELL_HEIGHT,
        bottom=TOP + CELL_HEIGHT * len(layers),
    )


def _cell(row: SweepRow | None, x: int, y: int, largest: float) -> dict[str, Any]:
    place = {"x": LEFT + x * CELL_WIDTH, "y": TOP + y * CELL_HEIGHT}
    if row is None:
        return {**place, "fill": "none", "ink": "#555", "label": "–"}
    share = min(1.0, max(0.0, math.log(row.ppl_ratio) / math.log(max(largest, 1.01))))
    red, green, blue = _colour(share)
    ink = "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#222"
    label = f"{row.ppl_ratio:.2f}" if row.ppl_ratio < 100 else f"{row.ppl_ratio:.0f}"
    return {
        **place,
        "fill": f"#{red:02x}{green:02x}{blue:02x}",
        "ink": ink,
        "label": label + ("†" if row.collapsed else ""),
    }


def _colour(share: float) -> tuple[int, int, int]:
    position = share * (len(_SCALE) - 1)
    index = min(int(position), len(_SCALE) - 2)
    weight = position - index
    low, high = _SCALE[index], _SCALE[index + 1]
    red, green, blue = (round(a + weight * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue
