"""Vectors are held to the configuration of their base model, where the Hub cache has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import legacy_contents as contents
import legacy_edits as edits
import pytest
from legacy import MANIFESTS


@pytest.fixture
def base_models(tmp_path, monkeypatch) -> Callable[..., None]:
    """Puts configurations of base models into a Hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(model: str, **config: Any) -> None:
        folder = tmp_path / "cache" / f"models--{model.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
        (snapshot / "config.json").write_text(json.dumps(config))

    return put


def test_vectors_that_fit_the_base_model_are_no_finding(place, base_models):
    base_models("den/fox-3B", text_config={"hidden_size": 12, "num_hidden_layers": 10}, hidden_size=99)
    base_models("den/fox-0.5B", n_embd=8, n_layer=10)

    assert place.findings() == MANIFESTS


def test_vectors_are_held_to_the_base_models_configuration(place, base_models):
    base_models("den/fox-3B", hidden_size=16, num_hidden_layers=9)
    found = [each for each in place.findings() if each not in MANIFESTS]

    layers = [f"model/vectors/fox_large_L{layer}_caa.pt" for layer in contents.LAYERS]
    shapes = [("error", "vector-shape", file, "vector") for file in layers]
    assert sorted(found) == sorted([*shapes, ("error", "vector-layer", layers[-1], "layer")])


def test_an_odd_vector_is_one_finding_where_the_configuration_is_known(place, base_models):
    base_models("den/fox-3B", hidden_size=12, num_hidden_layers=10)
    edits.wider(edits.LARGE_2)(place)

    assert [each[:3] for each in place.findings() if each[1] == "vector-shape"] == [
        ("error", "vector-shape", edits.LARGE_2)
    ]
