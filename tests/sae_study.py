"""The tiny study with everything beside its cells: an SAE, its feature table, and a transfer between two layers."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from tiny_models import TEXT
from tiny_study import Folders, invoke

from steer_eval.formats.strict_json import write_jsonl

DOCUMENTS = "documents.jsonl"
SAE = {
    "model": "tiny",
    "layer": 2,
    "features": 96,
    "k": 4,
    "text": {"files": [DOCUMENTS]},
    "tokens": 4000,
    "context": 32,
    "table": {"coefficient": 1, "top": 8},
}
TRANSFER = {
    "source": {"model": "tiny", "layer": 2},
    "target": {"model": "tiny", "layer": 1},
    "text": {"offline": "neutral-sentences"},
    "coefficient": 1,
    "words": 300,
    "draws": 19,
}
TRANSFER_NAME = "tiny_L2_to_tiny_L1"


def edit(folders: Folders, **sections: Any) -> None:
    """Replace sections of `study.yaml`."""
    path = folders.model / "study.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}, sort_keys=False))


def write_documents(folders: Folders) -> None:
    """The text that SAEs are trained on."""
    write_jsonl(folders.data / DOCUMENTS, [{"text": TEXT[(7 * number) % 90 :]} for number in range(40)])


def trained(folders: Folders) -> dict[str, Any]:
    """Train the SAE that is planned, with the command, and return its line of the report."""
    answer = invoke("sae", "train", str(folders.model), "--json")
    assert answer.exit_code == 0, answer.output
    return dict(json.loads(answer.stdout)["saes"][0])


def sae_bytes(folders: Folders) -> dict[str, bytes]:
    """The files of the SAE, by name."""
    return {path.name: path.read_bytes() for path in sorted((folders.model / "saes/tiny/layers.2").iterdir())}


def with_everything(folders: Folders) -> None:
    """Plan and produce it all, with the commands."""
    write_documents(folders)
    edit(folders, saes=[SAE], transfers=[TRANSFER])
    for command in (["sae", "train"], ["sae", "features"], ["transfer", "fit"], ["transfer", "diagnose"]):
        assert invoke(*command, str(folders.model)).exit_code == 0


def state(folders: Folders, *claims: dict[str, Any]) -> None:
    """Let the study claim this and nothing else, its cards and manifest in order."""
    edit(folders, claims=list(claims))
    assert invoke("card", str(folders.model)).exit_code == 0


def claim(measure: str, expected: str | bool, **select: Any) -> dict[str, Any]:
    """A claim as `study.yaml` has it."""
    words = f"{measure} is {{expected}}"
    identity = re.sub(r"[^a-z0-9.]+", "-", "-".join(str(part) for part in (measure, *select.values())))
    return {"id": identity, "claim": words, "measure": measure, "select": select, "expected": expected}
