"""The code of the cards runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import legacy_contents as contents
import pytest
import torch
from click.testing import CliRunner
from legacy_cards.opened import cached, code, opened
from tiny_models import tiny_tokenizer

from steer_eval.cli.main import cli
from steer_eval.legacy.identity import Asked


def tiny_base(folder: Path, width: int) -> dict[str, Path]:
    """A random model of a width, with as many blocks as the synthetic study steers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=320,
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=max(contents.LAYERS) + 1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=False,
            initializer_range=0.3,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return {path.name: path for path in folder.iterdir()}


def run(blocks: list[str]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "card", "exec"), names)  # noqa: S102 - running it is the test
    return names


def used(card: str) -> tuple[str, int, float]:
    """Path, layer and coefficient of the vector in the code."""
    path = re.search(r'hf_hub_download\("[^"]+", "([^"]+)"\)', card)
    layer = re.search(r"model\.model\.layers\[(\d+)\]", card)
    coefficient = re.search(r"coefficient=([-+0-9.]+)\)", card)
    assert path
    assert layer
    assert coefficient
    return path[1], int(layer[1]), float(coefficient[1])


def test_the_code_steers_the_model(place, tmp_path, capsys):
    card = opened(place.model, place.data).model_card
    path, layer, coefficient = used(card)
    size = "large" if "large" in path else "small"
    cached("den/model", {path: place.model / path})
    cached(contents.BASE_MODEL[size], tiny_base(tmp_path / "base", contents.WIDTH[size]))

    names = run(code(card))

    assert torch.equal(names["vector"], contents.direction(size, layer))
    assert f"shape: ({contents.WIDTH[size]},)" in card
    plain = names["model"].generate(**names["inputs"], max_new_tokens=80, do_sample=False)
    assert not torch.equal(plain, names["output"])
    assert capsys.readouterr().out
    hidden = torch.zeros(1, 2, contents.WIDTH[size])
    assert torch.equal(names["steer"](None, (), (hidden, 1))[0], hidden + coefficient * names["vector"])


def test_the_code_loads_a_converted_vector(place, tmp_path):
    safe = tmp_path / "safe"
    assert CliRunner().invoke(cli, ["convert", str(place.model), "--out", str(safe)]).exit_code in (0, 1)
    card = opened(safe, place.data, Asked(repo="den/safe")).model_card
    path, layer, _ = used(card)
    size = "large" if "large" in path else "small"
    assert path.endswith(".safetensors")
    cached("den/safe", {path: safe / path})

    assert torch.equal(run(code(card)[:1])["vector"], contents.direction(size, layer))


def test_the_code_of_the_published_study_loads_its_vector(published, upstream):
    card = published.model_card
    path, layer, coefficient = used(card)
    cached(published.study.identity.repo, {path: upstream / "model" / path})

    vector = run(code(card)[:1])["vector"]

    assert vector.norm().item() == pytest.approx(torch.load(upstream / "model" / path, weights_only=True)["norm"])
    assert (layer, coefficient) == (13, 1.0)
    for block in code(card):
        compile(block, "card", "exec")
