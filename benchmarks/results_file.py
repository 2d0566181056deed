"""The results in a file: their form, and how new ones come to stand beside others.

Invariant: numbers of another machine or of other versions of what they depend on never stand side by side, and each
entry says which code it was measured with, and when.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
from measuring import Comparison, MeasurementError

ROOT = Path(__file__).parents[1]
_MEASURED_CODE = ("steer_eval", "benchmarks", ":!benchmarks/results.json", ":!benchmarks/RESULTS.md")

_NUMBER = {"type": "number", "exclusiveMinimum": 0}
_COUNT = {"type": "integer", "minimum": 1}
_TEXT = {"type": "string", "minLength": 1}
_DATE = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}


def _record(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The form of an object that has some keys, may have others, and has no more."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": properties}


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_record(
        {
            "machine": _record(
                {
                    "cpu": {"type": "string"},
                    "cores": _COUNT,
                    "memory_gb": _NUMBER,
                    "system": {"type": "string"},
                    "versions": {"type": "object", "additionalProperties": {"type": "string"}},
                    "import_mb": _NUMBER,
                }
            ),
            "comparisons": {
                "type": "array",
                "items": _record(
                    {
                        "name": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                        "ours_s": _NUMBER,
                        "peer": _TEXT,
                        "peer_s": _NUMBER,
                        "ratio": _NUMBER,
                        "spread": {"type": "number", "minimum": 0},
                        "identical": {"type": ["boolean", "null"]},
                        "peak_mb": _NUMBER,
                    },
                    {
                        "pairs": _COUNT,
                        "rounds": {"type": "array", "items": _NUMBER, "minItems": 1},
                        "peer_peak_mb": _NUMBER,
                        "near_ties": {
                            "type": "array",
                            "items": {
                                "type": "array",
                                "items": {"type": "integer", "minimum": 0},
                                "minItems": 3,
                                "maxItems": 3,
                            },
                        },
                        "points": {
                            "type": "array",
                            "items": _record({"times": _COUNT, "seconds": _NUMBER, "ratio": _NUMBER}),
                        },
                        "measured": _record({"date": _DATE, "steer_eval": _TEXT}, {"commit": _TEXT}),
                    },
                ),
            },
        },
        {"whole_run": _record({"minutes": _NUMBER, "comparisons": _COUNT, "date": _DATE})},
    ),
}
"""The form of `results.json`; entries of before something was noted lack it."""


def stamp(root: Path = ROOT) -> dict[str, str]:
    """The date and the code: the version, and the commit if the folder is a checkout.

    A commit ends in `-changed` if the toolkit or the benchmarks differ from it.

    Args:
        root: Folder of the checkout.
    """
    told = {"date": datetime.now(UTC).date().isoformat(), "steer_eval": metadata.version("steer-eval")}
    top = _git(root, "rev-parse", "--show-toplevel")
    # Beside somebody else's repository, as an unpacked archive may stand, its commits say nothing.
    if top is None or Path(top).resolve() != root.resolve():
        return told
    described = _git(root, "describe", "--always", "--abbrev=10")
    if not described:
        return told
    changed = _git(root, "status", "--porcelain", "--", *_MEASURED_CODE)
    return {**told, "commit": f"{described}-changed" if changed else described}


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None if it is not there or has nothing to say."""
    try:
        answer = subprocess.run(("git", "-C", str(root), *arguments), capture_output=True, text=True)  # noqa: S607
    except OSError:
        return None
    return None if answer.returncode else answer.stdout.strip()


def continued(
    results: Mapping[str, Any] | None, machine: Mapping[str, Any], names: Iterable[str]
) -> Mapping[str, Any] | None:
    """Results that new ones may stand beside.

    Args:
        results: The results so far; None if there are none.
        machine: Where the new ones are measured.
        names: The new ones.

    Returns:
        The results so far; None if there are none, or if all of them are of another machine and are measured again.

    Raises:
        MeasurementError: Entries that are not measured again are of another machine.
    """
    if results is None or _identity(results["machine"]) == _identity(machine):
        return results
    others = sorted({entry["name"] for entry in results["comparisons"]} - set(names))
    if others:
        message = f"{', '.join(others)}: measured on another machine or with other versions; run all comparisons again"
        raise MeasurementError(message)
    return None


def merged(
    results: Mapping[str, Any] | None,
    machine: Mapping[str, Any],
    new: Iterable[Comparison],
    measured: Mapping[str, str],
) -> dict[str, Any]:
    """Results with some entries replaced, the others kept, all in the order of their names.

    Args:
        results: The results so far, of the same machine; None if there are none.
        machine: Where the new ones were measured.
        new: The new ones.
        measured: The date and the code of the new ones, as `stamp` has them.
    """
    entries = {entry["name"]: entry for entry in (results["comparisons"] if results else ())}
    entries |= {entry.name: _written(entry) | {"measured": dict(measured)} for entry in new}
    whole = {"whole_run": results["whole_run"]} if results and "whole_run" in results else {}
    return {"machine": dict(machine), **whole, "comparisons": [entries[name] for name in sorted(entries)]}


_ALWAYS = {"identical"}
"""Keys whose null says something."""


def _written(entry: Comparison) -> dict[str, Any]:
    """An entry as it is in the file, without what it does not have."""
    plain = json.loads(json.dumps(asdict(entry), allow_nan=False))
    return {key: value for key, value in plain.items() if value is not None or key in _ALWAYS}


def read_results(path: Path) -> dict[str, Any] | None:
    """Results so far; None if there are none.

    Raises:
        MeasurementError: The file is not of the form of `SCHEMA`.
    """
    if not path.exists():
        return None
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(results, SCHEMA)
    except (ValueError, jsonschema.ValidationError) as error:
        raise MeasurementError(f"{path} is no results file: {error.args[0]}; delete it and run all again") from None
    return results


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write results, once they have the form of `SCHEMA`."""
    jsonschema.validate(dict(results), SCHEMA)
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _identity(machine: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for numbers to stand side by side; measured sizes vary by themselves."""
    return {key: value for key, value in machine.items() if key != "import_mb"}
