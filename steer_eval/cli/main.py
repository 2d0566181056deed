"""The `steer-eval` command.

Invariant: this module registers commands, sets what holds for all of them, and maps errors to exit codes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from keyword import iskeyword

import click

from steer_eval import __version__
from steer_eval.cli.printable import printable
from steer_eval.errors import SteerEvalError
from steer_eval.hub.limits import MAX_FILES, MAX_GIGABYTES, Limits, limits

COMMANDS = {
    "reproduce": "Check a study, recompute its claims, re-run it, and print one verdict per claim.",
    "audit": "Check every number of a text about a study against its data.",
    "validate": "Check the files of a study.",
    "card": "Render the cards of a study from its data.",
    "report": "Write one HTML page about a study or a run.",
    "extract": "Extract a study's steering vectors.",
    "sweep": "Measure a study's cells.",
    "compare": "Compare ways to steer a model, each beside its random control.",
    "judge": "Score the texts of a study's cells on a rubric.",
    "sae": "Train sparse autoencoders, and rank their features by what steering does to them.",
    "transfer": "Carry vectors from one model or layer to another, and measure how far that can be believed.",
    "capability": "Run lm-eval's tasks on the steered and the unsteered model, paired by document.",
    "generate": "Try vectors on a prompt, beside the unsteered answer.",
    "convert": "Convert a model repo of PyTorch files to safe formats, bit for bit.",
    "export": "Write vectors or an SAE as another tool loads them.",
    "import": "Take a control vector or an SAE of another tool into a model repo.",
    "publish": "Check a study, and push it to the Hub: dataset repo and model repo, each in one commit.",
    "pull": "Bring a study from the Hub here, as two plain folders.",
    "diff": "Show what differs between two studies, or two revisions of one.",
}

INTERRUPTED = 130


class _Commands(click.Group):
    """Commands that are imported when they are used: listing them costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        # A module can't be called `import`.
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = import_module(f"steer_eval.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands, context_settings={"auto_envvar_prefix": "STEER_EVAL", "help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="steer-eval")
@click.option(
    "--max-download",
    metavar="GB",
    type=click.FloatRange(min=0),
    default=MAX_GIGABYTES,
    show_default=True,
    help="Most that is fetched of one repo of the Hub; with more to fetch it is refused.",
)
@click.option(
    "--max-files",
    metavar="N",
    type=click.IntRange(min=1),
    default=MAX_FILES,
    show_default=True,
    help="Most files that a repo of the Hub may have.",
)
def cli(max_download: float, max_files: int) -> None:
    """Check, re-run and publish activation-steering studies.

    Every option is also read from the environment: --level of reproduce from STEER_EVAL_REPRODUCE_LEVEL, and so on.
    Exit codes: 0 good, 1 findings (a model that can't be run is one), 2
    the target can't be read, or no claim could be checked.

    \b
    Example:
      steer-eval reproduce artifacts/smollm2-135m-mature-anger
    """
    limits.set(Limits(max_files, max_download))


def main(shown: Callable[[str], str] = printable) -> None:
    """Run the command line and exit.

    Args:
        shown: How a message is shown.
    """
    try:
        sys.exit(cli(standalone_mode=False))
    except SteerEvalError as error:
        click.echo(shown(f"Error: {error.message}"), err=True)
        if error.fix:
            click.echo(shown(f"  To mend it: {error.fix}"), err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        # True of all: rows of a sweep, files of a pull and repos of a publication are each whole or not there.
        click.echo("\nInterrupted. What was finished is kept: the same command goes on from there.", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
