"""What the Hub has of a repo now.

Invariant: everything here is of one commit, the head when it was looked at, and was learnt by reading alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.strict_json import read_json
from steer_eval.hub.address import Kind
from steer_eval.hub.client import api
from steer_eval.hub.errors import HubError, RepoNotFoundError, hub_errors

_RESOURCE = "HF_OIDC_RESOURCE"


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub.

    Args:
        size: Bytes.
        sha256: Checksum of the content, where the Hub keeps the file outside of git.
        git_blob: Git's checksum: of the content, or of what stands for it in git.
    """

    size: int
    sha256: str | None
    git_blob: str


@dataclass(frozen=True)
class Remote:
    """A repo of the Hub at its head.

    Args:
        head: Its commit; None where there is no such repo.
        private: Whether only its owners see it.
        files: Its files, by path.
        listed: Paths that its manifest names: what was published before.
        tags: Commits by tag.
    """

    head: str | None = None
    private: bool = False
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    listed: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)


def look(repo: str, kind: Kind) -> Remote:
    """Look at a repo of the Hub.

    Args:
        repo: Its id.
        kind: What it is.

    Raises:
        HubError: The Hub can't be asked.
        SteerEvalError: The repo has another name now.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"HF_HUB_OFFLINE forbids asking the Hub what {repo} has", "unset it to publish")
    hub = api()
    try:
        with rights_for(repo, kind), hub_errors(repo, kind):
            info = hub.repo_info(repo, repo_type=kind)
            if info.id != repo:
                raise SteerEvalError(f"the {kind} repo {repo} is called {info.id} now", "publish under that name")
            if info.sha is None:
                raise SteerEvalError(f"the {kind} repo {repo} has no commit", "push a README.md to it first")
            head = info.sha
            files = files_at(repo, kind, head)
            refs = hub.list_repo_refs(repo, repo_type=kind)
            listed = _listed(repo, kind, head) if MANIFEST in files else frozenset()
    except RepoNotFoundError:
        return Remote()
    tags = {tag.name: tag.target_commit for tag in refs.tags}
    return Remote(head, bool(info.private), files, listed, tags)


def files_at(repo: str, kind: Kind, revision: str) -> dict[str, RemoteFile]:
    """The files of a repo at a revision, by path; to be called inside `hub_errors`."""
    from huggingface_hub.hf_api import RepoFile

    tree = api().list_repo_tree(repo, recursive=True, revision=revision, repo_type=kind)
    return {
        entry.path: RemoteFile(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in tree
        if isinstance(entry, RepoFile)
    }


@contextmanager
def rights_for(repo: str, kind: Kind) -> Iterator[None]:
    """With trusted publishing, let the Hub's client ask for a token for this repo: each is for one repo only.

    Args:
        repo: Hub id.
        kind: What it is.
    """
    before = os.environ.get(_RESOURCE)
    if not before:
        yield
        return
    os.environ[_RESOURCE] = f"datasets/{repo}" if kind == "dataset" else repo
    try:
        yield
    finally:
        os.environ[_RESOURCE] = before


def is_trusted_publishing() -> bool:
    """Whether tokens come from the CI service that this runs on."""
    return bool(os.environ.get(_RESOURCE))


def _listed(repo: str, kind: Kind, revision: str) -> frozenset[str]:
    path = api().hf_hub_download(repo, MANIFEST, repo_type=kind, revision=revision)
    try:
        manifest: Any = read_json(Path(path), name=MANIFEST)
        schema.check(manifest, "manifest", file=MANIFEST)
    except FormatError:
        # Not a manifest of ours, so nothing was published by this tool.
        return frozenset()
    return frozenset([MANIFEST, *(entry["path"] for entry in manifest["files"])])
