"""`steer-eval judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steer_eval.cli.options import data_option, json_option, study_option
from steer_eval.cli.printable import printable

KINDS = ("api", "local", "probe", "recorded")


@click.command("judge")
@click.argument("target", metavar="RUN|REPO")
@click.option(
    "--judge",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    required=True,
    help="Who judges: an endpoint, a model on this machine, the offline classifier, or the published judges. Repeat it "
    "for several; those of one protocol form a panel.",
)
@data_option
@study_option
@click.option("--against", metavar="REPO", help="Published repo: its texts are judged first, and drift is told apart.")
@click.option(
    "--cells",
    type=click.Choice(["all", "sweep", "comparison"]),
    default="all",
    show_default=True,
    help="Whose texts: the cells of the sweep, the methods that `steer-eval compare` measured, or both.",
)
@click.option("--rubric", default="mature-anger", show_default=True, metavar="NAME|FILE", help="What to score on.")
@click.option(
    "--protocol",
    type=click.Choice(["paper-cell", "sample"]),
    help="All texts of a cell in one call, or one text and one axis; by default paper-cell for api, else sample.",
)
@click.option("--base-url", metavar="URL", help="OpenAI-compatible endpoint; its key comes from STEER_EVAL_JUDGE_KEY.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model of the endpoint, or the folder or Hub repo of a local judge. Repeat it for several judges.",
)
@click.option("--name", metavar="NAME", help="What files call the judge; by default made from --model.")
@click.option("--repeats", type=click.IntRange(min=1), help="How often each question is put; 3 for paper-cell, else 1.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of an earlier judging run: its replies are used, and no call is made.",
)
@click.option("--max-calls", type=click.IntRange(min=0), help="Stop before a run that needs more calls than this.")
@click.option("--max-cost", type=click.FloatRange(min=0), help="Stop before a run that may cost more than this.")
@click.option("--price-in", type=click.FloatRange(min=0), help="Price of a million prompt tokens.")
@click.option("--price-out", type=click.FloatRange(min=0), help="Price of a million reply tokens.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Calls at once.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds that a reply may take."
)
@click.option(
    "--fluency-model",
    metavar="NAME",
    help="Model by which the probe tells coherence: a folder, a study or a Hub repo; by default the study's own.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write; by default the run directory itself, or runs/<study>-judge for a repo.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, target: str, kinds: tuple[str, ...], json: bool, **options: Any) -> None:
    """Score the texts of a study's cells on a rubric.

    RUN|REPO is a run directory, or a model repo with a study: a folder, or a Hub repo as NAMESPACE/NAME[@REVISION].
    Every request and reply is kept in judging_calls.jsonl: a finished run is judged again for nothing, an interrupted
    one goes on, and --replay gives others the same scores without a key. The exit code is 1 if a cell is unscored.

    \b
    Examples:
      steer-eval judge artifacts/smollm2-135m-mature-anger --judge probe
      steer-eval judge my-study --judge probe --cells comparison
      steer-eval judge runs/my-run --judge api --base-url http://127.0.0.1:8080/v1 --model llama --max-calls 200
    """
    from steer_eval.cli.judge_output import print_judging
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import FILE as MANIFEST
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.judge.cache import opened_log
    from steer_eval.judge.cases import default_folder, open_case
    from steer_eval.judge.judging import has_findings, write_report
    from steer_eval.judge.judging_run import Choice, run_judges

    choice = Choice.of(kinds, options)
    case = open_case(target, options["data"], options["study_file"], choice.rubric)
    against = open_case(options["against"], None, options["study_file"], choice.rubric) if options["against"] else None
    if options["cells"] != "all":
        case = case.only(options["cells"])
        against = against.only(options["cells"]) if against else None
    out = options["out"] or default_folder(case)
    with opened_log(out, options["replay"]) as log:
        report = run_judges(case, against, choice, log, out, lambda line: click.echo(printable(line), err=True))
        write_report(out, report)
        if (out / MANIFEST).exists():
            write_manifest(out)
    if json:
        print_json(report)
    else:
        print_judging(report)
    ctx.exit(int(has_findings(report)))
