"""Recomputing the claims of a card, for repos without a study.

Invariant: what a repo's own words claim is checked against its own data; nothing is run. The run directory holds the
report, the card with its verdicts, and both cards as the data gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from steer_eval.annotate import annotated
from steer_eval.audit import Audit, Coverage, Evidence
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding
from steer_eval.formats import schema
from steer_eval.formats.atomic import write_text
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import MAX_FILE_BYTES, write_json
from steer_eval.formats.text import read_text
from steer_eval.legacy_cards import write_beside
from steer_eval.repository import Repositories, shipped_studies
from steer_eval.reproduce import REPORT, Level, Report, refuse_folder
from steer_eval.validate import validate

CARD = "README.md"
RESULTS = ".eval_results"
ANNOTATED = "README.audited.md"


def default_audit_folder(repositories: Repositories) -> Path:
    """`runs/<repo>-audit`: an audit is quick, so that it is simply made again."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", repositories.model.title.lower())
    return Path("runs") / f"{name}-audit"


def recompute(repositories: Repositories, *, level: Level, run: Path) -> Report:
    """Check a repo's files, and recompute the claims of its card from the published data.

    Args:
        repositories: The repos.
        level: How far to go; a re-run needs a study.
        run: The run directory.

    Raises:
        SteerEvalError: The repo has no card, or the run directory can't be used.
    """
    refuse_folder(repositories, level, run)
    validation = validate(repositories)
    findings = list(validation.findings)
    audits: list[Audit] = []
    if level != "check":
        name = f"{repositories.model.name}/{CARD}"
        try:
            text = read_text(inside(repositories.model.folder, CARD, name=name), name, limit=MAX_FILE_BYTES)
        except FormatError as error:
            raise SteerEvalError(f"there is neither a study.yaml nor a card to check: {error.message}") from None
        evidence = Evidence.of(validation.inventory, validation.findings)
        card = evidence.audit(text, name)
        write_text(run / ANNOTATED, annotated(text, card))
        audits = [card, *_of_results(repositories, evidence)]
        findings += [finding for audit in audits for finding in audit.findings]
    if level == "rerun":
        message = "the repo has no study.yaml, which a re-run needs: it says how texts and perplexities were measured"
        shipped = ", ".join(shipped_studies())
        fix = f"write one (docs/study-format.md), or name one that ships with --study: {shipped}"
        findings.append(
            Finding("study-absent", "warning", f"{repositories.model.name}/study.yaml", "", message, fix=fix)
        )
    if audits and repositories.data is not None:
        write_beside(repositories, validation, run)
    report = Report(
        repo=repositories.model.name,
        data=repositories.data.name if repositories.data else None,
        revision=repositories.model.revision,
        data_revision=repositories.data.revision if repositories.data else None,
        requested=level,
        reached="recompute" if level == "rerun" else level,
        findings=tuple(findings),
        verdicts=tuple(verdict for audit in audits for verdict in audit.verdicts),
        run=run,
        environments={},
        recorded={},
        coverage=sum((audit.coverage for audit in audits), Coverage(0, 0, 0)) if audits else None,
    )
    document = report.to_json()
    schema.check(document, "report", file=REPORT)
    write_json(run / REPORT, document)
    return report


def _of_results(repositories: Repositories, evidence: Evidence) -> Iterator[Audit]:
    """Audits of the files in which the Hub looks for results; one that can't be read is a finding of the check."""
    folder = repositories.model.folder
    for path in sorted((folder / RESULTS).glob("*.yaml")):
        relative = path.relative_to(folder).as_posix()
        name = f"{repositories.model.name}/{relative}"
        with suppress(FormatError):
            text = read_text(inside(folder, relative, name=name), name, limit=MAX_FILE_BYTES)
            yield evidence.audit_results(text, name)
