"""Bars of what steering does to features, and beside them from where to where each mean goes.

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


@dataclass(frozen=True)
class Bar:
    """One feature.

    Args:
        label: Its name.
        delta: Steered mean less base mean.
        base: Mean without steering.
        steered: Mean with steering.
    """

    label: str
    delta: float
    base: float
    steered: float


def draw(title: str, bars: Sequence[Bar]) -> Markup:
    """Draw features for a page, whose style sheet names the colours.

    Args:
        title: What the picture shows, in words.
        bars: The features, from above to below.

    Returns:
        An SVG element.
    """
    height = TOP + ROW * len(bars) + BOTTOM
    parts = [*_deltas(bars, height), *_means(bars, height)]
    return document(
        parts,
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        class_="bars",
        role="img",
        aria_label=title,
    )


def _deltas(bars: Sequence[Bar], height: int) -> Iterator[Markup]:
    below = max([0.0, *(-bar.delta for bar in bars)])
    above = max([0.0, *(bar.delta for bar in bars)])
    rooms = _BAR_ROOM * (below > 0), _BAR_ROOM * (above > 0)
    unit = (MIDDLE - 24 - LEFT - sum(rooms)) / ((below + above) or 1.0)
    zero = LEFT + rooms[0] + below * unit
    yield element("text", "change of the mean", x=LEFT, y=16, class_="axis title")
    yield element("line", x1=zero, x2=zero, y1=TOP - 4, y2=height - BOTTOM + 4, class_="unit")
    for index, bar in enumerate(bars):
        y = TOP + ROW * index
        length = abs(bar.delta) * unit
        start = zero - length if bar.delta < 0 else zero
        side = "below" if bar.delta < 0 else "above"
        yield element("text", bar.label, x=LEFT - 10, y=y + 16, text_anchor="end", class_="axis")
        yield element("rect", x=start, y=y + 4, width=max(length, 1.0), height=ROW - 8, rx=2, class_=f"bar {side}")
        beside = start - 5 if bar.delta < 0 else start + length + 5
        anchor = "end" if bar.delta < 0 else "start"
        yield element("text", f"{bar.delta:+.3g}", x=beside, y=y + 16, text_anchor=anchor, class_="axis value")


def _means(bars: Sequence[Bar], height: int) -> Iterator[Markup]:
    means = [mean for bar in bars for mean in (bar.base, bar.steered)]
    low, high = min([0.0, *means]), max([0.0, *means])
    unit = (WIDTH - 24 - MIDDLE) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return MIDDLE + (value - low) * unit

    yield element("text", "mean activation, ○ unsteered to ● steered", x=MIDDLE, y=16, class_="axis title")
    bottom = height - BOTTOM
    for value in sorted({low, 0.0, high}):
        anchor = "middle" if value not in (low, high) else "start" if value == low else "end"
        yield element(
            "line", x1=x(value), x2=x(value), y1=TOP - 4, y2=bottom + 4, class_="unit" if not value else "rule"
        )
        yield element("text", f"{value:.3g}", x=x(value), y=bottom + 19, text_anchor=anchor, class_="axis")
    for index, bar in enumerate(bars):
        y = TOP + ROW * index + ROW / 2
        side = "below" if bar.delta < 0 else "above"
        words = element("title", f"{bar.label}: {bar.base:.4g} to {bar.steered:.4g}")
        yield element("line", x1=x(bar.base), x2=x(bar.steered), y1=y, y2=y, class_=f"way {side}")
        yield element("circle", cx=x(bar.base), cy=y, r=4.5, class_=f"base {side}")
        yield element("circle", words, cx=x(bar.steered), cy=y, r=4.5, class_=f"steered {side}")
