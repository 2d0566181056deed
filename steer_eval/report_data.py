"""What a report page shows, as plain values: verdicts and findings, and the raw data behind them.

Invariant: nothing is measured or judged here that is not measured or judged elsewhere; a value is only looked up, put
beside others and named. Of equal repos and equal runs the values are equal, wherever the folders stand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steer_eval import __version__
from steer_eval.audit import audit_text
from steer_eval.claims.extract.extracted import SAYS_WHERE
from steer_eval.claims.ties import tie_warnings
from steer_eval.claims.verdict import WORDS, judge
from steer_eval.claims.verdict import Verdict as Judged
from steer_eval.environment import Environment
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import SEVERITIES, Finding
from steer_eval.formats import schema
from steer_eval.formats.containment import inside
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.strict_json import read_json
from steer_eval.inventory import Inventory, Root, take_inventory
from steer_eval.published import published_results
from steer_eval.recompute import CARD
from steer_eval.report_cells import Cell, LabelledFile, Naming, Sweep, labelled_files, sweeps_of
from steer_eval.report_parts import Sae, Transfer, saes_of, transfers_of
from steer_eval.repository import Repositories, Repository, StudyRepositories, open_repository, open_target
from steer_eval.reproduce import REPORT
from steer_eval.results_files import read_environments
from steer_eval.rules.files import file_findings
from steer_eval.rules.sweep_files import COLLAPSE_RATIO, collapse_ratio_of, sweep_files
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study, load_study
from steer_eval.validate import validate

PAGE_SCHEMA = "steer-eval/report-page/1"
_TITLE = re.compile(r"^# (?P<words>.{1,200})$", re.MULTILINE)
_UNKNOWN = frozenset({"other", "json", "jsonl", "yaml", "figure"})
"""Kinds of files that say nothing of a study."""
PUBLISHED, RERUN = "published data", "re-run"


@dataclass(frozen=True)
class Fact:
    """One line of the page's head: what is known, and its values."""

    term: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """One comparison of a claim with evidence; the fields are those of `schemas/verdict.schema.json`."""

    evidence: str
    observed: float | bool | str | None
    tolerance: str
    verdict: str
    reason: str
    file: str
    where: str


@dataclass(frozen=True)
class Verdict:
    """What became of one claim.

    Args:
        identity: Its anchor in the page.
        id: Its name in the study.
        claim: The claim in words.
        file: Where it stands.
        line: Line in that file, where known.
        measure: What is measured.
        expected: The number as printed, or the truth value.
        verdict: The worst of the checks.
        checks: The checks.
    """

    identity: str
    id: str
    claim: str
    file: str
    line: int | None
    measure: str
    expected: str | bool
    verdict: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Features:
    """A feature table and where it stands."""

    identity: str
    file: str
    table: FeatureTable


@dataclass(frozen=True)
class Page:
    """Everything that the page shows.

    Args:
        title: What is studied.
        description: The study's own words; empty where there is no study.
        facts: Where the data comes from and what it was measured on.
        verdicts: One for each claim, the worst first.
        findings: What a check of the files found, the worst first.
        collapse_ratio: Perplexity ratio above which a cell counts as collapsed.
        sweeps: The cells of each model.
        labelled: Variants beside the sweeps.
        features: Feature tables.
        saes: SAEs with their quality.
        transfers: Transfers with their diagnostics.
    """

    title: str
    description: str
    facts: tuple[Fact, ...]
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    collapse_ratio: float
    sweeps: tuple[Sweep, ...]
    labelled: tuple[LabelledFile, ...]
    features: tuple[Features, ...]
    saes: tuple[Sae, ...] = ()
    transfers: tuple[Transfer, ...] = ()

    @property
    def cells(self) -> Iterator[Cell]:
        """All cells, in the order of the page."""
        parts: tuple[Sweep | LabelledFile, ...] = (*self.sweeps, *self.labelled)
        return (cell for part in parts for cell in part.cells)

    def to_json(self) -> dict[str, Any]:
        """The page as a JSON object."""
        findings = [finding.to_json() for finding in self.findings]
        return {"schema": PAGE_SCHEMA, **asdict(self), "findings": findings}


@dataclass(frozen=True)
class _Gathered:
    """What the two kinds of target have in common."""

    title: str
    study: Study | None
    facts: Sequence[Fact]
    verdicts: Iterable[Mapping[str, Any]]
    findings: Iterable[Finding]
    inventories: Mapping[str, Inventory]


def load_page(target: str, data: str | None = None, study: str | None = None) -> Page:
    """Read what a page on a target shows.

    Args:
        target: A run directory, or a model repo as a folder or on the Hub.
        data: Dataset repo; for a run directory the published one, which is then shown beside the run.
        study: Study file, or the name of one that ships, for a model repo that has none.

    Raises:
        SteerEvalError: The target can't be read, or a study is named for a run, which has its own.
    """
    if not is_run(Path(target)):
        return _page(_of_repo(open_target(target, data, study)))
    if study is not None:
        raise SteerEvalError(f"{target} is a run, which is of its own study", "leave out --study")
    return load_run(Path(target), [open_repository(data, "dataset")] if data else [])


def load_run(folder: Path, published: Sequence[Repository] = ()) -> Page:
    """Read what a page on a run shows.

    Args:
        folder: The run directory.
        published: The repos that were reproduced, whose data is shown beside the run's.

    Raises:
        FormatError: The run's report or study is bad.
    """
    return _page(_of_run(folder, published))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory that holds a report."""
    return (folder / REPORT).is_file()


def _of_run(folder: Path, published: Sequence[Repository]) -> _Gathered:
    report: Any = read_json(inside(folder, REPORT), name=REPORT)
    schema.check(report, "report", file=REPORT)
    # A run on a repo without a study has none either.
    study = load_study(folder / STUDY_FILE, name=STUDY_FILE) if os.path.lexists(folder / STUDY_FILE) else None
    again = report["level"]["reached"] == "rerun"
    kinds = _kinds(study)
    # The name of the folder says nothing of what is in it, and its place is nobody's business.
    roots = [(RERUN, Root(folder, "", "dataset", kinds))] if again or not published else []
    roots += [(PUBLISHED, Root(repo.folder, f"{repo.name}/", "dataset", kinds, repo.left)) for repo in published]
    roots = roots if again else [(PUBLISHED, root) for _, root in roots]
    run = report["run"] or {}
    level = report["level"]
    same = run.get("same_machine_class")
    facts = [
        Fact("model repo", (report["repo"],)),
        Fact("dataset repo", (report["data"] or "",)),
        Fact("revision", (report["revision"] or "", report.get("data_revision") or "")),
        Fact("level", (_level(level["requested"], level["reached"]),)),
        Fact("numbers of the card", (_coverage(**report["coverage"]) if "coverage" in report else "",)),
        *_machines("published data measured on", run.get("recorded_environment") or {}),
        *_machines("re-run on", run.get("environment") or {}),
        Fact("same machine class", ("" if same is None else "yes" if same else "no",)),
    ]
    findings = [Finding(**finding) for finding in report["findings"]]
    inventories = _inventories(roots)
    named = _heading(inventories[PUBLISHED]) if PUBLISHED in inventories else ""
    title = study.title if study else named or report["repo"].rstrip("/").rsplit("/", 1)[-1]
    found = [finding for inventory in inventories.values() for finding in file_findings(inventory)]
    return _Gathered(title, study, facts, _claims(report["verdicts"]), [*findings, *_new(findings, found)], inventories)


def _of_repo(target: Repositories | StudyRepositories) -> _Gathered:
    study, model, data = target.study, target.model, target.data
    validation = validate(target)
    if study is None and not any(each.kind not in _UNKNOWN for each in validation.inventory.artifacts):
        raise SteerEvalError(
            f"{model.name} has nothing to report on: no {STUDY_FILE}, no {CARD}, no vector, SAE, map or table",
            "name a model repo, or a run that `steer-eval reproduce` left, which has a report.json",
        )
    findings = list(validation.findings)
    verdicts: Sequence[Judged] = ()
    coverage = ""
    if isinstance(target, StudyRepositories):
        published = published_results(target, validation)
        verdicts = judge(target.study, published, None)
        place = STUDY_FILE if target.words else f"{model.name}/{STUDY_FILE}"
        findings += tie_warnings(verdicts, target.study, published, place)
    of_words = not isinstance(target, StudyRepositories) or target.words
    if of_words and (card := validation.inventory.named(CARD, "card")) is not None:
        # Without a study of its own, the claims of a repo are those of its card's words.
        audit = audit_text(card.value, card.file, validation.inventory, findings)
        findings += audit.findings
        verdicts = (*verdicts, *audit.verdicts)
        coverage = _coverage(**audit.coverage.to_json())
    recorded: dict[str, Any] = {}
    # A bad record is a finding of validation, an absent one leaves the head silent.
    with suppress(FormatError):
        recorded = read_environments((data or model).folder)
    facts = [
        Fact("model repo", (model.name,)),
        Fact("dataset repo", (data.name if data else "",)),
        Fact("revision", tuple(repo.revision or "" for repo in (model, data) if repo)),
        Fact("level", (_level("recompute" if verdicts else "check"),)),
        Fact("numbers of the card", (coverage,)),
        *_machines("published data measured on", recorded),
    ]
    title = study.title if study else _heading(validation.inventory) or model.title
    values = [verdict.to_json() for verdict in verdicts]
    return _Gathered(title, study, facts, _claims(values), findings, {PUBLISHED: validation.inventory})


def _heading(inventory: Inventory) -> str:
    """What a repo's card is headed, without markup; empty where there is none."""
    card = inventory.named(CARD, "card")
    heading = _TITLE.search(card.value) if card is not None and isinstance(card.value, str) else None
    return re.sub(r"[`*]", "", heading["words"]).strip() if heading else ""


def _claims(verdicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts without those of numbers that only say where something is, which the coverage counts."""
    return [verdict for verdict in verdicts if not any(check["reason"] == SAYS_WHERE for check in verdict["checks"])]


def _coverage(understood: int, numbers: int, places: int = 0) -> str:
    beside = f"; {places} more only say where something is" if places else ""
    return f"{understood} of {numbers} were understood{beside}"


def _level(requested: str, reached: str | None = None) -> str:
    words = {
        "check": "check: files only",
        "recompute": "recompute: claims from the published data",
        "rerun": "rerun: claims from the published data and on the models again",
    }
    shown = words[reached or requested]
    return shown if reached in (None, requested) else f"{shown} ({requested} was asked for)"


def _kinds(study: Study | None) -> dict[str, str]:
    if study is None:
        return {}
    return {
        study.extraction.pairs: "contrast_pairs",
        study.sweep.prompts: "eval_prompts",
        study.perplexity.corpus: "perplexity_corpus",
    }


def _machines(term: str, environments: Mapping[str, Any]) -> Iterator[Fact]:
    for model, record in environments.items():
        environment = Environment.from_json(record)
        versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
        name = f"{term}, {model}" if len(environments) > 1 else term
        yield Fact(name, (environment.machine_class, f"{environment.threads} threads", versions))


def _page(gathered: _Gathered) -> Page:
    study = gathered.study
    naming = Naming()
    sweeps: list[Sweep] = []
    labelled: list[LabelledFile] = []
    features: list[Features] = []
    saes: list[Sae] = []
    transfers: list[Transfer] = []
    collapse_ratio = study.sweep.collapse_ratio if study else None
    for source, inventory in gathered.inventories.items():
        files = sweep_files(inventory)
        collapse_ratio = collapse_ratio or collapse_ratio_of(files)
        # Where all was measured at one place, its name would only be noise.
        shown = source if len(gathered.inventories) > 1 else ""
        sweeps += sweeps_of(shown, inventory, files, study, naming)
        labelled += labelled_files(shown, inventory, naming)
        features += [
            Features(naming.anchor(f"features-{table.name}"), table.path, table.value)
            for table in inventory.of("features")
        ]
        saes += saes_of(shown, inventory, naming)
        transfers += transfers_of(shown, inventory, naming)
    facts = [*gathered.facts, Fact("page made by", (f"steer-eval {__version__}",))]
    known = [Fact(fact.term, tuple(filter(None, fact.values))) for fact in facts]
    return Page(
        title=gathered.title,
        description=study.description if study else "",
        facts=tuple(fact for fact in known if fact.values),
        verdicts=tuple(sorted(_verdicts(gathered.verdicts, naming), key=lambda each: WORDS.index(each.verdict))),
        findings=tuple(sorted(gathered.findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        collapse_ratio=collapse_ratio or COLLAPSE_RATIO,
        sweeps=tuple(sweeps),
        labelled=tuple(labelled),
        features=tuple(features),
        saes=tuple(saes),
        transfers=tuple(transfers),
    )


def _inventories(roots: Sequence[tuple[str, Root]]) -> dict[str, Inventory]:
    """What is at each place: vectors, features and scores of one study may stand in either of its repos."""
    sources = dict.fromkeys(source for source, _ in roots)
    return {source: take_inventory(root for each, root in roots if each == source) for source in sources}


def _new(known: Iterable[Finding], more: Iterable[Finding]) -> list[Finding]:
    """Findings that are not known yet, whatever the repo is called that the file stands in."""
    seen = {(finding.rule, finding.where, finding.message) for finding in known}
    return [finding for finding in more if (finding.rule, finding.where, finding.message) not in seen]


def _verdicts(values: Iterable[Mapping[str, Any]], naming: Naming) -> Iterator[Verdict]:
    for value in values:
        yield Verdict(
            naming.anchor(f"claim-{value['id']}"),
            value["id"],
            value["claim"],
            value["source"]["file"],
            value["source"]["line"],
            value["measure"],
            value["expected"],
            value["verdict"],
            tuple(Check(**check) for check in value["checks"]),
        )
