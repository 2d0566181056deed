"""What `steer-eval compare` prints for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steer_eval.cli.output import MIN_WIDTH
from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from steer_eval.comparison.table import Line, Measured

NOTHING = "–"


def print_comparison(file: str, lines: Sequence[Line]) -> None:
    """Print one row per method, with its control's numbers beside its own.

    Args:
        file: What to call the file that the rows are in.
        lines: The table.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from steer_eval.comparison.table import edits_in_words

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=MIN_WIDTH, highlight=False)
    judges = sorted({judge for line in lines for judge in line.steered.margins})
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "edits"):
        shown.add_column(heading, overflow="fold")
    for heading in ("ratio", "interval", "control", "changed", "control", "distinct words", "control"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for judge in judges:
        shown.add_column(printable(f"margin {judge}"), justify="right")
        shown.add_column("control", justify="right")
    for line in lines:
        own, control = line.steered, line.control
        interval = own.row.interval
        cells = [
            line.method,
            edits_in_words(own.row),
            _ratio(own),
            NOTHING if interval is None else f"{interval.low:.2f} … {interval.high:.2f}",
            _ratio(control),
            _changed(own),
            _changed(control),
            _share(own.distinct),
            _share(control.distinct if control else None),
        ]
        for judge in judges:
            cells += [_margin(own, judge), _margin(control, judge)]
        shown.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(shown)
    console.print("ratio: perplexity over the unsteered model's; * collapsed; changed: texts that are not that model's")
    console.print("distinct words: their share in a text; control: the same of the random control")
    console.print(Text(printable(f"{file}  {len(lines)} methods")), soft_wrap=True)


def _ratio(measured: Measured | None) -> str:
    if measured is None:
        return NOTHING
    ratio = measured.row.ppl_ratio
    return f"{f'{ratio:.2f}' if ratio < 1e4 else f'{ratio:.3g}'}{'*' if measured.row.collapsed else ''}"


def _changed(measured: Measured | None) -> str:
    if measured is None or measured.changed is None:
        return NOTHING
    return f"{measured.changed} of {len(measured.row.generations)}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.0f} %"


def _margin(measured: Measured | None, judge: str) -> str:
    return NOTHING if measured is None or judge not in measured.margins else f"{measured.margins[judge]:+.2f}"
