from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_fixtures import run_client
from hub_server import HubServer

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


def test_nothing_is_fetched(hub: HubServer, tmp_path: Path):
    """In a process that may ask a Hub that has the configuration: it is known once somebody has fetched it."""
    hub.upload("lab/base", "model", {"config.json": b'{"hidden_size": 12, "num_hidden_layers": 3}'})
    script = """
import dataclasses, json, sys
from steer_eval.base_config import base_config
if sys.argv[1:] == ["fetch"]:
    from huggingface_hub import hf_hub_download
    hf_hub_download("lab/base", "config.json")
found = base_config("lab/base")
print(json.dumps(found and dataclasses.asdict(found)))
"""
    env = hub.environment(tmp_path)

    assert run_client(script, env) is None
    assert hub.requests == []
    assert run_client(script, env, "fetch") == {"hidden_size": 12, "layers": 3}
    assert hub.requests != []
