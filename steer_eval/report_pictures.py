"""The pictures of a report page: which there are, what is in them, and what stands beneath them.

Invariant: pictures are of the steered cells and of the control with random directions; the largest margin is marked
wherever it was given to a text that does not collapse, so that a tie is seen to be one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from steer_eval.drawing import bars, curves, grid, scale
from steer_eval.report_cells import Cell, Sweep
from steer_eval.report_data import Features
from steer_eval.report_parts import OF_STREAMS, Transfer
from steer_eval.report_words import facts, score_words, signed

TOP_FEATURES = 15
_OF_NULLS = bars.Axes("value less the null's 95 %", "○ the null's 95 % to ● the value")
Cells = Mapping[tuple[int, float], Cell]
_Shown = tuple[str, float | None, str, bool]
"""What a cell of a heat map has: its label, its share of the colour scale, its words, and whether it is the best."""


@dataclass(frozen=True)
class Picture:
    """A drawing with its caption."""

    title: str
    note: str
    drawing: Markup


def pictures(sweep: Sweep, collapse_ratio: float) -> Iterator[Picture]:
    """The pictures of a sweep; none where its cells make no grid that can be drawn."""
    steered = sweep.grid("steered")
    if not _drawable(steered):
        return
    note = (
        f"The stronger the colour, the larger the ratio (logarithmic). {grid.COLLAPSED} and hatching: collapsed, "
        f"above {collapse_ratio:g}."
    )
    random = sweep.grid("random")
    # One scale for both, so that equal colours mean equal ratios.
    largest = max((cell.ratio for cell in [*steered.values(), *random.values()] if cell.ratio), default=1.0)
    yield Picture("Perplexity ratio", note, _ratios(f"Perplexity ratio, {sweep.title}", steered, largest))
    for judge in sweep.judges:
        yield _margins(sweep, steered, judge)
    if _drawable(random):
        title = "Perplexity ratio under a random direction of the same norm"
        note = "On the same scale: what steering does beyond this is due to the direction of the vector."
        yield Picture(title, note, _ratios(title, random, largest))
    yield _doses(sweep, steered, random, collapse_ratio)


def _drawable(cells: Cells) -> bool:
    """Whether cells make a picture; strangers may name any number of layers."""
    layers, coefficients = _axes(cells)
    return 0 < len(layers) * len(coefficients) <= grid.MAX_CELLS and len(layers) <= curves.MAX_LINES


def _axes(cells: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    places = list(cells)
    return sorted({layer for layer, _ in places}), sorted({coef for _, coef in places})


def _ratios(title: str, cells: Cells, largest: float) -> Markup:
    def shown(cell: Cell) -> _Shown:
        ratio = cell.ratio or 1.0
        share = grid.ratio_share(ratio, largest)
        return grid.ratio_label(ratio, collapsed=cell.collapsed), share, "; ".join(facts(cell, scores=False)), False

    return _grid(title, cells, scale.MORE, shown)


def _margins(sweep: Sweep, cells: Cells, judge: str) -> Picture:
    scores = {cell.identity: score for cell in cells.values() for score in cell.scores if score.judge == judge}
    best = [(cell, score) for cell in cells.values() if (score := scores.get(cell.identity)) and score.best]
    # A rubric from one to five spans margins of four on either side.
    span = max([4.0, *(abs(score.margin) for score in scores.values() if score.margin is not None)])

    def shown(cell: Cell) -> _Shown:
        score = scores.get(cell.identity)
        if score is None or score.margin is None:
            return "–", None, "not scored", False
        label = signed(score.margin)
        label += (grid.COLLAPSED if cell.collapsed else "") + (grid.BEST if score.best else "")
        return label, (score.margin + span) / (2 * span), score_words(score), score.best

    note = f"{grid.BEST}: the largest margin among cells whose text does not collapse"
    if len(best) > 1:
        note += f"; {len(best)} cells tie at {signed(best[0][1].margin)}"
    elif best:
        note += f", {signed(best[0][1].margin)} at {best[0][0].name}"
    title = f"Margin, judged by {judge}"
    return Picture(title, f"{note}.", _grid(f"{title}, {sweep.title}", cells, scale.SIDES, shown))


def _grid(title: str, cells: Cells, theme: scale.Theme, shown: Callable[[Cell], _Shown]) -> Markup:
    layers, coefficients = _axes(cells)

    def cell_at(layer: int, coef: float) -> grid.GridCell:
        cell = cells.get((layer, coef))
        place = f"layer {layer}, coefficient {coef:+g}"
        if cell is None:
            return grid.GridCell("–", f"{place}: not measured")
        text, share, words, best = shown(cell)
        return grid.GridCell(text, f"{place}: {words}", share, cell.collapsed, best, f"#{cell.identity}", cell.identity)

    return grid.draw(
        grid.Grid(
            title,
            [f"layer {layer}" for layer in layers],
            [f"{coef:+g}" for coef in coefficients],
            [[cell_at(layer, coef) for coef in coefficients] for layer in layers],
            theme,
        )
    )


def _doses(
    sweep: Sweep,
    steered: Cells,
    random: Cells,
    collapse_ratio: float,
) -> Picture:
    zero = next((cell for cell in sweep.cells if cell.label == "zero" and cell.ratio), None)

    def line(cells: Cells, layer: int, *, control: bool) -> curves.Line:
        points = [
            curves.Point(coef, cell.ratio, *(cell.interval or (None, None)))
            for (at, coef), cell in cells.items()
            if at == layer and cell.ratio
        ]
        # Coefficient zero is the same cell whatever the layer.
        if zero and zero.ratio and all(point.x for point in points):
            points.append(curves.Point(0.0, zero.ratio, *(zero.interval or (None, None))))
        return curves.Line(f"layer {layer}", tuple(points), control)

    lines = [line(random, layer, control=True) for layer in _axes(random)[0]] if _drawable(random) else []
    note = "One line for each layer, on a logarithmic axis."
    if any(cell.interval for cell in steered.values()):
        note += " Bands: sentence-bootstrap intervals."
    if lines:
        note += " Thin dotted lines: random directions."
    lines += [line(steered, layer, control=False) for layer in _axes(steered)[0]]
    plot = curves.Plot(
        f"Perplexity ratio over coefficient for each layer, {sweep.title}. The table of cells has the numbers.",
        lines,
        collapse_ratio,
        f"collapse ratio {collapse_ratio:g}",
    )
    return Picture("Dose and response", note, curves.draw(plot))


def feature_picture(features: Features) -> tuple[Features, Picture]:
    """A feature table with its picture."""
    table = features.table
    rows = sorted(table.rows, key=lambda row: -abs(row.delta))[:TOP_FEATURES]
    title = f"{table.model}, layer {table.layer}, c={table.coefficient:+g}"
    shown = [bars.Bar(str(row.feature), row.delta, row.base_mean, row.steered_mean) for row in rows]
    note = f"The {len(rows)} features that change most, of {len(table.rows)}; means over {table.n_prompts} prompts."
    return features, Picture(
        title, note, bars.draw(f"Features under steering: {title}. The table has the numbers.", shown)
    )


def transfer_picture(transfer: Transfer) -> Picture:
    """What was measured of a transfer under the first of its protocols, each value over its null's bound."""
    protocol = transfer.protocols[0]
    shown = [
        bars.Bar(_of(each.of, each.name), each.value - each.null_95, each.null_95, each.value)
        for each in protocol.statistics
    ]
    note = (
        f"Protocol {protocol.name}. To the right of the line: above what the same computation gives in 95 % of the "
        "draws where there is nothing to find."
    )
    words = f"Transfer from {transfer.title}, each value over its null's bound. The table has the numbers."
    return Picture(transfer.title, note, bars.draw(words, shown, _OF_NULLS))


def _of(what: str, name: str) -> str:
    short = name.removesuffix(" to native")
    return short if what == OF_STREAMS else f"{what}, {short}"
