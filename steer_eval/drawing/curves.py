"""Curves of a ratio over the coefficient, on a logarithmic axis.

Invariant: lines differ by colour, by marker and by a label at their end; intervals are drawn as bands, cut at the edge
of the picture. Where a point is missing the line goes on to the next one, and the gap shows as a missing marker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from steer_eval.drawing.svg import document, element

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 96, 16, 46
MAX_LINES = 40
COLOURS = 8
_LABEL_GAP = 15
_LOWEST, _HIGHEST = 1e-3, 1e6
_MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Point:
    """One measured ratio.

    Args:
        x: Coefficient.
        y: Ratio, above 0.
        low: Lower end of its interval, where known.
        high: Upper end.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """The points of one layer.

    Args:
        label: What stands at its end.
        points: Its points, in the order of `x`.
        control: Whether it is a control, drawn behind the others and without a label.
    """

    label: str
    points: tuple[Point, ...]
    control: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines on common axes.

    Args:
        title: What the picture shows, in words.
        lines: The lines.
        bound: Where a dashed line marks a limit; None for no limit.
        bound_label: What it is called.
    """

    title: str
    lines: Sequence[Line]
    bound: float | None = None
    bound_label: str = ""


@dataclass(frozen=True)
class _Axes:
    """From values to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    bottom: int

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = math.log(self.y_low), math.log(self.y_high)
        share = (math.log(min(max(value, self.y_low), self.y_high)) - low) / (high - low)
        return self.bottom - share * (self.bottom - TOP)


def draw(plot: Plot) -> Markup:
    """Draw a plot for a page, whose style sheet names the colours.

    Returns:
        An SVG element.
    """
    lines = [replace(line, points=tuple(sorted(line.points, key=lambda point: point.x))) for line in plot.lines]
    shown = [line for line in lines if not line.control and line.points]
    # Tall enough for a label at each line.
    height = max(HEIGHT, TOP + BOTTOM + _LABEL_GAP * len(shown))
    axes = _fitted([point for line in lines for point in line.points], plot.bound, height - BOTTOM)
    parts = [*_grid_lines(axes, lines), *_bound(axes, plot)]
    parts += [element("path", d=_path(axes, line.points), class_="control") for line in lines if line.control]
    parts += [_band(axes, line, index) for index, line in enumerate(shown)]
    for index, line in enumerate(shown):
        parts.append(element("path", d=_path(axes, line.points), class_=f"line hue{index % COLOURS}"))
        parts += [_marker(axes, point, line.label, index) for point in line.points]
    parts += _labels(axes, shown)
    return document(
        parts,
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        class_="plot",
        role="img",
        aria_label=plot.title,
    )


def _fitted(points: Sequence[Point], bound: float | None, bottom: int) -> _Axes:
    """Axes on which all points are; an interval may go beyond by half of what the ratios span."""
    xs = [point.x for point in points] or [0.0]
    ys = [point.y for point in points] + ([] if bound is None else [bound]) + [1.0]
    low, high = min(ys), max(ys)
    low = min([low, *(max(point.low, low / 1.5) for point in points if point.low is not None and point.low > 0)])
    high = max([high, *(min(point.high, high * 1.5) for point in points if point.high is not None)])
    low, high = max(low / 1.06, _LOWEST), min(high * 1.06, _HIGHEST)
    x_low, x_high = min(xs), max(xs)
    margin = 0.03 * (x_high - x_low) or 1.0
    return _Axes(x_low - margin, x_high + margin, min(low, 0.94), max(high, 1.06), bottom)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two bounds of a logarithmic axis, few enough to be told apart."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    sets = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(1 + 0.1 * n for n in range(90)))
    found: list[float] = []
    for digits in sets:
        finer = [digit * 10.0**decade for decade in decades for digit in digits]
        finer = [float(f"{value:.6g}") for value in finer if low <= value <= high]
        if found and (len(found) >= 4 or len(finer) > 10):
            break
        found = finer
    return found or [1.0]


def _grid_lines(axes: _Axes, lines: Sequence[Line]) -> Iterator[Markup]:
    right, bottom = WIDTH - RIGHT, axes.bottom
    for value in ticks(axes.y_low, axes.y_high):
        y = axes.y(value)
        yield element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="unit" if value == 1 else "rule")
        yield element("text", f"{value:g}", x=LEFT - 8, y=y + 4, text_anchor="end", class_="axis")
    last = -math.inf
    for value in sorted({point.x for line in lines for point in line.points}):
        x = axes.x(value)
        if x - last >= 28:
            yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="tick")
            yield element(
                "text", f"{value:+g}" if value else "0", x=x, y=bottom + 19, text_anchor="middle", class_="axis"
            )
            last = x
    middle = (LEFT + right) / 2
    yield element("text", "coefficient", x=middle, y=bottom + BOTTOM - 8, text_anchor="middle", class_="axis title")


def _bound(axes: _Axes, plot: Plot) -> Iterator[Markup]:
    if plot.bound is None:
        return
    y = axes.y(plot.bound)
    yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="bound")
    yield element("text", plot.bound_label, x=LEFT + 6, y=y - 6, class_="axis bound-label")


def _path(axes: _Axes, points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{axes.x(point.x):.1f} {axes.y(point.y):.1f}" for point in points) if points else ""


def _band(axes: _Axes, line: Line, index: int) -> Markup:
    """The interval of each point, joined to a band."""
    ends = [
        (axes.x(point.x), axes.y(point.low), axes.y(point.high))
        for point in line.points
        if point.low is not None and point.high is not None
    ]
    outline = [(x, high) for x, _, high in ends] + [(x, low) for x, low, _ in reversed(ends)]
    path = f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in outline)}Z" if outline else ""
    return element("path", d=path, class_=f"band hue{index % COLOURS}")


def _marker(axes: _Axes, point: Point, label: str, index: int) -> Markup:
    x, y, size = axes.x(point.x), axes.y(point.y), 4.2
    interval = "" if point.low is None or point.high is None else f", interval {point.low:.3g} to {point.high:.3g}"
    words = element("title", f"{label}, coefficient {point.x:+g}: {point.y:.4g}{interval}")
    shape = _MARKERS[(index + index // COLOURS) % len(_MARKERS)]
    classes = f"marker hue{index % COLOURS}"
    if shape == "circle":
        return element("circle", words, cx=x, cy=y, r=size, class_=classes)
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "triangle": ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
    }[shape]
    path = "L".join(f"{x + size * dx:.1f} {y + size * dy:.1f}" for dx, dy in corners)
    return element("path", words, d=f"M{path}Z", class_=classes)


def _labels(axes: _Axes, lines: Sequence[Line]) -> Iterator[Markup]:
    """The name of each line at its end, moved apart where they would cover each other."""
    ends = sorted((axes.y(line.points[-1].y), index, line) for index, line in enumerate(lines))
    placed: list[float] = []
    for wanted, _, _ in ends:
        placed.append(max(wanted, placed[-1] + _LABEL_GAP) if placed else wanted)
    limit = float(axes.bottom)
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], limit)
        limit = placed[place] - _LABEL_GAP
    for y, (wanted, index, line) in zip(placed, ends, strict=True):
        end = axes.x(line.points[-1].x)
        hue = f"hue{index % COLOURS}"
        yield element("path", d=f"M{end + 6:.1f} {wanted:.1f}L{WIDTH - RIGHT + 10} {y:.1f}", class_=f"leader {hue}")
        yield element("text", line.label, x=WIDTH - RIGHT + 14, y=y + 4, class_=f"name {hue}")
