"""A tiny study that plans an SAE, and the cache in which it is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from sae_study import SAE, edit, write_documents
from tiny_study import Folders

from steer_eval.sae import produce, training_log


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, in which shards are small and measurements frequent."""
    monkeypatch.setenv("STEER_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("steer_eval.sae.activations.SEQUENCES_PER_SHARD", 40)
    monkeypatch.setattr(produce, "CHECKPOINT_EVERY", 8)
    monkeypatch.setattr(training_log, "EVERY", 5)
    monkeypatch.setattr(training_log, "ENTROPY_EVERY", 10)
    return tmp_path / "cache" / "saes"


@pytest.fixture
def planned(folders: Folders, work: Path) -> Folders:
    write_documents(folders)
    edit(folders, saes=[SAE])
    return folders
