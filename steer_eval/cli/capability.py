"""`steer-eval capability`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.options import data_option, json_option, study_option, tell_which
from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from steer_eval.capability.source import Choice, Condition, Source

OURS = ("steer_eval_choices", "steer_eval_instructions")


@click.command("capability")
@click.argument("target", metavar="REPO|VECTOR", callback=tell_which)
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAMES",
    help="Tasks, groups or tags of lm-eval, with commas between them, or the option repeated; by default the two small "
    "ones that ship with the package, and the study's token perplexity.",
)
@click.option("--layer", type=click.IntRange(min=0), multiple=True, help="Layer to steer, from 0. Can be repeated.")
@click.option("--coef", type=float, multiple=True, help="Multiple of the vector. Can be repeated.")
@click.option(
    "--cells",
    type=click.Choice(["best", "claimed", "all"]),
    help="Which cells of the study, without --layer and --coef: the best by its judges and claims, those that claims "
    "name, or all; by default the best, or where there are none those that claims name.",
)
@click.option("--random", is_flag=True, help="Beside each cell a random direction of the vector's norm, as a control.")
@click.option("--model", metavar="NAME", help="Which model of the study, if it has several.")
@click.option("--base", metavar="REPO", help="For a vector file: the model to steer, if not the one that it names.")
@data_option
@study_option
@click.option("--limit", type=click.IntRange(min=1), help="Most documents of each task.")
@click.option("--num-fewshot", type=click.IntRange(min=0), help="Examples before each document, if the task has any.")
@click.option("--apply-chat-template", is_flag=True, help="Give every task the chat template, not only ours.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Rows of one batch. With 1 nothing is padded, and texts are exact.",
)
@click.option("--metadata", metavar="JSON", help="What tasks are told besides, as an object.")
@click.option(
    "--include-path",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with tasks of yours. Python files that they name are run.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run directory; by default runs/<study>-capability. Answers that it has are not asked for again.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, target: str, tasks: tuple[str, ...], json: bool, **options: Any) -> None:
    """Run lm-eval's tasks on the unsteered and the steered model: what does steering cost elsewhere?

    REPO is a model repo with a study, VECTOR one vector file, here or on the Hub. The model is loaded once. Values are
    lm-eval's, with standard errors; the difference from the unsteered model is paired by document. Results go to
    capability.json and capability_samples.jsonl in the run directory. The exit code is 1 if a metric is no finite
    number.

    \b
    Examples:
      steer-eval capability artifacts/smollm2-135m-mature-anger --layer 18 --coef 2
      steer-eval capability NAMESPACE/NAME --tasks arc_easy,hellaswag --cells best --limit 200 --random
      steer-eval capability vector.safetensors --base my-model --coef 1 --coef 4 --json
    """
    from steer_eval.capability.answers import opened_answers
    from steer_eval.capability.evaluate import Settings, answer_all, compare_all
    from steer_eval.capability.lm_eval_model import SteeredLM
    from steer_eval.capability.report import report_of, undefined, write_report
    from steer_eval.capability.source import open_source
    from steer_eval.capability.tasks import load_tasks, parse_metadata
    from steer_eval.cli.capability_output import print_capability
    from steer_eval.cli.output import print_json

    source = open_source(
        target,
        model=options["model"],
        base=options["base"],
        data=options["data"],
        study_file=options["study_file"],
    )
    conditions = _conditions(source, options)
    known = parse_metadata(options["metadata"])
    _tell(f"loading {source.name}")
    loaded = source.load()
    found = load_tasks(
        _names(tasks) or _default_tasks(source),
        metadata=_of_model(source, loaded.weights.folder) | known,
        include=options["include_path"],
        num_fewshot=options["num_fewshot"],
    )
    settings = Settings(options["limit"], options["batch_size"], options["apply_chat_template"])
    lm = SteeredLM(lm=loaded.lm, batch_size=settings.batch_size)
    for condition in conditions:
        lm.steered(condition.intervention)
    folder = options["run"] or Path("runs") / f"{_title(source)}-capability"
    with opened_answers(folder) as journal:
        answered = answer_all(lm, found, conditions, settings, journal, loaded.conditions, _tell)
        results = compare_all(found, answered[0], answered[1:])
        report = report_of(target, source, loaded, found, conditions, settings, answered, results)
        write_report(folder, report, found, conditions, answered, results)
    if json:
        print_json(report)
    else:
        print_capability(report, folder)
    ctx.exit(int(bool(undefined(results))))


def _names(tasks: tuple[str, ...]) -> list[str]:
    return [name.strip() for part in tasks for name in part.split(",") if name.strip()]


def _default_tasks(source: Source) -> list[str]:
    return [*OURS, *(["steer_eval_token_perplexity"] if source.corpus is not None else [])]


def _conditions(source: Source, options: dict[str, Any]) -> list[Condition]:
    from steer_eval.capability.source import BASE, cells_at, chosen_cells, random_control, steered

    choice: Choice | None = options["cells"]
    if options["layer"] or options["coef"]:
        if choice is not None:
            raise click.UsageError("--cells chooses among the study's cells: leave out --layer and --coef")
        layers = options["layer"] or ([source.layer] if source.layer is not None else [])
        cells = cells_at(source, layers, options["coef"])
    else:
        cells, words = chosen_cells(source, choice)
        shown = ", ".join(f"L={layer} c={coef:+g}" for layer, coef in cells)
        _tell(f"{words}: {shown}; choose with --layer, --coef or --cells")
    made = [steered(source, layer, coef) for layer, coef in cells]
    controls = [random_control(source, each) for each in made if options["random"] and each.coef != 0]
    return [BASE, *itertools.chain(made, controls)]


def _of_model(source: Source, tokenizer: Path) -> dict[str, Any]:
    """What tasks are told of the model and the study."""
    told: dict[str, Any] = {"tokenizer": str(tokenizer), "token_ids": True}
    if source.corpus is not None and source.study is not None:
        protocol = source.study.perplexity
        told |= {"corpus": str(source.corpus), "window": protocol.window, "beyond": protocol.beyond}
    return told


def _title(source: Source) -> str:
    return source.study.name if source.study is not None else source.name.rstrip("/").rsplit("/", 1)[-1]


def _tell(line: str) -> None:
    click.echo(printable(line), err=True)
