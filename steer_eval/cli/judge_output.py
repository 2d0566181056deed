"""What `steer-eval judge` prints for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_judging(report: Mapping[str, Any]) -> None:
    """Print the report of a judging run.

    Args:
        report: As `schemas/judging.schema.json` has it.
    """
    from rich.console import Console

    from steer_eval.cli.output import MIN_WIDTH

    console = Console(file=sys.stdout)
    console = console if console.is_terminal else Console(file=sys.stdout, width=MIN_WIDTH)
    for judge in report["judges"]:
        _print_judge(console, judge, report["rubric"])
    for comparison in report["agreement"]:
        title = f"{comparison['first']} and {comparison['second']} ({' and '.join(comparison['protocols'])})"
        _print_agreement(console, title, comparison["axes"])
    for drift in report["judge_drift"]:
        _print_agreement(
            console,
            f"judge drift: {drift['judge']} and published {drift['published']} on {drift['model']}",
            drift["axes"],
        )
    if report["generation_drift"] and not report["judge_drift"]:
        console.print("judge drift: unknown, because no scores of these axes were published", highlight=False)
    for drift in report["generation_drift"]:
        _print_agreement(console, f"generation drift: {drift['judge']} on published and new texts", drift["axes"])
        _print_equivalence(console, drift["cells"])
    imputed = sum(each["imputed"] for each in report["recorded"])
    if imputed:
        console.print(f"{imputed} published scores of cells without text are left out", highlight=False)
    cost = report["cost"]
    line = f"{cost['calls']} new calls, {cost['from_log']} replies from the log"
    if cost["tokens_in"] or cost["tokens_out"]:
        line += f"; {cost['tokens_in']} tokens in, {cost['tokens_out']} out"
    if cost["cost"] is not None:
        line += f"; {cost['cost']:.4g} at the given price"
    console.print(line, highlight=False)
    console.print(printable(f"scores, judgements, calls and judging.json: {report['folder']}"), markup=False)


def _print_judge(console: Console, judge: Mapping[str, Any], rubric: Mapping[str, Any]) -> None:
    from rich.text import Text

    from steer_eval.cells import Cell

    console.print(Text(printable(f"{judge['name']} ({judge['protocol']})"), "bold"))
    margin = ["margin", "95 % of its mean"] if rubric["margin"] else []
    table = _table("cell", [*rubric["axes"], *margin], ["unscored"])
    for score in judge["scores"]:
        cell = Cell(*(score[part] for part in ("model", "label", "layer", "coef", "variant")))
        values = [_number(score["scores"].get(axis)) for axis in rubric["axes"]]
        if rubric["margin"]:
            interval = score["intervals"].get("margin")
            values.append(_number(score["margin"]))
            values.append("–" if interval is None else f"{interval[0]:+.2f} … {interval[1]:+.2f}")
        why = ", ".join(f"{count} {reason}" for reason, count in score["unscored"].items())
        table.add_row(printable(str(cell)), *values, why)
    console.print(table)
    cells = judge["cells"]
    console.print(f"{cells['scored']} cells scored, {cells['unscored']} unscored", highlight=False)
    validation = judge["identity"].get("cross_validation")
    if validation:
        console.print(
            f"cross-validated accuracy of the classifier: {100 * validation['accuracy']:.1f} %", highlight=False
        )
    for axis, again in judge["retest"].items():
        console.print(
            f"asked again: {axis} differs by {again['mean']:.2f} on average, {again['largest']:g} at most "
            f"({again['n']} pairs)",
            highlight=False,
        )
    for axis, pair in judge["canaries"].items():
        if pair["obeyed"]:
            console.print(
                f"[bold red]{axis} rose from {pair['without']:g} to {pair['with']:g} because a text asked for it[/]"
            )
    for model, best in judge["best"].items():
        places = ", ".join(f"L={cell['layer']} c={cell['coef']:+g}" for cell in best["cells"])
        tie = " (tie)" if len(best["cells"]) > 1 else ""
        console.print(printable(f"best margin on {model}: {best['margin']:+g} at {places}{tie}"), highlight=False)
        for half in best["halves"]:
            chosen = ", ".join(f"L={cell['layer']} c={cell['coef']:+g}" for cell in half["chosen"])
            console.print(
                f"  chosen on one half of the prompts: {chosen} at {half['there']:+.2f}, on the other half "
                f"{half['elsewhere']:+.2f}",
                highlight=False,
            )


def _print_agreement(console: Console, title: str, axes: Sequence[Mapping[str, Any]]) -> None:
    from rich.text import Text

    console.print(Text(printable(title), "bold"))
    table = _table("axis", ["n", "kappa", "alpha", "Spearman", "exact", "within ½", "difference"])
    for each in axes:
        table.add_row(
            each["axis"],
            str(each["n"]),
            *(_decimal(each[key]) for key in ("kappa", "alpha", "spearman")),
            *(_share(each[key]) for key in ("exact", "within_half")),
            "–" if each["mean_difference"] is None else f"{each['mean_difference']:+.2f}",
        )
    console.print(table)


def _print_equivalence(console: Console, cells: Sequence[Mapping[str, Any]]) -> None:
    if not cells:
        return
    table = _table("cell", ["prompts", "difference", "90 % interval", "bound", "needed", "verdict"])
    for each in cells:
        where = "" if each["layer"] is None else f" L={each['layer']} c={each['coef']:+g}"
        interval = "–" if each["low"] is None else f"{each['low']:+.2f} … {each['high']:+.2f}"
        table.add_row(
            f"{each['model']} {each['label']}{where}",
            str(each["n"]),
            _decimal(each["mean"]),
            interval,
            f"±{each['bound']:g}",
            "–" if each["needed"] is None else str(each["needed"]),
            f"{each['verdict']}, same texts" if each["same_texts"] else each["verdict"],
        )
    console.print(table)


def _table(first: str, numbers: Sequence[str], texts: Sequence[str] = ()) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    for title in texts:
        table.add_column(title)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
