"""What files a commit has.

Invariant: no path in a listing leaves the repo, every file has the checksum of its content, and a commit is listed
once: what it has never changes, so the listing is kept. (huggingface_hub keeps one as well, and gives it back without
the checksums of large files.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_eval.digest import git_blob_file, sha256_file, sha256_value
from steer_eval.errors import FormatError
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.hub.address import HubAddress
from steer_eval.hub.client import api
from steer_eval.hub.endpoint import endpoint
from steer_eval.hub.errors import hub_errors
from steer_eval.hub.limits import limits

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

SCHEMA = "steer-eval/listing/1"
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class ListedFile:
    """A file of a commit.

    Args:
        path: Its path inside the repo.
        size: Bytes.
        sha256: Of its content, where the Hub says; None for small files, which git keeps itself.
        blob: Id of its content in git; of a large file's pointer.
    """

    path: str
    size: int
    sha256: str | None
    blob: str

    @property
    def expected(self) -> str:
        """The checksum that its content has."""
        return self.sha256 or self.blob

    def observed(self, path: Path) -> str:
        """The same checksum of a file on this disk."""
        return git_blob_file(path) if self.sha256 is None else sha256_file(path)


def listing(address: HubAddress, cache: Path) -> list[ListedFile] | None:
    """The files of a commit.

    Args:
        address: The repo at a commit.
        cache: Folder in which listings are kept.

    Returns:
        The files; None where the listing is not kept and nothing may be asked.

    Raises:
        HubError: The Hub does not give it.
        SteerEvalError: There are more files than the limit.
        FormatError: A path leaves the repo, or a file has no checksum.
    """
    from huggingface_hub import constants

    key = sha256_value([endpoint(), address.kind, address.id, address.revision])
    kept = cache / "listings" / f"{key}.json"
    files = _kept(kept)
    if files is not None:
        return list(_within_limits(address, files))
    if constants.HF_HUB_OFFLINE:
        return None
    files = list(_within_limits(address, map(_listed, _asked(address))))
    for file in files:
        _check(address, file)
    # Where it can't be kept it is asked again; that is all.
    with suppress(OSError):
        write_json(kept, {"schema": SCHEMA, "files": [asdict(file) for file in files]})
    return files


def _kept(path: Path) -> list[ListedFile] | None:
    try:
        document: Any = read_json(path)
        return [ListedFile(**file) for file in document["files"]] if document["schema"] == SCHEMA else None
    except (FormatError, OSError, KeyError, TypeError):
        return None


def _asked(address: HubAddress) -> Iterator[RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    kind = address.kind or "model"
    with hub_errors(address, kind):
        for entry in api().list_repo_tree(address.id, recursive=True, revision=address.revision, repo_type=kind):
            if isinstance(entry, RepoFile):
                yield entry


def _listed(file: RepoFile) -> ListedFile:
    if file.lfs is None:
        return ListedFile(file.path, file.size, None, file.blob_id)
    return ListedFile(file.path, file.lfs.size, file.lfs.sha256, file.blob_id)


def _within_limits(address: HubAddress, files: Iterable[ListedFile]) -> Iterator[ListedFile]:
    """The files one by one, so that nobody waits for the end of an endless list."""
    for count, file in enumerate(files, start=1):
        limits.get().check_files(address.uri, count)
        yield file


def _check(address: HubAddress, file: ListedFile) -> None:
    """Refuse a path that is none inside a repo, before anything makes a file of it."""
    parts = file.path.split("/")
    strange = {"", ".", "..", ".git"} & set(parts) or {"\\", "\0"} & set(file.path)
    if strange or not isinstance(file.size, int) or file.size < 0:
        message, fix = "the Hub lists a file that no repo can have", "read nothing of this repo; tell its authors"
        raise FormatError(address.uri, "", message, observed=[file.path, file.size], fix=fix)
    if not _DIGEST.fullmatch(file.expected):
        message = "the Hub lists no checksum, so that nobody can tell whether the file is whole"
        raise FormatError(f"{address.uri}/{file.path}", "", message, observed=file.expected)
