"""Folders that were pulled from the repo that they are published to.

Invariant: what somebody pushed after a folder was pulled is reported before anything is pushed over it. A folder that
was not pulled has no record, and nothing is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from steer_eval.digest import sha256_file
from steer_eval.findings import Finding, Severity
from steer_eval.hub.address import HubAddress
from steer_eval.publish.plan import RepoPlan
from steer_eval.publish.stage import StagedRepo
from steer_eval.pull import read_origin, record


def behind(plan: RepoPlan, folder: Path, severity: Severity) -> Iterator[Finding]:
    """What the Hub has that the folder has not seen.

    Args:
        plan: What publishing changes in one repo.
        folder: The user's folder.
        severity: How bad that is for the model repo. For the dataset repo it is a warning: what is pulled of it is the
            commit that the model repo pins.

    Yields:
        A finding if the repo is another commit than the one that was pulled, or last published from the folder.
    """
    origin = read_origin(folder)
    head = plan.remote.head
    if origin is None or (origin.repo, origin.kind) != (plan.repo, plan.kind) or not plan.changes_files:
        return
    if head in (None, origin.revision, origin.published):
        return
    known = origin.published or origin.revision
    severity = "warning" if plan.kind == "dataset" else severity
    message = "somebody pushed to the repo since this folder was pulled, and what differs would be replaced"
    old, new = HubAddress(plan.repo, plan.kind, known).uri, HubAddress(plan.repo, plan.kind).uri
    fix = f"see it with `steer-eval diff {old} {new}`; `steer-eval pull` brings it here, or beside this with --to"
    yield Finding("publish-behind", severity, plan.repo, "", message, known, head, fix)


def remember(plan: RepoPlan, folder: Path, staged: StagedRepo, commit: str) -> None:
    """Record what was published from a folder in it, if it was pulled from the same repo.

    Args:
        plan: The plan that was carried out.
        folder: The user's folder.
        staged: What was published of it.
        commit: The commit.
    """
    origin = read_origin(folder)
    if origin is None or (origin.repo, origin.kind) != (plan.repo, plan.kind):
        return
    # Files that were rendered anew for the Hub are not those of the folder; the next pull brings them.
    same = {
        path: digest
        for path in staged.paths()
        if (folder / path).is_file() and sha256_file(folder / path) == (digest := sha256_file(staged.folder / path))
    }
    record(folder, replace(origin, files={**origin.files, **same}, published=commit))
