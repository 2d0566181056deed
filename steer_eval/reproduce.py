"""Reproducing a study: check its files, recompute its claims, run it again.

Invariant: each level includes the ones before it. What a level could not do is said in the report, and never turns a
checked claim into an unchecked one. The run directory is a dataset repo whose results are read by the same code as the
published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steer_eval.audit import Audit, Coverage, audit_text
from steer_eval.cards import DATASET_CARD, MODEL_CARD, render_data_repo, render_model_repo, write_rendered
from steer_eval.claims.measures import Needs
from steer_eval.claims.ties import tie_warnings
from steer_eval.claims.verdict import FAILING, NO_RERUN, Rerun, Verdict, judge, judge_text, needs
from steer_eval.digest import sha256_file, sha256_value
from steer_eval.environment import Environment
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding
from steer_eval.formats import schema
from steer_eval.formats.containment import inside, is_inside
from steer_eval.formats.manifest import write_manifest
from steer_eval.formats.strict_json import MAX_FILE_BYTES, read_json, write_json
from steer_eval.formats.text import read_text
from steer_eval.legacy_cards import write_beside
from steer_eval.published import published_results
from steer_eval.repository import Repositories, StudyRepositories
from steer_eval.results import Results
from steer_eval.results_files import ENVIRONMENT, comparison_file, load_results, sweep_file, vector_path
from steer_eval.run import copy_data, opened_run
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study
from steer_eval.validate import Validation, validate

if TYPE_CHECKING:
    from steer_eval.rerun import CellChoice

Level = Literal["check", "recompute", "rerun"]
LEVELS: tuple[Level, ...] = ("check", "recompute", "rerun")
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
        tables = [*map(sweep_file, study.models), *(comparison_file(plan.model) for plan in study.comparisons)]
        measured = [] if level == "rerun" else [ENVIRONMENT, *tables]
        copy_data(study, repositories.data.folder, run, files=measured)
        if level == "rerun":
            # Importing what runs models takes longer than a reproduction that does not.
            from steer_eval.remeasure import Remeasurement, everything_beside_cells
            from steer_eval.rerun import Budget, rerun_models

            budget = Budget(max_minutes, tell, judge_kind)
            wanted = needs(study, study.claims) | (everything_beside_cells(study) if cells == "all" else Needs())
            beside = Remeasurement(repositories, published, wanted, run, journal)
            environments, trouble = rerun_models(repositories, published, cells, run, journal, budget, wanted, beside)
            findings += trouble
            if environments:
                again = _only(beside.told(load_results(study, model_repo=run, data_repo=run)), set(environments))
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
        comparisons={model: rows for model, rows in results.comparisons.items() if model in models},
    )


def _same_machine_class(
    environments: dict[str, Environment], recorded: dict[str, Environment]
) -> dict[str, bool | None]:
    return {
        name: recorded[name].machine_class == now.machine_class if name in recorded else None
        for name, now in environments.items()
    }
