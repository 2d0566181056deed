"""A study of two models of which one is the other, rotated."""

from __future__ import annotations

import pytest
from tiny_models import save_tiny_model
from tiny_study import document, invoke
from transfer_models import rotated_language_model
from transfer_study import BACK, PLANNED, Place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("transfer")
    place = Place(root / "tiny", root / "tiny-data")
    place.model.mkdir()
    save_tiny_model(root / "base")
    turned = rotated_language_model("llama")
    turned.module.save_pretrained(root / "turned")
    turned.tokenizer.save_pretrained(root / "turned")
    models = document()["models"]
    models["turned"] = {"base_model": "lab/tiny-turned", "source": {"local": {"path": "../turned"}}}
    place.begin({**document(), "models": models})
    place.plan(PLANNED, BACK)
    return place


@pytest.fixture(scope="module")
def transferred(place: Place) -> Place:
    for step in ("fit", "apply", "diagnose"):
        assert invoke("transfer", step, str(place.model)).exit_code == 0
    return place
