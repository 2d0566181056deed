"""Chat templates that a study brings along.

Invariant: a template is read, never run. Studies come from anybody, and what a template computes, even in constants
that a compiler would fold, has no bound.
"""

from __future__ import annotations

from steer_eval.errors import first_line


def syntax_error(template: str) -> str | None:
    """What makes a template unreadable.

    Args:
        template: A Jinja template, in the dialect of transformers: loops know `break` and `continue`, and
            `generation` blocks mark what the assistant says.

    Returns:
        The complaint, with its line where there is one; None for a template that can be read.
    """
    # Imported here: most studies have no template.
    from jinja2 import Environment, TemplateSyntaxError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it as an instance variable)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    dialect = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])  # noqa: S701
    try:
        dialect.parse(template)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "its expressions are nested too deeply"
    except ValueError as error:
        # jinja2 hands numbers to Python, which refuses those of thousands of digits.
        return first_line(error)
    return None
