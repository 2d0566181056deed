"""A study without `study.yaml` whose cards are rendered, and ways to look at them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.legacy.identity import Asked
from steer_eval.legacy.study import LegacyStudy
from steer_eval.legacy_cards import open_legacy, render_data_repo, render_model_repo
from steer_eval.repository import Repositories, open_target

CARD = "README.md"


@dataclass(frozen=True)
class Opened:
    repositories: Repositories
    study: LegacyStudy

    @property
    def model_card(self) -> str:
        return render_model_repo(self.study)[CARD]

    @property
    def data_card(self) -> str:
        return render_data_repo(self.study)[CARD]


def opened(model: Path, data: Path, asked: Asked | None = None) -> Opened:
    repositories = open_target(str(model), str(data))
    assert isinstance(repositories, Repositories)
    return Opened(repositories, open_legacy(repositories, asked or Asked()))


def table(card: str, *header: str) -> list[list[str]]:
    """Rows of the first table with a header that begins so."""
    lines = card.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| " + " | ".join(header)))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)


def cached(repo: str, files: dict[str, Path], *, kind: str = "models") -> Path:
    """Put files into the Hub's cache, as a download would."""
    from huggingface_hub import constants

    commit = "5" * 40
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}--{repo.replace('/', '--')}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for path, source in files.items():
        target = folder / "snapshots" / commit / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder


def loads(folder: Path, found: Opened) -> None:
    from datasets import load_dataset

    (folder / CARD).write_text(found.data_card, encoding="utf-8")
    for each in found.study.tables:
        loaded = load_dataset(str(folder), each.name)
        assert set(loaded) == set(each.files)
        for split, artifact in each.files.items():
            rows = [row.value for row in artifact.value]
            assert loaded[split].num_rows == len(rows)
            assert set(loaded[split].column_names) == set(each.columns)
            for row, expected in zip(loaded[split], rows, strict=True):
                assert _without_nulls(row) == _without_nulls(expected)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
