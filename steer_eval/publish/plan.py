"""What publishing would change, as a difference to the Hub.

Invariant: a plan is computed from the staged files and from what the Hub lists, without a download and without a
write. It says of every file on either side what becomes of it.

A file that the Hub has and the study has not is deleted only if it was published by this tool before (the manifest on
the Hub names it) or if what it became by conversion is published now. Others were put there by hand, and are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from steer_eval.digest import git_blob_file, sha256_file
from steer_eval.findings import Finding
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.strict_json import read_json
from steer_eval.hub.address import Kind
from steer_eval.publish.belongs import HUBS_OWN
from steer_eval.publish.remote import Remote, RemoteFile
from steer_eval.publish.stage import StagedRepo

Action = Literal["added", "changed", "unchanged", "deleted", "kept"]
ACTIONS: tuple[Action, ...] = ("added", "changed", "deleted", "kept", "unchanged")
SCHEMA = "steer-eval/publish/1"


@dataclass(frozen=True)
class Change:
    """What becomes of one file.

    Args:
        path: The file, inside the repo.
        action: What becomes of it; `kept` is a file of the Hub that is left alone.
        size: Bytes that it will have; None for one that is deleted.
        was: Bytes that it has on the Hub; None for one that is added.
    """

    path: str
    action: Action
    size: int | None
    was: int | None

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {"path": self.path, "action": self.action, "size": self.size, "was": self.was}


@dataclass(frozen=True)
class RepoPlan:
    """What publishing changes in one repo.

    Args:
        repo: Its Hub id.
        kind: What it is.
        remote: What it is like now; its head is what a push rests on.
        changes: What becomes of each file, by path.
        private: Whether a new repo becomes private.
        tag: Tag that the published commit gets.
        findings: Why this plan can't be carried out.
    """

    repo: str
    kind: Kind
    remote: Remote
    changes: tuple[Change, ...]
    private: bool = False
    tag: str | None = None
    findings: tuple[Finding, ...] = field(default=())

    @property
    def is_new(self) -> bool:
        """Whether the repo is to be created."""
        return self.remote.head is None

    @property
    def changes_files(self) -> bool:
        """Whether there is anything to commit."""
        return self.is_new or any(change.action in ("added", "changed", "deleted") for change in self.changes)

    @property
    def needs_tag(self) -> bool:
        """Whether a tag is to be made."""
        return self.tag is not None and (self.changes_files or self.remote.tags.get(self.tag) != self.remote.head)

    def of(self, action: Action) -> Iterator[Change]:
        """The changes of one sort."""
        return (change for change in self.changes if change.action == action)

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return {
            "repo": self.repo,
            "kind": self.kind,
            "new": self.is_new,
            "private": self.private if self.is_new else self.remote.private,
            "head": self.remote.head,
            "changes": [change.to_json() for change in self.changes],
        }


def bytes_said(size: int) -> str:
    """A number of bytes, for people."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def plan_repo(
    staged: StagedRepo, remote: Remote, *, delete: Sequence[str] = (), private: bool = False, tag: str | None = None
) -> RepoPlan:
    """Compare a staged repo with the Hub.

    Args:
        staged: What will be published.
        remote: What the Hub has.
        delete: Patterns of paths on the Hub that are deleted though they were not published by this tool.
        private: Whether the repo is to be private.
        tag: Tag that the published commit gets.
    """
    plan = RepoPlan(staged.id, staged.kind, remote, tuple(compared(staged, remote, delete)), private, tag)
    findings = tuple(_conflicts(plan))
    return RepoPlan(plan.repo, plan.kind, remote, plan.changes, private, tag, findings)


def compared(staged: StagedRepo, remote: Remote, delete: Sequence[str] = ()) -> Iterator[Change]:
    """What becomes of each file of either side, by path.

    Args:
        staged: What will be published.
        remote: What the Hub has.
        delete: Patterns of paths on the Hub that are deleted in any case.
    """
    digests = _digests(staged)
    here = set(staged.paths())
    for path in sorted(here | remote.files.keys()):
        there = remote.files.get(path)
        if path in here:
            size = (staged.folder / path).stat().st_size
            same = there is not None and _is_same(staged, path, digests, there)
            action: Action = "added" if there is None else "unchanged" if same else "changed"
            yield Change(path, action, size, None if there is None else there.size)
        elif there is not None:
            ours = path in remote.listed or path in staged.converted
            asked = any(fnmatchcase(path, pattern) for pattern in delete)
            gone = (ours or asked) and path not in HUBS_OWN
            yield Change(path, "deleted" if gone else "kept", None if gone else there.size, there.size)


def _digests(staged: StagedRepo) -> dict[str, str]:
    """The checksums of the staged manifest, which was written a moment ago."""
    manifest: Any = read_json(staged.folder / MANIFEST, name=MANIFEST)
    return {entry["path"]: entry["sha256"] for entry in manifest["files"]}


def _is_same(staged: StagedRepo, path: str, digests: dict[str, str], there: RemoteFile) -> bool:
    place = staged.folder / path
    if place.stat().st_size != there.size:
        return False
    if there.sha256 is not None:
        return there.sha256 == (digests.get(path) or sha256_file(place))
    return there.git_blob == git_blob_file(place)


def _conflicts(plan: RepoPlan) -> Iterator[Finding]:
    """What the Hub has that speaks against the plan."""
    remote = plan.remote
    if plan.private and not plan.is_new and not remote.private:
        message = "the repo is there, and public: --private is for new ones"
        yield Finding("publish-visibility", "error", plan.repo, "", message, fix="change it in the repo's settings")
    tagged = remote.tags.get(plan.tag) if plan.tag else None
    if tagged is not None and (plan.changes_files or tagged != remote.head):
        message = f"the tag {plan.tag} is there already, on another commit than the one that would be published"
        fix = "choose another tag: one that people cite never moves"
        yield Finding("publish-tag", "error", plan.repo, plan.tag or "", message, remote.head, tagged, fix)
