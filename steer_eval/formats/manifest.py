"""The manifest of a repo: every file with its checksum, size and kind.

Invariant: the manifest names every file of the folder but itself, hidden files and folders excepted, in sorted order,
so that equal folders have equal manifests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError
from steer_eval.findings import Finding, Severity
from steer_eval.formats import schema
from steer_eval.formats.strict_json import read_json, write_json

FILE = "manifest.json"
SCHEMA = "steer-eval/manifest/1"
_KINDS = {
    "study.yaml": "study",
    "README.md": "card",
    "config.json": "config",
    "contrast_pairs.jsonl": "contrast_pairs",
    "eval_prompts.jsonl": "eval_prompts",
    "perplexity_corpus.txt": "perplexity_corpus",
    "environment.json": "environment",
}


def kind_of(path: str) -> str:
    """Kind of a file, from its path inside the repo."""
    name = path.rsplit("/", 1)[-1]
    if path in _KINDS:
        return _KINDS[path]
    if path.startswith("vectors/") and name.endswith(".safetensors"):
        return "vector"
    if path.startswith("sweep_") and name.endswith(".jsonl"):
        return "sweep"
    return "figure" if name.endswith((".svg", ".png")) else "other"


def repo_files(folder: Path) -> Iterator[str]:
    """Paths of a folder's files, relative and sorted, hidden ones and the manifest left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts) and str(relative) != FILE:
            yield relative.as_posix()


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


def check_manifest(folder: Path, *, prefix: str = "") -> list[Finding]:
    """Compare a folder with its manifest.

    Args:
        folder: The repo.
        prefix: What to put before file names in findings.
    """
    name = prefix + FILE
    try:
        manifest: Any = read_json(folder / FILE, name=name)
        schema.check(manifest, "manifest", file=name)
    except FormatError as error:
        severity: Severity = "error" if (folder / FILE).exists() else "warning"
        fix = "run `steer-eval card` to write it"
        return [Finding("manifest-unusable", severity, name, error.where, error.reason, fix=fix)]
    findings = []
    listed = {entry["path"]: entry for entry in manifest["files"]}
    present = set(repo_files(folder))
    for path, entry in listed.items():
        if path not in present:
            findings.append(
                Finding("file-absent", "warning", prefix + path, "", "the manifest names this file and it is absent")
            )
        elif (observed := sha256_file(folder / path)) != entry["sha256"]:
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
    findings.extend(
        Finding(
            "file-unlisted",
            "warning",
            prefix + path,
            "",
            "the manifest does not name this file",
            fix="run `steer-eval card`",
        )
        for path in sorted(present - set(listed))
    )
    return findings
