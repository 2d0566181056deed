"""The report page: one HTML file that needs nothing but itself.

Invariant: the page is a pure function of its values, so equal studies give equal bytes. Every text of a stranger is
escaped by the template, also inside pictures and embedded data; the page's policy lets no script, style or request
through but the two that it carries itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from steer_eval.claims.verdict import WORDS
from steer_eval.drawing import scale
from steer_eval.findings import SEVERITIES
from steer_eval.formats.atomic import write_text
from steer_eval.formats.manifest import check_manifest, write_manifest
from steer_eval.report_cells import Cell, LabelledFile, Sweep
from steer_eval.report_data import Page, load_run
from steer_eval.report_pictures import feature_picture, pictures, transfer_picture
from steer_eval.report_words import facts, signed
from steer_eval.repository import Repository
from steer_eval.resources import folder

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
_ALWAYS = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
# Control characters, lone halves of surrogate pairs, and what reorders the text around it.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


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
    described = _described(page)
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
            measures=sorted({verdict.measure for verdict in page.verdicts if verdict.measure}),
            rules=sorted({finding.rule for finding in page.findings}),
            rerun=any(check.evidence == "re-run" and check.observed is not None for check in _checks(page)),
            pictures={sweep.identity: list(pictures(sweep, page.collapse_ratio)) for sweep in page.sweeps},
            features=[feature_picture(features) for features in page.features],
            transfers=[(transfer, transfer_picture(transfer)) for transfer in page.transfers],
            prompts={prompt: number for number, prompt in enumerate(prompts)},
            pair=pair,
            names={identity: cell["name"] for identity, cell in described.items()},
            pairs=list(aligned(*pair)) if pair else [],
            data=embedded({"cells": described}),
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
            # Without a control, the cell that is steered least.
            least = sorted(among, key=lambda cell: math.inf if cell.ratio is None else cell.ratio)
            return next((cell for cell in [*controls, *least] if cell is not right), right), right
    return speaking[0], speaking[-1]


def aligned(left: Cell, right: Cell) -> Iterator[tuple[str, str | None, str | None]]:
    """The texts of two cells side by side, by prompt; None where a cell has none."""
    first, second = ({text.prompt: text.gen for text in cell.texts} for cell in (left, right))
    for prompt in {**first, **second}:
        yield prompt, first.get(prompt), second.get(prompt)


def _described(page: Page) -> dict[str, dict[str, Any]]:
    """What the script needs to know of each cell; the texts themselves stand in the page."""
    parts: tuple[Sweep | LabelledFile, ...] = (*page.sweeps, *page.labelled)
    return {
        cell.identity: {"name": f"{part.title}: {cell.name}", "facts": facts(cell)}
        for part in parts
        for cell in part.cells
    }


def _checks(page: Page) -> Iterator[Any]:
    return (check for verdict in page.verdicts for check in verdict.checks)


def _counted(words: Iterable[str], found: Iterable[str]) -> dict[str, int]:
    counts = Counter(found)
    return {word: counts[word] for word in words if word in counts}


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment(cards: Path) -> Environment:
    """The environment of the templates; compiling them takes longer than rendering a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(cards),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(value=_value, facts=facts, signed=signed)
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
