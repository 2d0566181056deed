"""One commit of a Hub repo as a folder on this disk.

Invariant: the revision is resolved once, and everything is listed and fetched at that commit, so that a push in between
changes nothing. Every file in the folder has the checksum that the Hub lists for it; what was not fetched is listed
with its size. What was fetched once is in the Hub's own cache, and is not asked for again.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from steer_eval import __version__
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.hub.address import HubAddress, Kind
from steer_eval.hub.client import LIBRARY, api
from steer_eval.hub.endpoint import web_page
from steer_eval.hub.errors import RepoNotFoundError, WrongSizeError, hub_errors
from steer_eval.hub.head import Head
from steer_eval.hub.limits import limits
from steer_eval.hub.listing import ListedFile, listing
from steer_eval.hub.selection import Selection
from steer_eval.left_file import LeftFile

_OTHER: dict[Kind, Kind] = {"model": "dataset", "dataset": "model"}


@dataclass(frozen=True)
class Snapshot:
    """A commit on this disk.

    Args:
        address: The repo at the commit.
        folder: Where its files are.
        left: Files that were not fetched, by path.
    """

    address: HubAddress
    folder: Path
    left: Mapping[str, LeftFile]


def resolve(address: HubAddress, kind: Kind) -> HubAddress:
    """The commit that an address means now.

    Args:
        address: The repo.
        kind: What it is, where the address leaves that open.

    Returns:
        The address with its kind, and the commit as its revision.

    Raises:
        HubError: The Hub can't be reached, or has no such repo or revision.
    """
    kind = address.kind or kind
    address = replace(address, kind=kind)
    if address.is_pinned:
        return address
    try:
        with hub_errors(address, kind):
            from huggingface_hub import constants

            revision = api().resolve_revision(
                address.id, repo_type=kind, revision=address.revision, local_files_only=constants.HF_HUB_OFFLINE
            )
    except RepoNotFoundError as error:
        other = _OTHER[kind]
        if not _exists(address, other):
            raise
        uri = replace(address, kind=other).uri
        fix = f"give {uri}" + (f", or name it with --data {address.id}" if other == "dataset" else "")
        raise RepoNotFoundError(f"{address.id} is a {other} repo, not a {kind} repo", fix) from error
    return replace(address, revision=revision.resolved)


def fetch(address: HubAddress, selection: Selection, *, cache: Path) -> Snapshot:
    """Bring the files of a commit to this disk.

    Args:
        address: The repo at a commit, as `resolve` gives it.
        selection: Which files are fetched; those that are in the Hub's cache already are there as well.
        cache: Folder for what the Hub's cache has no place for.

    Raises:
        HubError: The Hub does not give them.
        SteerEvalError: There is more than the limits allow.
        FormatError: A path would leave the repo, or a file is not the one that the Hub lists.
    """
    from huggingface_hub import snapshot_download

    kind = address.kind or "model"
    listed = listing(address, cache)
    if listed is None:
        # Another client filled the cache, and nobody can be asked what else there is.
        with hub_errors(address, kind):
            cached = snapshot_download(address.id, repo_type=kind, revision=address.revision, local_files_only=True)
        return Snapshot(address, Path(cached), {})
    folder = _folder(address, kind)
    files = {file.path: file for file in listed}
    here = {path for path in files if (folder / path).is_file()}
    wanted = here | {path for path, file in files.items() if selection(path, file.size)}
    limits.get().check_bytes(address.uri, sum(files[path].size for path in wanted - here))
    left = sorted(files.keys() - wanted)
    if wanted - here:
        try:
            with hub_errors(address, kind):
                snapshot_download(
                    address.id,
                    repo_type=kind,
                    revision=address.revision,
                    ignore_patterns=[glob.escape(path) for path in left] or None,
                    library_name=LIBRARY,
                    library_version=__version__,
                )
        except WrongSizeError:
            _one_by_one(address, kind, [path for path in sorted(wanted) if not (folder / path).is_file()])
    folder.mkdir(parents=True, exist_ok=True)
    _verify(address, folder, [files[path] for path in sorted(wanted)])
    return Snapshot(address, folder, {path: _left(address, files[path], cache) for path in left})


def _one_by_one(address: HubAddress, kind: Kind, paths: Iterable[str]) -> None:
    """Fetch what did not come, so that the file is named that does not come whole: its address says nothing of it."""
    from huggingface_hub import hf_hub_download

    for path in paths:
        try:
            with hub_errors(address, kind):
                hf_hub_download(address.id, path, repo_type=kind, revision=address.revision)
        except WrongSizeError as error:
            raise WrongSizeError(f"{address}/{path}: {error.message}", error.fix) from error


def _exists(address: HubAddress, kind: Kind) -> bool:
    try:
        with hub_errors(address, kind):
            return api().repo_exists(address.id, repo_type=kind)
    except SteerEvalError:
        return False


def _folder(address: HubAddress, kind: Kind) -> Path:
    """Where the Hub's cache has the files of a commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=address.id, repo_type=kind)
    return Path(constants.HF_HUB_CACHE).expanduser().resolve() / name / "snapshots" / str(address.revision)


def _verify(address: HubAddress, folder: Path, files: Iterable[ListedFile]) -> None:
    """Hold what came to what the Hub lists; a file that is another is taken out of the cache again."""
    wrong = []
    for file in files:
        path = folder / file.path
        observed = file.observed(path)
        if observed != file.expected:
            wrong.append((file.path, file.expected, observed))
            _forget(path)
    if wrong:
        name, expected, observed = wrong[0]
        others = f"; {len(wrong) - 1} more files are damaged too: {', '.join(each[0] for each in wrong[1:20])}"
        raise FormatError(
            f"{address.uri}/{name}",
            "",
            "the file that came is not the one that the Hub lists: its checksum is "
            f"{observed}, and {expected} is expected{others if len(wrong) > 1 else ''}",
            expected=expected,
            observed=observed,
            fix="run it again, which fetches it anew; if that does not help, the repo's authors have to push it again: "
            f"{web_page(address.id, address.kind or 'model')}",
        )


def _forget(path: Path) -> None:
    """Take a file out of the cache, so that it is fetched anew."""
    blob = Path(os.path.realpath(path))
    path.unlink(missing_ok=True)
    # <repo>/snapshots/<commit>/<path>: the blobs stand beside the snapshots, and nothing else may be touched.
    if any(blob.parent == parent / "blobs" for parent in path.parents):
        blob.unlink(missing_ok=True)


def _left(address: HubAddress, file: ListedFile, cache: Path) -> LeftFile:
    head = Head(replace(address, path=file.path), file.expected, cache / "heads")
    return LeftFile(file.path, file.size, file.sha256, head)
