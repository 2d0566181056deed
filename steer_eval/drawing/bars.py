"""Bars of changes, and beside them from where to where each value goes: features under steering, values over nulls.

Invariant: both halves have their own scale, named on its axis; a number that matters is written beside its bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from steer_eval.drawing.svg import document, element

ROW, TOP, BOTTOM = 24, 30, 26
WIDTH, LEFT, MIDDLE = 720, 84, 400
_BAR_ROOM = 54
_LETTER = 7
"""About the width of a letter."""
_NUMBER = 64
"""Room of a number on an axis."""
_LONGEST = 26
"""Letters of a label that are shown."""


@dataclass(frozen=True)
class Bar:
    """One line of a picture.

    Args:
        label: Its name.
        delta: The end less the beginning.
        base: Where it begins, such as a mean without steering.
        steered: Where it ends, such as a mean with steering.
    """

    label: str
    delta: float
    base: float
    steered: float


@dataclass(frozen=True)
class Axes:
    """What is written above the two halves of a picture.

    Args:
        change: Above the bars.
        values: Above the beginnings and ends.
    """

    change: str
    values: str


OF_FEATURES = Axes("change of the mean", "mean activation, ○ unsteered to ● steered")


def draw(title: str, bars: Sequence[Bar], axes: Axes = OF_FEATURES) -> Markup:
    """Draw changes for a page, whose style sheet names the colours.

    Args:
        title: What the picture shows, in words.
        bars: The lines, from above to below.
        axes: What is written above them.

    Returns:
        An SVG element.
    """
    height = TOP + ROW * len(bars) + BOTTOM
    parts = [*_deltas(bars, height, axes.change), *_means(bars, height, axes.values)]
    return document(
        parts,
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        class_="bars",
        role="img",
        aria_label=title,
    )


def _deltas(bars: Sequence[Bar], height: int, words: str) -> Iterator[Markup]:
    left = max([LEFT, *(20 + _LETTER * len(_label(bar)) for bar in bars)])
    below = max([0.0, *(-bar.delta for bar in bars)])
    above = max([0.0, *(bar.delta for bar in bars)])
    rooms = _BAR_ROOM * (below > 0), _BAR_ROOM * (above > 0)
    unit = (MIDDLE - 24 - left - sum(rooms)) / ((below + above) or 1.0)
    zero = left + rooms[0] + below * unit
    yield element("text", words, x=left, y=16, class_="axis title")
    yield element("line", x1=zero, x2=zero, y1=TOP - 4, y2=height - BOTTOM + 4, class_="unit")
    for index, bar in enumerate(bars):
        y = TOP + ROW * index
        length = abs(bar.delta) * unit
        start = zero - length if bar.delta < 0 else zero
        side = "below" if bar.delta < 0 else "above"
        yield element("text", _label(bar), x=left - 10, y=y + 16, text_anchor="end", class_="axis")
        yield element("rect", x=start, y=y + 4, width=max(length, 1.0), height=ROW - 8, rx=2, class_=f"bar {side}")
        beside = start - 5 if bar.delta < 0 else start + length + 5
        anchor = "end" if bar.delta < 0 else "start"
        yield element("text", f"{bar.delta:+.3g}", x=beside, y=y + 16, text_anchor=anchor, class_="axis value")


def _label(bar: Bar) -> str:
    return bar.label if len(bar.label) <= _LONGEST else f"{bar.label[: _LONGEST - 1]}…"


def _means(bars: Sequence[Bar], height: int, words: str) -> Iterator[Markup]:
    means = [mean for bar in bars for mean in (bar.base, bar.steered)]
    low, high = min([0.0, *means]), max([0.0, *means])
    unit = (WIDTH - 24 - MIDDLE) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return MIDDLE + (value - low) * unit

    yield element("text", words, x=MIDDLE, y=16, class_="axis title")
    bottom = height - BOTTOM
    for value in sorted({low, 0.0, high}):
        anchor = "middle" if value not in (low, high) else "start" if value == low else "end"
        yield element(
            "line", x1=x(value), x2=x(value), y1=TOP - 4, y2=bottom + 4, class_="unit" if not value else "rule"
        )
        # A zero next to an end would be written over it.
        if value in (low, high) or min(x(value) - x(low), x(high) - x(value)) > _NUMBER:
            yield element("text", f"{value:.3g}", x=x(value), y=bottom + 19, text_anchor=anchor, class_="axis")
    for index, bar in enumerate(bars):
        y = TOP + ROW * index + ROW / 2
        side = "below" if bar.delta < 0 else "above"
        ends = element("title", f"{bar.label}: {bar.base:.4g} to {bar.steered:.4g}")
        yield element("line", x1=x(bar.base), x2=x(bar.steered), y1=y, y2=y, class_=f"way {side}")
        yield element("circle", cx=x(bar.base), cy=y, r=4.5, class_=f"base {side}")
        yield element("circle", ends, cx=x(bar.steered), cy=y, r=4.5, class_=f"steered {side}")
