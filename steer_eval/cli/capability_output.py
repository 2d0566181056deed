"""What `steer-eval capability` prints for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steer_eval.cli.output import MIN_WIDTH
from steer_eval.cli.printable import printable


def print_capability(report: Mapping[str, Any], folder: Path) -> None:
    """Print one row per metric and condition.

    Args:
        report: What `capability.json` says.
        folder: Where it was written.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=MIN_WIDTH, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("task", "metric", "documents", "condition"):
        table.add_column(heading, overflow="fold")
    for heading in ("value", "± s.e.", "difference", "± s.e.", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in report["results"]:
        filtered = "" if result["filter"] == "none" else f" ({result['filter']})"
        head = [
            f"{result['task']}{' (group)' if result['group'] else ''}",
            f"{result['metric']}{filtered}{_ARROW[result['higher_is_better']]}",
            f"{result['documents']} of {result['documents_of']}",
        ]
        base = result["base"]
        table.add_row(*map(_text, [*head, "unsteered", _number(base["value"]), _number(base["stderr"])]))
        for each in result["steered"]:
            difference = each["difference"]
            cells = [
                *("", "", ""),
                f"{each['label']} L={each['layer']} c={each['coef']:+g}",
                _number(each["value"]),
                _number(each["stderr"]),
                _number(difference["value"], "+"),
                _number(difference["stderr"]),
                _ratio(each["ratio"]),
            ]
            table.add_row(*map(_text, cells))
    console.print(table)
    model = report["model"]
    settings = report["settings"]
    limited = "" if settings["limit"] is None else f"; at most {settings['limit']} documents of each task"
    console.print(
        Text(printable(f"{model['base_model']} ({model['revision']}), {model['dtype']}{limited}")), soft_wrap=True
    )
    if report["recalled"]:
        console.print(f"{report['recalled']} answers are of an earlier run in the same directory")
    console.print(Text(f"capability.json and capability_samples.jsonl: {folder}"), soft_wrap=True)


_ARROW = {True: " ↑", False: " ↓", None: ""}


def _text(value: str) -> Any:
    from rich.text import Text

    return Text(printable(value))


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4g}"


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
