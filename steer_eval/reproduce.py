"""Reproducing a study: check its files, recompute its claims, run it again.

Invariant: each level includes the ones before it. What a level could not do is said in the report, and never turns a
checked claim into an unchecked one. The run directory is a dataset repo whose results are read by the same code as the
published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from steer_eval.audit import Audit, Coverage, audit_text
from steer_eval.cards import DATASET_CARD, MODEL_CARD, render_data_repo, render_model_repo, write_rendered
from steer_eval.cells import Cell, plan, wants_text
from steer_eval.claims.measures import REGISTRY, Needs
from steer_eval.claims.ties import tie_warnings
from steer_eval.claims.verdict import FAILING, NO_RERUN, Rerun, Verdict, judge, judge_text, needs
from steer_eval.digest import sha256_file, sha256_value
from steer_eval.environment import Environment
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.estimate import estimate, machine_flops, machine_gigabytes, why_left_out
from steer_eval.findings import Finding
from steer_eval.formats import schema
from steer_eval.formats.containment import inside, is_inside
from steer_eval.formats.manifest import write_manifest
from steer_eval.formats.strict_json import MAX_FILE_BYTES, read_json, write_json
from steer_eval.formats.text import read_text
from steer_eval.legacy_cards import write_beside
from steer_eval.measure import Bench, measure, settle_text
from steer_eval.produce import LoadedModel, bench, copy_data, environment_record, produce_vectors
from steer_eval.progress import progress_bar
from steer_eval.published import published_results
from steer_eval.repository import Repositories, StudyRepositories
from steer_eval.results import Results, Sweep
from steer_eval.results_files import ENVIRONMENT, load_results, sweep_file, vector_path, write_environments, write_sweep
from steer_eval.run import Journal, opened_run
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study
from steer_eval.validate import Validation, validate

Level = Literal["check", "recompute", "rerun"]
LEVELS: tuple[Level, ...] = ("check", "recompute", "rerun")
CellChoice = Literal["claimed", "all"]
MAX_MINUTES = 60.0

REPORT = "report.json"
REPORT_SCHEMA = "steer-eval/report/1"
RUN_MODEL_CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Report:
    """What a reproduction found (`schemas/report.schema.json`)."""

    repo: str
    data: str | None
    revision: str | None
    requested: Level
    reached: Level
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    run: Path
    environments: dict[str, Environment]
    recorded: dict[str, Environment]
    resumed: int = 0
    data_revision: str | None = None
    coverage: Coverage | None = None
    judging: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        same = _same_machine_class(self.environments, self.recorded)
        known = [value for value in same.values() if value is not None]
        return {
            "schema": REPORT_SCHEMA,
            "repo": self.repo,
            "data": self.data,
            "revision": self.revision,
            "data_revision": self.data_revision,
            "level": {"requested": self.requested, "reached": self.reached},
            "findings": [finding.to_json() for finding in self.findings],
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            **({} if self.coverage is None else {"coverage": self.coverage.to_json()}),
            **({} if self.judging is None else {"judging": dict(self.judging)}),
            "run": {
                "folder": str(self.run),
                "resumed": self.resumed,
                "environment": {name: value.to_json() for name, value in self.environments.items()} or None,
                "recorded_environment": {name: value.to_json() for name, value in self.recorded.items()} or None,
                "same_machine_class": all(known) if known else None,
            },
        }

    def exit_code(self, *, strict: bool) -> int:
        """0 good, 1 findings, 2 no claim could be checked."""
        words = {verdict.word for verdict in self.verdicts}
        if self.requested != "check" and words and words <= {"not-checkable"}:
            return 2
        severities = {finding.severity for finding in self.findings}
        bad = bool(words & FAILING) or "error" in severities
        unchecked = self.requested != "check" and "not-checkable" in words
        return int(bad or (strict and ("warning" in severities or unchecked)))


def default_run_folder(repositories: StudyRepositories, command: str) -> Path:
    """`runs/<study>-<key>`, where the key changes with the command, the study, its vectors and its texts."""
    study = repositories.study
    data, model = repositories.data.folder, repositories.model.folder
    inputs = [(data, file) for file in (study.extraction.pairs, study.sweep.prompts, study.perplexity.corpus)]
    inputs += [(model, vector_path(model, name, layer)) for name in study.models for layer in study.vector_layers(name)]
    digests = [
        sha256_file(repo / file) if is_inside(repo, file) and (repo / file).is_file() else None for repo, file in inputs
    ]
    key = sha256_value({"command": command, "study": study.text, "inputs": digests})
    return Path("runs") / f"{study.name}-{key[:12]}"


def reproduce(
    repositories: StudyRepositories,
    *,
    level: Level,
    cells: CellChoice,
    run: Path,
    max_minutes: float = MAX_MINUTES,
    judge_kind: str = "recorded",
    tell: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Reproduce a study.

    Args:
        repositories: The study and its repos.
        level: How far to go: `check` the files, `recompute` claims from published data, `rerun` on the models.
        cells: Which cells to run again: those that claims need, or the whole sweep.
        run: The run directory.
        max_minutes: Models that would take longer, all together, are left out of a re-run.
        judge_kind: Who will judge the texts of a re-run, as it is told; `recorded` for nobody.
        tell: Takes what a re-run needs, line by line, before it starts.

    Returns:
        The report, which is also in the run directory.
    """
    study = repositories.study
    refuse_folder(repositories, level, run)
    validation = validate(repositories)
    findings = list(validation.findings)
    published = published_results(repositories, validation)
    audit = _audit(repositories, validation) if repositories.words and level != "check" else None
    findings += audit.findings if audit else ()
    rerun: Rerun | None = None
    environments: dict[str, Environment] = {}
    with opened_run(run, study.text) as journal:
        # Without a re-run, the published measurements are what the cards in the run directory are rendered from.
        measured = [] if level == "rerun" else [ENVIRONMENT, *(sweep_file(model) for model in study.models)]
        copy_data(study, repositories.data.folder, run, files=measured)
        if level == "rerun":
            budget = _Budget(max_minutes, tell, judge_kind)
            environments, trouble = _rerun(repositories, published, cells, run, journal, budget)
            findings += trouble
            if environments:
                again = _only(load_results(study, model_repo=run, data_repo=run), set(environments))
                rerun = Rerun(again, _same_machine_class(environments, dict(published.environments)))
        why_no_rerun = NO_RERUN[level == "rerun"]
        verdicts = judge(study, published, rerun, why_no_rerun=why_no_rerun) if level != "check" else ()
        # The study of a repo that has none stands in the run directory.
        place = STUDY_FILE if repositories.words else f"{repositories.model.name}/{STUDY_FILE}"
        findings += tie_warnings(verdicts, study, published, place)
        if audit:
            verdicts += judge_text(audit.verdicts, study, published, rerun, why_no_rerun=why_no_rerun)
        if repositories.words:
            # Our cards describe files that we wrote; these are another's.
            write_beside(repositories, validation, run)
        else:
            _write_cards(study, published if rerun is None else rerun.results, run)
        report = Report(
            repo=repositories.model.name,
            data=repositories.data.name,
            revision=repositories.model.revision,
            data_revision=repositories.data.revision,
            requested=level,
            reached="recompute" if level == "rerun" and rerun is None else level,
            findings=tuple(findings),
            verdicts=verdicts,
            run=run,
            environments=environments,
            recorded=dict(published.environments),
            resumed=len(journal) - journal.added if level == "rerun" else 0,
            coverage=audit.coverage if audit else None,
        )
        document = report.to_json()
        schema.check(document, "report", file=REPORT)
        write_json(run / REPORT, document)
        write_manifest(run)
    return report


def _write_cards(study: Study, shown: Results, run: Path) -> None:
    """Both cards, rendered from what was measured."""
    cards = render_model_repo(study, shown)
    write_rendered(run, {RUN_MODEL_CARD if path == DATASET_CARD else path: text for path, text in cards.items()})
    write_rendered(run, render_data_repo(study, shown))


def _audit(repositories: StudyRepositories, validation: Validation) -> Audit | None:
    """The audit of the repo's own card; None where it has none, which is a finding elsewhere."""
    name = f"{repositories.model.name}/{MODEL_CARD}"
    try:
        text = read_text(inside(repositories.model.folder, MODEL_CARD, name=name), name, limit=MAX_FILE_BYTES)
    except FormatError:
        return None
    return audit_text(text, name, validation.inventory, validation.findings)


def refuse_folder(repositories: Repositories | StudyRepositories, level: Level, run: Path) -> None:
    """Refuse to write a run into a repo of the study, or over one that went further.

    Raises:
        SteerEvalError: The folder can't be the run directory.
    """
    target = run.resolve()
    for repo in (repositories.model, repositories.data):
        if repo is None:
            continue
        folder = repo.folder.resolve()
        if target == folder or target in folder.parents or folder in target.parents:
            raise SteerEvalError(f"the run directory {run} and {repo.name} overlap", "give another folder with --run")
    if not (run / REPORT).exists():
        return
    report: Any = read_json(run / REPORT, name=str(run / REPORT))
    schema.check(report, "report", file=str(run / REPORT))
    before = report["level"]["requested"]
    if LEVELS.index(before) > LEVELS.index(level):
        raise SteerEvalError(
            f"{run} holds a run of level {before}, which one of level {level} would overwrite",
            "give another folder with --run",
        )


def _only(results: Results, models: set[str]) -> Results:
    """Results of some models: what an earlier run left of the others is no evidence of this one."""
    return replace(
        results,
        sweeps={model: sweep for model, sweep in results.sweeps.items() if model in models},
        vectors={key: vector for key, vector in results.vectors.items() if key[0] in models},
    )


@dataclass
class _Budget:
    """What a re-run may take, and whom to tell what it needs."""

    minutes: float
    tell: Callable[[str], None]
    judge_kind: str


def _rerun(
    repositories: StudyRepositories, published: Results, cells: CellChoice, run: Path, journal: Journal, budget: _Budget
) -> tuple[dict[str, Environment], list[Finding]]:
    """Measure each model again into the run directory; one that can't be run, or would take too long, is a finding."""
    study = repositories.study
    wanted = needs(study, study.claims)
    chosen = {name: _chosen(repositories, name, wanted, cells) for name in study.models}
    records: dict[str, dict[str, Any]] = {}
    left_out = _left_out(repositories, published, chosen, budget)
    findings = list(left_out.values())
    for name, reference in study.models.items():
        if name in left_out:
            continue
        try:
            model = LoadedModel(reference, repositories.model.folder)
            _rerun_model(repositories, published, model, chosen[name], run, journal)
            records[name] = environment_record(model)
        except SteerEvalError as error:
            findings.append(Finding("model-not-run", "error", name, "", error.message, fix=error.fix))
    if records:
        write_environments(run, records)
    return {name: Environment.from_json(record) for name, record in records.items()}, findings


def _left_out(
    repositories: StudyRepositories, published: Results, chosen: Mapping[str, _Chosen], budget: _Budget
) -> dict[str, Finding]:
    """Models that this machine can't run in the time there is, smallest first; tells what each of them needs."""
    study = repositories.study
    flops, memory = machine_flops(), machine_gigabytes()
    estimates = [
        estimate(study, study.models[name], what.cells, what.text, published, flops=flops)
        for name, what in chosen.items()
    ]
    findings = {}
    left = budget.minutes
    total = math.ceil(sum(each.minutes or 0.0 for each in estimates))
    for wanted in sorted(estimates, key=lambda each: each.minutes or 0.0):
        reason = why_left_out(wanted, minutes_left=left, gigabytes=memory)
        budget.tell(f"{wanted}{f': left out, {reason}' if reason else ''}")
        if reason:
            fix = f"on a machine with enough memory: {_command(repositories, total)}" if wanted.minutes else ""
            message = f"{wanted.base_model} was not run: {reason}"
            findings[wanted.model] = Finding("model-left-out", "warning", wanted.model, "", message, fix=fix)
        else:
            left -= wanted.minutes or 0.0
    if budget.judge_kind != "recorded":
        budget.tell(f"judges: {budget.judge_kind}, after the re-run: published texts first, then the new ones")
    elif any(REGISTRY[claim.measure].unit == "score" for claim in study.claims if claim.measure in REGISTRY):
        budget.tell("judges: no calls; their published scores are checked, not made again")
    return findings


def _command(repositories: StudyRepositories, minutes: int) -> str:
    """The command that runs all models of a study again."""
    study = f" --study {repositories.study.name}" if repositories.words else ""
    where = f"{repositories.model.name} --data {repositories.data.name}{study}"
    return f"steer-eval reproduce {where} --max-minutes {minutes}"


@dataclass(frozen=True)
class _Chosen:
    """What to measure again on one model."""

    cells: tuple[Cell, ...]
    text: tuple[Cell, ...]
    layers: tuple[int, ...]


def _chosen(repositories: StudyRepositories, model: str, wanted: Needs, cells: CellChoice) -> _Chosen:
    study = repositories.study
    planned = plan(study, model)
    if cells == "all":
        speaking = tuple(cell for cell in planned if wants_text(study, cell))
        return _Chosen(tuple(planned), speaking, study.vector_layers(model))
    # The zero control carries the unsteered model's sums, on which all ratios rest.
    chosen = tuple(cell for cell in planned if cell in wanted.perplexity or cell in wanted.text or cell.label == "zero")
    layers = tuple(layer for layer in study.vector_layers(model) if (model, layer) in wanted.vectors)
    return _Chosen(chosen, tuple(cell for cell in planned if cell in wanted.text), layers)


def _rerun_model(
    repositories: StudyRepositories,
    published: Results,
    model: LoadedModel,
    chosen: _Chosen,
    run: Path,
    journal: Journal,
) -> None:
    study = repositories.study
    if chosen.layers and published.pairs is not None:
        produce_vectors(study, model, published.pairs, chosen.layers, run)
    # Cells are steered with the published vectors: a claim about a cell is about those.
    place = bench(study, model, published, journal)
    rows = measure(place, chosen.cells, chosen.text)
    name = model.reference.name
    if name in published.sweeps and _settle(place, Sweep(sweep_file(name), tuple(rows)), published.sweeps[name]):
        rows = measure(place, chosen.cells, chosen.text)
    write_sweep(run, name, rows)


def _settle(place: Bench, again: Sweep, published: Sweep) -> bool:
    """Generate texts that differ from the published ones again on the serial path; says whether there were any."""
    differing: list[tuple[Cell, str]] = []
    for row in again.rows:
        before = published.find(row.cell)
        known = {text.prompt_idx: text for text in before.generations} if before else {}
        differing += [
            (row.cell, text.prompt)
            for text in row.generations
            if text.prompt_idx in known and text.path is None and text.gen != known[text.prompt_idx].gen
        ]
    if differing:
        with progress_bar(f"differing texts, serially {place.model}", len(differing)) as advance:
            for cell, prompt in differing:
                settle_text(place, cell, prompt)
                advance(1)
    return bool(differing)


def _same_machine_class(
    environments: dict[str, Environment], recorded: dict[str, Environment]
) -> dict[str, bool | None]:
    return {
        name: recorded[name].machine_class == now.machine_class if name in recorded else None
        for name, now in environments.items()
    }
