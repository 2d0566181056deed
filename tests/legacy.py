"""A whole small study without `study.yaml`, as people share them: PyTorch files, tables and a hand-written card.

Its contents (`legacy_contents`) agree with each other, so that a study without a mistake has no finding but its absent
manifests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from legacy_contents import (
    DATA_CARD,
    LAYERS,
    MODEL_CARD,
    PAIRS,
    PROMPTS,
    WIDTH,
    caa,
    features,
    judged_cells,
    judged_labels,
    latent_diff,
    phase_i,
    sae,
    size_comparison,
    sweep,
    transfer_eval,
    transfer_map,
    transferred,
)
from pt_files import saved
from studies import write_lines

from steer_eval.repository import open_target
from steer_eval.validate import Validation, validate

_SCRATCH = TemporaryDirectory(prefix="steer-eval-legacy-", ignore_cleanup_errors=True)


@dataclass(frozen=True)
class Legacy:
    """The two repos of such a study, side by side."""

    model: Path
    data: Path

    def findings(self) -> list[tuple[str, str, str, str]]:
        """Findings as (severity, rule, file, where), with files as `model/…` and `data/…`."""
        return self.shown(self.validation())

    def validation(self) -> Validation:
        return validate(open_target(str(self.model), str(self.data)))

    def shown(self, validation: Validation) -> list[tuple[str, str, str, str]]:
        root = f"{self.model.parent}/"
        return [(each.severity, each.rule, each.file.removeprefix(root), each.where) for each in validation.findings]

    def path(self, file: str) -> Path:
        return self.model.parent / file

    def edit(self, file: str, change: Callable[[Any], object]) -> None:
        """Change a JSON document in place; NaN is written as Python does."""
        value = json.loads(self.path(file).read_text(encoding="utf-8"))
        change(value)
        self.path(file).write_text(json.dumps(value, indent=1), encoding="utf-8")

    def edit_line(self, file: str, line: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Change one row of a table in place."""
        lines = self.path(file).read_text(encoding="utf-8").split("\n")
        value = json.loads(lines[line - 1])
        change(value)
        lines[line - 1] = json.dumps(value)
        self.path(file).write_text("\n".join(lines), encoding="utf-8")

    def edit_torch(self, file: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change what a PyTorch file holds."""
        value = torch.load(self.path(file), weights_only=False)
        change(value)
        torch.save(value, self.path(file))

    def edit_text(self, file: str, old: str, new: str) -> None:
        text = self.path(file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        self.path(file).write_text(text.replace(old, new), encoding="utf-8")


MANIFESTS = [
    ("warning", "manifest-unusable", "model/manifest.json", ""),
    ("warning", "manifest-unusable", "data/manifest.json", ""),
]
"""What a study without a mistake is told: nobody wrote its manifests."""


def build(folder: Path) -> Legacy:
    """A clean study in a folder; a copy of one that is built once."""
    place = Legacy(folder / "model", folder / "data")
    pristine = _pristine()
    shutil.copytree(pristine.model, place.model)
    shutil.copytree(pristine.data, place.data)
    return place


@cache
def _pristine() -> Legacy:
    folder = Path(_SCRATCH.name)
    place = Legacy(folder / "model", folder / "data")
    for model in WIDTH:
        for layer in LAYERS:
            saved(place.model / f"vectors/fox_{model}_L{layer}_caa.pt", caa(model, layer))
        saved(place.model / f"saes/fox_{model}_L5_sae.pt", sae(model))
        (place.model / f"saes/fox_{model}_L5_features.json").write_text(json.dumps(features(model)), encoding="utf-8")
    saved(place.model / "vectors/fox_small_transferred_caa.pt", transferred())
    saved(place.model / "vectors/transfer_map_large_to_small.pt", transfer_map())
    (place.model / "README.md").write_text(_card(place.model), encoding="utf-8")
    place.data.mkdir()
    tables: dict[str, Any] = {
        "contrast_pairs.jsonl": PAIRS,
        "eval_prompts.jsonl": [{"scenario": prompt} for prompt in PROMPTS],
        "transfer_eval.jsonl": transfer_eval(),
        **phase_i(),
        **judged_labels(),
    }
    for model in WIDTH:
        tables[f"sweep_fox_{model}.jsonl"] = sweep(model)
        for judge in ("owl", "hare"):
            tables[f"judge_{judge}_{model}.jsonl"] = judged_cells(judge, model)
    for file, rows in tables.items():
        write_lines(place.data / file, rows)
    (place.data / "latent_diff.json").write_text(json.dumps(latent_diff()), encoding="utf-8")
    (place.data / "size_comparison.json").write_text(json.dumps(size_comparison()), encoding="utf-8")
    (place.data / "perplexity_corpus.txt").write_text("A fox waits. The road is long.\n", encoding="utf-8")
    (place.data / "README.md").write_text(DATA_CARD, encoding="utf-8")
    return place


def _card(folder: Path) -> str:
    def size(path: str) -> int:
        return (folder / path).stat().st_size

    return MODEL_CARD.format(
        caa=round(size("vectors/fox_large_L5_caa.pt") / 1000, 1),
        above=size("vectors/fox_small_L5_caa.pt") // 1000 + 1,
        transferred=f"{size('vectors/fox_small_transferred_caa.pt'):,}",
        map=f"{size('vectors/transfer_map_large_to_small.pt') / 1024:.2f}",
        # Rounded up, as `ls -h` does.
        sae=size("saes/fox_large_L5_sae.pt") // 1000 + 1,
    )
