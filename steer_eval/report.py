"""The report page: one HTML file that needs nothing but itself.

Invariant: the page is a pure function of its values, so equal studies give equal bytes. Every text of a stranger is
escaped by the template, also inside pictures and embedded data; the page's policy lets no script, style or request
through but the two that it carries itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from steer_eval.claims.verdict import WORDS
from steer_eval.drawing import bars, curves, grid, scale
from steer_eval.findings import SEVERITIES
from steer_eval.formats.atomic import write_text
from steer_eval.formats.manifest import check_manifest, write_manifest
from steer_eval.report_cells import Cell, Score, Sweep
from steer_eval.report_data import Features, Page, load_run
from steer_eval.repository import Repository
from steer_eval.resources import folder

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
TOP_FEATURES = 15
_ALWAYS = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
# Control characters, lone halves of surrogate pairs, and what reorders the text around it.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Picture:
    """A drawing with its caption."""

    title: str
    note: str
    drawing: Markup


def write_report(run: Path, published: Sequence[Repository] = ()) -> Path:
    """Write the page of a run into its directory.

    Args:
        run: A run directory with its `report.json`.
        published: The repos that were reproduced, whose data is shown beside the run's.

    Returns:
        The page. The run's manifest names it, provided that the run was what its manifest says.
    """
    text = render(load_run(run, published))
    before = [finding for finding in check_manifest(run) if finding.file != FILE]
    write_text(run / FILE, text)
    # Where something else was changed, a new manifest would hide it.
    if not before:
        write_manifest(run)
    return run / FILE


def render(page: Page) -> str:
    """The page as HTML.

    Args:
        page: What it shows.
    """
    cards = folder("cards")
    style = Markup("\n" + (cards / "report.css").read_text(encoding="utf-8") + scale_rules())  # noqa: S704 - our own
    script = Markup("\n" + (cards / "report.js").read_text(encoding="utf-8"))  # noqa: S704 - our own
    prompts = {text.prompt: None for cell in page.cells for text in cell.texts}
    pair = default_pair(page)
    html = (
        _environment(cards)
        .get_template("report.html.jinja")
        .render(
            page=page,
            policy=f"{_ALWAYS}; style-src {_digest(style)}; script-src {_digest(script)}",
            style=style,
            script=script,
            words=_counted(WORDS, (verdict.verdict for verdict in page.verdicts)),
            severities=_counted(SEVERITIES, (finding.severity for finding in page.findings)),
            measures=sorted({verdict.measure for verdict in page.verdicts}),
            rules=sorted({finding.rule for finding in page.findings}),
            rerun=any(check.evidence == "re-run" and check.observed is not None for check in _checks(page)),
            pictures={sweep.identity: list(_pictures(sweep, page.collapse_ratio)) for sweep in page.sweeps},
            features=[_feature_picture(features) for features in page.features],
            prompts={prompt: number for number, prompt in enumerate(prompts)},
            pair=pair,
            pairs=list(aligned(*pair)) if pair else [],
            data=embedded(_script_data(page)),
        )
    )
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", html)


def scale_rules() -> str:
    """The style rules of the colour scales, for light pages and paper, and for dark pages."""
    themes = (scale.MORE, scale.SIDES)
    light = "\n".join(rule for theme in themes for rule in theme.rules(dark=False))
    dark = "\n".join(rule for theme in themes for rule in theme.rules(dark=True))
    return f"\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def embedded(value: Any) -> Markup:
    """A value as JSON that can stand in a script element: no character of it can end the element or a line."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def default_pair(page: Page) -> tuple[Cell, Cell] | None:
    """The two cells that the comparison opens with: an unsteered one, and the best or strongest that still speaks."""
    speaking = [cell for cell in page.cells if cell.texts]
    if not speaking:
        return None
    for part in (*page.sweeps, None):
        among = [cell for cell in (part.cells if part else speaking) if cell.texts]
        steered = [cell for cell in among if cell.label == "steered" and not cell.collapsed]
        best = [cell for cell in steered if any(score.best for score in cell.scores)]
        if best or steered:
            right = best[0] if best else max(steered, key=lambda cell: cell.ratio or 0.0)
            controls = [cell for label in ("zero", "anchor") for cell in among if cell.label == label]
            left = next((cell for cell in [*controls, *among] if cell is not right), right)
            return left, right
    return speaking[0], speaking[-1]


def aligned(left: Cell, right: Cell) -> Iterator[tuple[str, str | None, str | None]]:
    """The texts of two cells side by side, by prompt; None where a cell has none."""
    first, second = ({text.prompt: text.gen for text in cell.texts} for cell in (left, right))
    for prompt in {**first, **second}:
        yield prompt, first.get(prompt), second.get(prompt)


def facts(cell: Cell, *, scores: bool = True) -> list[str]:
    """What is known of a cell, in words.

    Args:
        cell: The cell.
        scores: Whether to say what judges gave it.
    """
    known = []
    if cell.ratio is not None:
        interval = f", interval {cell.interval[0]:.4g} to {cell.interval[1]:.4g}" if cell.interval else ""
        known.append(f"perplexity ratio {cell.ratio:.4g}{interval}")
    if cell.collapsed:
        known.append("collapsed")
    if cell.undecided:
        known.append("the interval spans the collapse ratio")
    if cell.system_prompt:
        known.append(f"system prompt: {cell.system_prompt}")
    if scores:
        known += [score_words(score) + (f" “{score.notes}”" if score.notes else "") for score in cell.scores]
    return known


def score_words(score: Score) -> str:
    """What a judge gave, in words."""
    margin = "no margin" if score.margin is None else f"margin {score.margin:+g}"
    axes = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in score.axes.items())
    marks = [*(["best"] if score.best else []), *(["no text to judge"] if score.imputed else [])]
    return f"{score.judge}: {margin} ({axes})" + "".join(f", {mark}" for mark in marks)


def _script_data(page: Page) -> dict[str, Any]:
    """What the script needs to know of each cell; the texts themselves stand in the page."""
    return {
        "cells": {
            cell.identity: {"name": f"{part.title} {cell.name}", "facts": facts(cell)}
            for part in (*page.sweeps, *page.labelled)
            for cell in part.cells
        }
    }


def _checks(page: Page) -> Iterator[Any]:
    return (check for verdict in page.verdicts for check in verdict.checks)


def _counted(words: Iterable[str], found: Iterable[str]) -> dict[str, int]:
    counts = Counter(found)
    return {word: counts[word] for word in words if word in counts}


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _pictures(sweep: Sweep, collapse_ratio: float) -> Iterator[Picture]:
    steered = sweep.grid("steered")
    if not _drawable(steered):
        return
    note = (
        f"The stronger the colour, the larger the ratio (logarithmic). {grid.COLLAPSED} and hatching: collapsed, "
        f"above {collapse_ratio:g}."
    )
    yield Picture("Perplexity ratio", note, _ratios(f"Perplexity ratio, {sweep.title}", steered))
    for judge in sweep.judges:
        yield _margins(sweep, steered, judge)
    random = sweep.grid("random")
    if _drawable(random):
        title = "Perplexity ratio under a random direction of the same norm"
        yield Picture(title, "What steering does beyond this is the vector's.", _ratios(title, random))
    yield _doses(sweep, steered, random, collapse_ratio)


def _drawable(cells: Mapping[tuple[int, float], Cell]) -> bool:
    """Whether cells make a picture; strangers may name any number of layers."""
    layers, coefficients = _axes(cells)
    return 0 < len(layers) * len(coefficients) <= grid.MAX_CELLS and len(layers) <= curves.MAX_LINES


def _axes(cells: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    places = list(cells)
    return sorted({layer for layer, _ in places}), sorted({coef for _, coef in places})


def _ratios(title: str, cells: Mapping[tuple[int, float], Cell]) -> Markup:
    largest = max((cell.ratio for cell in cells.values() if cell.ratio), default=1.0)

    def shown(cell: Cell) -> tuple[str, float | None, str, bool]:
        ratio = cell.ratio or 1.0
        share = grid.ratio_share(ratio, largest)
        return grid.ratio_label(ratio, collapsed=cell.collapsed), share, "; ".join(facts(cell, scores=False)), False

    return _grid(title, cells, scale.MORE, shown)


def _margins(sweep: Sweep, cells: Mapping[tuple[int, float], Cell], judge: str) -> Picture:
    scores = {cell.identity: score for cell in cells.values() for score in cell.scores if score.judge == judge}
    best = [(cell, score) for cell in cells.values() if (score := scores.get(cell.identity)) and score.best]
    # A rubric from one to five spans margins of four on either side.
    span = max([4.0, *(abs(score.margin) for score in scores.values() if score.margin is not None)])

    def shown(cell: Cell) -> tuple[str, float | None, str, bool]:
        score = scores.get(cell.identity)
        if score is None or score.margin is None:
            return "–", None, "not scored", False
        label = f"{score.margin:+g}" if score.margin else "0"
        label += (grid.COLLAPSED if cell.collapsed else "") + (grid.BEST if score.best else "")
        return label, (score.margin + span) / (2 * span), score_words(score), score.best

    note = f"{grid.BEST}: the largest margin among cells whose text does not collapse"
    if len(best) > 1:
        note += f"; {len(best)} cells tie at {best[0][1].margin:+g}"
    elif best:
        note += f", {best[0][1].margin:+g} at {best[0][0].name}"
    title = f"Margin, judged by {judge}"
    return Picture(title, f"{note}.", _grid(f"{title}, {sweep.title}", cells, scale.SIDES, shown))


def _grid(title: str, cells: Mapping[tuple[int, float], Cell], theme: scale.Theme, shown: Any) -> Markup:
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
    steered: Mapping[tuple[int, float], Cell],
    random: Mapping[tuple[int, float], Cell],
    collapse_ratio: float,
) -> Picture:
    zero = next((cell for cell in sweep.cells if cell.label == "zero" and cell.ratio), None)

    def line(cells: Mapping[tuple[int, float], Cell], layer: int, *, control: bool) -> curves.Line:
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


def _feature_picture(features: Features) -> tuple[Features, Picture]:
    table = features.table
    rows = sorted(table.rows, key=lambda row: -abs(row.delta))[:TOP_FEATURES]
    title = f"{table.model}, layer {table.layer}, c={table.coefficient:+g}"
    shown = [bars.Bar(str(row.feature), row.delta, row.base_mean, row.steered_mean) for row in rows]
    note = f"The {len(rows)} features that steering changes most, of {len(table.rows)}; means over {table.n_prompts} prompts."
    return features, Picture(
        title, note, bars.draw(f"Features under steering: {title}. The table has the numbers.", shown)
    )


def _environment(cards: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(cards),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(value=_value, facts=facts, score=score_words)
    return environment


def _value(value: Any) -> str:
    """A value as a reader takes it in."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
