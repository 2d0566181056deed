"""`steer-eval generate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.options import json_option, tell_which
from steer_eval.cli.printable import printable
from steer_eval.errors import SteerEvalError

if TYPE_CHECKING:
    from steer_eval.model import LanguageModel
    from steer_eval.trial import Answer, Trial
    from steer_eval.trial_target import Target
    from steer_eval.weights import Weights

COLUMN = 36
"""Narrowest column, in characters, in which a text reads well."""
GAP = 4
"""Room between two columns."""


class _Line(click.types.StringParamType):
    """A text; in an environment variable, which can hold several, each line is one."""

    envvar_list_splitter = "\n"


@click.command("generate")
@click.argument("target", callback=tell_which)
@click.option(
    "--prompt",
    type=_Line(),
    multiple=True,
    required=True,
    metavar="TEXT",
    help="What the user says; - reads it from standard input. Repeat it for several prompts.",
)
@click.option(
    "--coef",
    type=float,
    multiple=True,
    default=(1.0,),
    show_default=True,
    help="Multiple of the vector that is added. Repeat it for several.",
)
@click.option(
    "--layer",
    type=click.IntRange(min=0),
    multiple=True,
    help="Layer to steer, from 0; by default a vector file's own, or the middle one of a study. Repeat it for several.",
)
@click.option("--model", metavar="NAME", help="Which model of the study, if it has several.")
@click.option(
    "--base",
    metavar="REPO",
    help="For a vector file: the model to steer, a folder or NAMESPACE/NAME[@REVISION]; by default the one it names.",
)
@click.option("--system", metavar="TEXT", help="System prompt; by default the chat template's own.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=80, show_default=True, help="Longest answer.")
@json_option
def command(
    target: str,
    prompt: tuple[str, ...],
    coef: tuple[float, ...],
    layer: tuple[int, ...],
    model: str | None,
    base: str | None,
    system: str | None,
    max_new_tokens: int,
    json: bool,
) -> None:
    """Try vectors on a prompt: the unsteered answer, and one for each layer and coefficient, side by side.

    TARGET is a model repo with a study (a folder, or a Hub repo as NAMESPACE/NAME[@REVISION]), or one vector file, here
    or on the Hub (hf://NAMESPACE/NAME/PATH): a .safetensors file that `steer-eval extract` wrote, or a .pt file of
    contrastive activation addition. Of a Hub repo only the vectors are fetched. Decoding is greedy.

    \b
    Examples:
      steer-eval generate artifacts/smollm2-135m-mature-anger --prompt "You lost my order again." --layer 18 --coef 2
      steer-eval generate vector.safetensors --base my-model --coef 1 --coef 2 --prompt - < prompt.txt
    """
    from steer_eval.cli.output import print_json
    from steer_eval.model import load_model
    from steer_eval.progress import progress_bar
    from steer_eval.trial import Trial, answer, requests
    from steer_eval.trial_target import file_target, is_vector_file, study_target

    texts = tuple(_standard_input() if text == "-" else text for text in prompt)
    if is_vector_file(target):
        if model is not None:
            raise click.UsageError(f"--model chooses among the models of a study, but {target} is a vector file")
        found = file_target(target, base=base, layers=layer)
    else:
        if base is not None:
            raise click.UsageError(f"--base is for a vector file; a study like {target} names its models itself")
        found = study_target(target, model=model, layers=layer)
    vectors = {placed.layer: placed.vector for placed in found.placed}
    trial = Trial(texts, vectors, tuple(dict.fromkeys(coef)), max_new_tokens, system)
    _tell(found.default, f"loading {found.name}")
    weights = _fetch(found)
    _tell(*dict.fromkeys(_other_weights(found, weights)))
    lm = load_model(weights.folder, dtype=found.reference.dtype, chat_template=found.reference.chat_template)
    rows = requests(trial, lm, model=found.name)
    with progress_bar("answers", len(rows)) as advance:
        answers = answer(trial, lm, rows, model=found.name, on_rows=advance)
    if json:
        print_json(_to_json(target, found, weights, lm, trial, answers))
    else:
        _print_answers(found, weights, lm, trial, answers)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SteerEvalError("standard input is not UTF-8 text", "give the prompt in UTF-8") from None


def _fetch(found: Target) -> Weights:
    from steer_eval.weights import fetch

    try:
        return fetch(found.reference, study_folder=found.folder)
    except SteerEvalError as error:
        if not found.named_by_file:
            raise
        raise SteerEvalError(error.message, f"{error.fix}, or name a copy of the model with --base") from error


def _tell(*lines: str) -> None:
    for line in filter(None, lines):
        click.echo(printable(line), err=True)


def _other_weights(found: Target, weights: Weights) -> list[str]:
    return [
        f"warning: {placed.file} was extracted from other weights than those of {found.name} ({weights.revision})"
        for placed in found.placed
        if placed.is_of(weights) is False
    ]


def _to_json(
    target: str,
    found: Target,
    weights: Weights,
    lm: LanguageModel,
    trial: Trial,
    answers: Sequence[Sequence[Answer]],
) -> dict[str, Any]:
    from steer_eval.digest import sha256_vector

    return {
        "schema": "steer-eval/generate/1",
        "target": target,
        "model": {
            "name": found.name,
            "revision": weights.revision,
            "weights_sha256": weights.sha256,
            "dtype": lm.dtype,
            "device": lm.device.type,
        },
        "vectors": [
            {
                "layer": placed.layer,
                "file": placed.file,
                "norm": placed.vector.norm,
                "sha256": sha256_vector(placed.vector.values),
                "model": placed.model,
                "same_weights": placed.is_of(weights),
            }
            for placed in found.placed
        ],
        "system": trial.system,
        "max_new_tokens": trial.max_new_tokens,
        "prompts": [
            {"prompt": prompt, "answers": [each.to_json() for each in row]}
            for prompt, row in zip(trial.prompts, answers, strict=True)
        ],
    }


def _print_answers(
    found: Target, weights: Weights, lm: LanguageModel, trial: Trial, answers: Sequence[Sequence[Answer]]
) -> None:
    """Print each prompt, and below it its answers in as many columns as there is room for."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    facts = [f"{found.name} ({weights.revision}), {lm.dtype}"]
    facts += [f"layer {placed.layer}: {placed.file}, norm {placed.vector.norm:.4g}" for placed in found.placed]
    facts += [] if trial.system is None else [f"system prompt: {trial.system}"]
    for fact in facts:
        console.print(Text(printable(fact), "dim"), soft_wrap=True)
    columns = max(1, min(len(trial.variants), (console.width + GAP) // (COLUMN + GAP)))
    for prompt, row in zip(trial.prompts, answers, strict=True):
        console.print()
        console.print(Text(printable(f"> {prompt}"), "bold"))
        for start in range(0, len(row), columns):
            console.print()
            console.print(_panel(row[start : start + columns], columns, console.width, unsteered=row[0]))


def _panel(row: Sequence[Answer], columns: int, width: int, *, unsteered: Answer) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Between two columns the box has a space of its own.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0), show_footer=True)
    for each in row:
        # The width is that of a full row of columns, so that the columns of a shorter last row stand below others.
        table.add_column(
            Text(str(each.variant), "bold"),
            Text(_ending(each, unsteered), "dim"),
            width=(width + GAP) // columns - GAP,
            overflow="fold",
        )
    table.add_row(*(Text(printable(each.gen.strip())) for each in row))
    return table


def _ending(answer: Answer, unsteered: Answer) -> str:
    words = [f"{answer.n_tokens} token{'' if answer.n_tokens == 1 else 's'}"]
    if answer.stop == "length":
        words.append("cut off")
    if answer is not unsteered and answer.gen == unsteered.gen:
        words.append("same as unsteered")
    return f"[{', '.join(words)}]"
