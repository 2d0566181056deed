"""What was pushed, downloaded again and checked.

Invariant: nothing of it comes from this machine: the files are fetched into an empty cache, at the commits that were
pushed, and are held to what the Hub lists, to their manifest and to the rules of `validate`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from steer_eval import __version__
from steer_eval.digest import git_blob_file, sha256_file
from steer_eval.findings import Finding
from steer_eval.formats.pin import DataPin, data_pin
from steer_eval.formats.strict_json import read_json
from steer_eval.hub.address import HubAddress, Kind
from steer_eval.hub.errors import hub_errors
from steer_eval.publish.remote import files_at, rights_for
from steer_eval.publish.scratch import scratch_folder
from steer_eval.repository import CONFIG, Repositories, Repository, StudyRepositories
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import load_study
from steer_eval.validate import validate


@dataclass(frozen=True)
class Verification:
    """What a check of pushed repos found.

    Args:
        files: How many files were downloaded.
        findings: The findings.
    """

    files: int
    findings: tuple[Finding, ...]


def verify(model: HubAddress, data: HubAddress) -> Verification:
    """Download two repos afresh and check them.

    Args:
        model: The model repo at the commit that was pushed.
        data: The dataset repo at the commit that was pushed.

    Raises:
        HubError: The Hub does not give them.
    """
    with scratch_folder() as scratch:
        findings: list[Finding] = []
        count = 0
        opened = []
        for address in (model, data):
            repository, number = _fetched(address, scratch, findings)
            opened.append(repository)
            count += number
        model_repo, data_repo = opened
        findings += _pin_findings(model_repo, data)
        study = model_repo.folder / STUDY_FILE
        target: Repositories | StudyRepositories = Repositories(model_repo, data_repo)
        if study.is_file():
            target = StudyRepositories(load_study(study, name=f"{model_repo.name}/{STUDY_FILE}"), model_repo, data_repo)
        return Verification(count, (*findings, *validate(target).findings))


def _fetched(address: HubAddress, scratch: Path, findings: list[Finding]) -> tuple[Repository, int]:
    """A commit in an empty cache; what differs from the Hub's list is a finding."""
    from huggingface_hub import snapshot_download

    kind: Kind = address.kind or "model"
    revision = str(address.revision)
    with rights_for(address.id, kind), hub_errors(address, kind):
        listed = files_at(address.id, kind, revision)
        folder = Path(
            snapshot_download(
                address.id,
                repo_type=kind,
                revision=revision,
                cache_dir=scratch,
                library_name="steer-eval",
                library_version=__version__,
            )
        )
    for path, file in listed.items():
        place = folder / path
        expected = file.sha256 or file.git_blob
        observed = None
        if place.is_file():
            observed = sha256_file(place) if file.sha256 else git_blob_file(place)
        if observed != expected:
            message, fix = "the file that comes back is not the one that was pushed", "run it again, and tell the Hub"
            findings.append(Finding("checksum", "error", f"{address.id}/{path}", "", message, expected, observed, fix))
    return Repository(address.id, folder, revision, address), len(listed)


def _pin_findings(model: Repository, data: HubAddress) -> list[Finding]:
    name = f"{model.name}/{CONFIG}"
    config = read_json(model.folder / CONFIG, name=name) if os.path.lexists(model.folder / CONFIG) else {}
    pin = data_pin(config, name)
    expected = DataPin(data.id, str(data.revision))
    if pin == expected:
        return []
    message, fix = "the model repo does not pin the dataset repo that was published with it", "publish again"
    observed = None if pin is None else f"{pin.repo}@{pin.revision}"
    return [
        Finding("publish-pin", "error", name, "data_revision", message, f"{data.id}@{data.revision}", observed, fix)
    ]
