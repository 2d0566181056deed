"""The documents of our own lm-eval tasks, and how replies to instructions are scored.

Invariant: everything comes from the JSON Lines files in `tasks/`, which ship with the package and satisfy a schema;
nothing is fetched. lm-eval finds these functions by the names that stand in `tasks/*.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import datasets

from steer_eval.capability.constraints import passes
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.resources import folder

CHOICES = "choices.jsonl"
INSTRUCTIONS = "instructions.jsonl"


def choices(**_metadata: Any) -> dict[str, datasets.Dataset]:
    """The multiple-choice questions."""
    return _documents(CHOICES, "task_choice")


def instructions(**_metadata: Any) -> dict[str, datasets.Dataset]:
    """The instructions; a document's checks are one JSON text each, because their values are of several types."""
    return _documents(INSTRUCTIONS, "task_instruction")


def instruction_results(document: dict[str, Any], replies: Sequence[str]) -> dict[str, float]:
    """Whether a reply keeps to all constraints of its instruction, and to which share of them.

    Args:
        document: A row of `instructions.jsonl`.
        replies: The reply, alone in a list.
    """
    kept = [passes(json.loads(check), replies[0]) for check in document["checks"]]
    return {"followed": float(all(kept)), "constraints_kept": sum(kept) / len(kept)}


def _documents(file: str, schema: str) -> dict[str, datasets.Dataset]:
    rows = [row.value for row in read_jsonl(folder("tasks") / file, schema=schema, name=f"tasks/{file}")]
    for row in rows:
        if "checks" in row:
            row["checks"] = [json.dumps(check) for check in row["checks"]]
    return {"test": datasets.Dataset.from_list(rows)}
