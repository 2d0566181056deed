"""Which files of a folder belong into a published repo.

Invariant: every file of the folder is published, left out by a rule that is documented, or a finding; nothing is
dropped in silence but what git and the Hub's client keep for themselves. Nothing is written here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from steer_eval.convert_plan import walk
from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.containment import FIX, REASON, is_inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.safetensors_file import read_header

LARGE_BYTES = 64 * 2**20
"""Files above this size are asked about, unless they are of a kind that is known to be large."""

_LARGE_KINDS = frozenset({"sae", "transfer", "torch"})
HUBS_OWN = frozenset({".gitattributes"})
"""What the Hub writes into every repo, and keeps."""
_OF_TOOLS = re.compile(
    r"(.*/)?(\.gitignore|\.gitmodules|\.gitkeep|\.pre-commit-config\.yaml|\.steer-eval[^/]*)|\.github/.*"
)
_STRAY = re.compile(
    r"(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*|[^/]*~|\.?#[^/]*#|\.#[^/]*"
    r"|[^/]*\.(swp|swo|swn|bak|orig|rej|tmp|temp|part|pyc|pyo|log|lock))"
)
_STRAY_FOLDER = re.compile(
    r"((.*/)?(__pycache__|__MACOSX|\.cache|\.ipynb_checkpoints|\.pytest_cache|\.mypy_cache|\.ruff_cache|\.hypothesis"
    r"|\.venv|\.idea|\.vscode|\.svn|\.hg|runs|wandb))/.*?"
)
_SECRET = re.compile(
    r"(.*/)?(\.env|\.env\.[^/]+|[^/]+\.env|\.netrc|_netrc|\.pypirc|\.npmrc|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)"
    r"|[^/]+\.(pem|key|p12|pfx|kdbx))",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(r"(.*/)?\.env\.(example|sample|template|dist)")
_TEXTS = re.compile(
    r"(LICEN[CS]E|NOTICE|COPYING|AUTHORS|CHANGELOG|CONTRIBUTING)(\.(md|txt|rst))?|CITATION\.(cff|bib)"
    r"|(.*/)?[^/.][^/]*\.(md|txt|bib|csv|tsv|parquet)|\.eval_results/[^/]+\.yaml|eval\.yaml"
)
"""Files that repos on the Hub have beside those whose kinds are known."""


@dataclass(frozen=True)
class Choice:
    """What the user says of single files.

    Args:
        exclude: Patterns of paths that are not published, as `hf upload --exclude` takes them.
        allow: Patterns of paths that are published though they are of no known kind, large, or name a home folder.
    """

    exclude: Sequence[str] = ()
    allow: Sequence[str] = ()

    def excludes(self, path: str) -> bool:
        """Whether a path is left out."""
        return _matches(path, self.exclude)

    def allows(self, path: str) -> bool:
        """Whether a path is published whatever it looks like."""
        return _matches(path, self.allow)


@dataclass(frozen=True)
class Selection:
    """What of a folder is published.

    Args:
        paths: Files that are, inside the folder.
        findings: What is not, or should not be, and why.
    """

    paths: tuple[str, ...]
    findings: tuple[Finding, ...]


def select(folder: Path, name: str, choice: Choice) -> Selection:
    """Sort the files of a folder.

    Args:
        folder: The folder.
        name: What to call it in findings.
        choice: What the user says.

    Raises:
        SteerEvalError: A folder in it can't be read.
    """
    paths: list[str] = []
    findings: list[Finding] = []
    strays: dict[str, int] = {}
    for path in walk(folder):
        if choice.excludes(path) or path in HUBS_OWN:
            continue
        stray = _STRAY_FOLDER.fullmatch(path)
        if stray and not choice.allows(path):
            strays[stray[1]] = strays.get(stray[1], 0) + 1
            continue
        found = _judged(folder, path, f"{name}/{path}", choice)
        if found is not None:
            findings.append(found)
        if found is None or found.rule == "publish-large":
            paths.append(path)
    for stray_folder, count in strays.items():
        message = f"the folder is a cache or what a program left behind: its {count} files are left out"
        fix = _publish_it(stray_folder)
        findings.append(Finding("publish-left-out", "warning", f"{name}/{stray_folder}", "", message, fix=fix))
    for path, target in list(_converted(folder, paths)):
        message = f"the file was converted before, to {target}, and is left out"
        findings.append(Finding("publish-left-out", "warning", f"{name}/{path}", "", message, fix="remove it"))
        paths.remove(path)
    return Selection(tuple(paths), tuple(findings))


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path matches a pattern; a pattern that names a folder stands for all in it."""
    return any(fnmatchcase(path, each) or fnmatchcase(path, f"{each.rstrip('/')}/*") for each in patterns)


def _judged(folder: Path, path: str, file: str, choice: Choice) -> Finding | None:
    """What there is to say of a file; None if it is published without a word."""
    if not is_inside(folder, path):
        return Finding("symlink", "error", file, "", REASON, fix=FIX)
    if not (folder / path).is_file():
        message = "only files are published, and links to files"
        return Finding("publish-unknown", "error", file, "", message, fix=_leave_out(path))
    if _SECRET.fullmatch(path) and not _TEMPLATE.fullmatch(path):
        message = "files of this name hold passwords or keys"
        return Finding("publish-secret", "error", file, "", message, fix=_leave_out(path, "move it elsewhere"))
    if choice.allows(path):
        return None
    if _OF_TOOLS.fullmatch(path):
        return Finding("publish-left-out", "note", file, "", "the file is for tools on this disk, and is left out")
    if _STRAY.fullmatch(path):
        message = "the file is a cache, a backup or what a program left behind: it is left out"
        return Finding("publish-left-out", "warning", file, "", message, fix=_publish_it(path))
    hidden = any(part.startswith(".") for part in path.split("/"))
    if not _TEXTS.fullmatch(path) and (hidden or kind_of(path) == "other"):
        message = "the file is of no kind that a study has"
        return Finding("publish-unknown", "error", file, "", message, fix=f"{_leave_out(path)}; {_publish_it(path)}")
    size = (folder / path).stat().st_size
    if size > LARGE_BYTES and kind_of(path) not in _LARGE_KINDS:
        message = f"the file has {size / 2**20:.0f} MB, which files of this kind hardly have"
        return Finding(
            "publish-large",
            "error",
            file,
            "",
            message,
            f"at most {LARGE_BYTES} bytes",
            f"{size} bytes",
            f"{_leave_out(path)}; {_publish_it(path)}",
        )
    return None


def _leave_out(path: str, otherwise: str = "remove it") -> str:
    return f"{otherwise}, or leave it out with --exclude {_quoted(path)}"


def _publish_it(path: str) -> str:
    return f"if it belongs to the study, publish it with --allow {_quoted(path)}"


def _quoted(path: str) -> str:
    return shlex.quote(path)


def _converted(folder: Path, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """PyTorch files beside the safetensors files that they were converted to, with these."""
    legacy = [path for path in paths if kind_of(path) == "torch"]
    safe = [path for path in paths if path.endswith(".safetensors")] if legacy else []
    sources: dict[str, str] = {}
    for path in safe:
        try:
            metadata = read_header(folder / path, name=path).get("__metadata__", {})
        except FormatError:
            # A finding of the check of all files.
            continue
        if isinstance(metadata, dict) and isinstance(metadata.get("source_sha256"), str):
            sources[metadata["source_sha256"]] = path
    for path in legacy:
        target = sources.get(sha256_file(folder / path)) if sources else None
        if target is not None:
            yield path, target
