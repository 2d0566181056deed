"""The templates of cards.

Invariant: a template meets no name that is not given (StrictUndefined), and what it writes is Markdown in which every
cell and line was made safe by a filter of `markdown`: nothing is escaped here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from steer_eval import markdown
from steer_eval.resources import folder

if TYPE_CHECKING:
    from jinja2 import Environment


def card_templates(**filters: Callable[..., Any]) -> Environment:
    """The environment of the templates in `cards/`; keep it, as compiling one takes longer than rendering a card.

    Args:
        filters: Those that only the templates of one kind of card use, by name.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Markdown for a card, not HTML: there is nothing to escape.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(folder("cards")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(line=markdown.line, cell=markdown.table_cell, **filters)
    return environment
