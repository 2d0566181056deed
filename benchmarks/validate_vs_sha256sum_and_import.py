"""`steer-eval validate` on a large repo, held to what nobody can do without.

Invariant: the peer reads every byte once and imports what reading tensors and schemas takes, and checks nothing; both
sides get the same files, all of them in memory already. Both tell apart the repo as it was made and the same repo with
one bit changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import Asked, Command, Comparison, MeasurementError, compare, run, warm

NAME = "validate_vs_sha256sum_and_import"
PEER = "sha256sum of the same files, then python -c 'import torch, jsonschema'"
_HERE = Path(__file__).parent
REPO = "large-repo"


def measure(asked: Asked) -> list[Comparison]:
    """Build the repo and measure."""
    folder = asked.folder
    run([Command((sys.executable, str(_HERE / "large_repo.py"), str(folder / REPO)))])
    validate, sums = sides(folder)
    warm(path for path in (folder / REPO).rglob("*") if path.is_file())
    imports = Command((sys.executable, "-c", "import torch, jsonschema"), folder)
    timing = compare([validate], [sums, imports], pairs=asked.pairs)
    return [Comparison.of(NAME, PEER, timing, identical=agree(folder))]


def sides(folder: Path) -> tuple[Command, Command]:
    """Our check of the repo in a folder, and the sums of its files."""
    command = Path(sys.executable).with_name("steer-eval")
    if not command.exists():
        raise MeasurementError(f"{command} is absent: run with the interpreter that steer-eval is installed for")
    # No cache of the user's has a say, and no network.
    offline = {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1"}
    files = sorted(path.relative_to(folder).as_posix() for path in (folder / REPO).rglob("*") if path.is_file())
    return Command((str(command), "validate", REPO), folder, offline), Command(("sha256sum", *files), folder)


def agree(folder: Path) -> bool:
    """Whether both sides say the same of every file, before and after one bit of the largest file is changed.

    Args:
        folder: Where the repo is; its largest file is changed.
    """
    validate, sums = sides(folder)
    manifest = json.loads((folder / REPO / "manifest.json").read_text(encoding="utf-8"))
    listed = {f"{REPO}/{entry['path']}": entry["sha256"] for entry in manifest["files"]}
    code, findings = _validated(validate)
    # The repo stands alone, which is worth a note and no more.
    troubles = [finding for finding in findings if finding["severity"] != "note"]
    good = code == 0 and not troubles and _differing(sums, listed) == set()
    largest = max(listed, key=lambda file: (folder / file).stat().st_size)
    _flip(folder / largest)
    code, findings = _validated(validate)
    named = {finding["file"] for finding in findings if finding["rule"] == "checksum"}
    return good and code == 1 and named == _differing(sums, listed) == {largest}


def _validated(validate: Command) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings."""
    arguments = [*validate.arguments, "--json"]
    answer = subprocess.run(
        arguments, cwd=validate.folder, env={**os.environ, **validate.environment}, capture_output=True, text=True
    )
    return answer.returncode, json.loads(answer.stdout)["findings"]


def _differing(sums: Command, listed: dict[str, str]) -> set[str]:
    """Files whose sum is not the one that the manifest has; a file that only one of the two has differs."""
    answer = subprocess.run(sums.arguments, cwd=sums.folder, capture_output=True, text=True, check=True)
    computed = {file: digest for digest, file in (line.split("  ", 1) for line in answer.stdout.splitlines())}
    computed.pop(f"{REPO}/manifest.json")
    return {file for file in computed.keys() | listed.keys() if computed.get(file) != listed.get(file)}


def _flip(path: Path) -> None:
    """Change the lowest bit of the byte in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
