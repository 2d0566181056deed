"""The manifest of a repo: every file with its checksum, size and kind.

Invariant: the manifest names every file of the folder but itself, hidden files and folders excepted, in sorted order,
so that equal folders have equal manifests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError
from steer_eval.findings import Finding, Severity
from steer_eval.formats import schema
from steer_eval.formats.containment import inside, is_inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.left_file import LeftFile

FILE = "manifest.json"
SCHEMA = "steer-eval/manifest/1"


def repo_files(folder: Path) -> Iterator[str]:
    """Paths of a folder's files, relative and sorted; hidden ones, the manifest and links out of it are left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if (
            not _is_hidden(relative.as_posix())
            and str(relative) != FILE
            and is_inside(folder, relative.as_posix())
            and path.is_file()
        ):
            yield relative.as_posix()


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _sha256(folder: Path, path: str, left: Mapping[str, LeftFile]) -> str | None:
    """SHA-256 of a file, also where it was left; None where that place does not say."""
    return left[path].sha256 if path in left else sha256_file(folder / path)


def write_manifest(folder: Path) -> None:
    """Write the manifest of what the folder holds now."""
    files = [
        {
            "path": path,
            "sha256": sha256_file(folder / path),
            "size": (folder / path).stat().st_size,
            "kind": kind_of(path),
        }
        for path in repo_files(folder)
    ]
    write_json(folder / FILE, {"schema": SCHEMA, "files": files})


def check_manifest(folder: Path, *, prefix: str = "", left: Mapping[str, LeftFile] | None = None) -> list[Finding]:
    """Compare a folder with its manifest.

    Args:
        folder: The repo.
        prefix: What to put before file names in findings.
        left: Files of the repo that are not in the folder, with the size and checksum that they have where they are.
    """
    left = {} if left is None else {path: file for path, file in left.items() if not _is_hidden(path)}
    name = prefix + FILE
    try:
        manifest: Any = read_json(inside(folder, FILE, name=name), name=name)
        schema.check(manifest, "manifest", file=name)
    except FormatError as error:
        severity: Severity = "error" if os.path.lexists(folder / FILE) else "warning"
        fix = "run `steer-eval card` on a study, or `steer-eval convert` on a repo without one, to write it"
        return [Finding("manifest-unusable", severity, name, error.where, error.reason, fix=fix)]
    findings = []
    listed: set[str] = set()
    present = {*repo_files(folder), *left}
    for index, entry in enumerate(manifest["files"]):
        path = entry["path"]
        if path in listed:
            message = f"the manifest names {path} twice"
            fix = "run `steer-eval card` to write it again"
            findings.append(Finding("manifest-duplicate", "error", name, f"files[{index}].path", message, fix=fix))
            continue
        listed.add(path)
        if path not in present:
            findings.append(
                Finding("file-absent", "warning", prefix + path, "", "the manifest names this file and it is absent")
            )
        elif (observed := _sha256(folder, path, left)) not in (entry["sha256"], None):
            findings.append(
                Finding(
                    "checksum",
                    "error",
                    prefix + path,
                    "",
                    "the file is not the one that the manifest was written for",
                    entry["sha256"],
                    observed,
                    "restore the file; if the change is meant, measure again and run `steer-eval card`",
                )
            )
        elif (size := left[path].size if path in left else (folder / path).stat().st_size) != entry["size"]:
            findings.append(
                Finding(
                    "manifest-size",
                    "error",
                    name,
                    f"files[{index}].size",
                    f"the manifest gives {path} another size than it has",
                    size,
                    entry["size"],
                    "run `steer-eval card` to write it again",
                )
            )
    findings.extend(
        Finding(
            "file-unlisted",
            "warning",
            prefix + path,
            "",
            "the manifest does not name this file",
            fix="run `steer-eval card`",
        )
        for path in sorted(present - listed)
    )
    return findings
