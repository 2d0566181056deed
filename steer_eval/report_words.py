"""What is known of a cell, in words.

Invariant: the page, its pictures and its script say the same of a cell, because they all take it from here.
"""

from __future__ import annotations

from steer_eval.report_cells import Cell, Score


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
    margin = "no margin" if score.margin is None else f"margin {signed(score.margin)}"
    axes = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in score.axes.items())
    marks = [*(["best"] if score.best else []), *(["no text to judge"] if score.imputed else [])]
    return f"{score.judge}: {margin} ({axes})" + "".join(f", {mark}" for mark in marks)


def signed(number: float | None) -> str:
    """A number with its sign, which zero has none of."""
    return "–" if number is None else f"{number:+g}" if number else "0"
