"""`hf steer`: steer-eval as an extension of the Hub's command line.

Invariant: the same commands as `steer-eval`. Only the name differs that they are shown with, since `hf` puts the
programs of an extension on nobody's path.
"""

from __future__ import annotations

import re
import sys

import click

from steer_eval.cli.main import COMMANDS
from steer_eval.cli.main import main as run
from steer_eval.cli.printable import printable

NAME = "hf steer"
_COMMAND_LINE = re.compile(rf"\bsteer-eval(?= (?:--|\.\.\.|(?:{'|'.join(COMMANDS)})\b))")


class _Formatter(click.HelpFormatter):
    """Help whose examples can be typed as they stand."""

    def getvalue(self) -> str:
        return renamed(super().getvalue())


def renamed(text: str) -> str:
    """A text with its command lines under the name that they have here.

    Args:
        text: A help page or a message.
    """
    return _COMMAND_LINE.sub(NAME, text)


def main() -> None:
    """Run the command line and exit."""
    click.Context.formatter_class = _Formatter
    # Click shows the name that the program was called by, and `hf` calls it by its path.
    sys.argv[0] = NAME
    run(lambda text: renamed(printable(text)))
