from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from steer_eval.base_config import BaseConfig, base_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a `config.json` with some text into a Hub cache, in the layout that the library has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def put(model: str, text: str) -> None:
        folder = tmp_path / f"models--{model.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        (folder / "blobs").mkdir()
        (folder / "blobs" / "b").write_text(text, encoding="utf-8")
        (folder / "snapshots" / COMMIT).mkdir(parents=True)
        (folder / "snapshots" / COMMIT / "config.json").symlink_to("../../blobs/b")

    return put


CONFIGS = {
    "plain": ({"hidden_size": 12, "num_hidden_layers": 3}, (12, 3)),
    "GPT-2": ({"n_embd": 12, "n_layer": 3}, (12, 3)),
    "T5 names": ({"d_model": 12, "num_layers": 3}, (12, 3)),
    "multimodal": ({"hidden_size": 99, "text_config": {"hidden_size": 12, "num_hidden_layers": 3}}, (12, 3)),
    "text_config that is none": ({"hidden_size": 12, "num_hidden_layers": 3, "text_config": None}, (12, 3)),
    "width alone": ({"hidden_size": 12}, (12, None)),
    "nothing": ({}, (None, None)),
    "texts": ({"hidden_size": "12", "num_hidden_layers": [3]}, (None, None)),
}


@pytest.mark.parametrize(("config", "sizes"), CONFIGS.values(), ids=CONFIGS)
def test_sizes_are_those_of_the_language_model(cached, config, sizes):
    cached("lab/base", json.dumps(config))

    assert base_config("lab/base") == BaseConfig(*sizes)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"hidden_size": NaN}', "\x00"])
def test_a_configuration_that_is_none_says_nothing(cached, text):
    cached("lab/base", text)

    assert base_config("lab/base") is None


@pytest.mark.parametrize(
    "model", ["", "absent/model", "../../etc", "a/b/c", "x" * 300, "a\x00b", "/etc/passwd", "lab/base "]
)
def test_what_is_not_in_the_cache_says_nothing(cached, model):
    cached("lab/base", '{"hidden_size": 12}')

    assert base_config(model) is None


def test_nothing_is_fetched(cached, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert base_config("absent/model") is None
