"""Texts beyond the length up to which a rotary embedding is fixed are refused, and others are read as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from more_models import another_language_model
from tiny_models import add

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.serial import generate_serial
from steer_eval.model import LanguageModel, load_model

LONGEST = 16
LONG = {"short_factor": [1.0] * 6, "long_factor": [4.0] * 6}
CHANGING: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rope_parameters": {"rope_type": "longrope", "factor": 4.0, **LONG}}),
    (
        "phi3",
        {
            "rope_parameters": {"rope_type": "longrope", "factor": 4.0, **LONG},
            "original_max_position_embeddings": LONGEST,
        },
    ),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": LONGEST}),
]


@pytest.fixture(params=CHANGING, ids=["llama, longrope", "phi3, longrope", "llama, dynamic"])
def lm(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageModel:
    architecture, own = request.param
    fixed = {"rope_theta": 10000.0, "original_max_position_embeddings": LONGEST}
    own = {**own, "rope_parameters": {**fixed, **own["rope_parameters"]}}
    made = another_language_model(architecture, initializer_range=0.3, **own)
    made.module.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    return load_model(tmp_path)


def test_texts_up_to_the_limit_are_those_of_the_serial_path(lm: LanguageModel) -> None:
    requests = [Request(tuple(range(7, 7 + length)), (add(1, 1.0),)) for length in (3, 5, LONGEST - 6)]

    for index, text in generate_grid(lm, requests, max_new_tokens=6):
        assert generate_serial(lm, requests[index], max_new_tokens=6).agrees_with(text.ids)


def test_a_longer_text_is_refused(lm: LanguageModel) -> None:
    lm.final_hidden(torch.arange(7, 7 + LONGEST)[None])
    with pytest.raises(
        SteerEvalError, match=rf"^{LONGEST + 1} tokens are to be read, and beyond {LONGEST} "
    ) as refused:
        lm.final_hidden(torch.arange(7, 8 + LONGEST)[None])
    assert f"within {LONGEST} tokens" in refused.value.fix
    requests = [Request(tuple(range(7, 7 + length)), ()) for length in (3, LONGEST - 2)]
    with pytest.raises(SteerEvalError, match="depend on the texts beside it"):
        list(generate_grid(lm, requests, max_new_tokens=6))


def test_a_fixed_embedding_reads_any_length(tmp_path: Path) -> None:
    made = another_language_model("llama")
    made.module.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    lm = load_model(tmp_path)

    assert lm.final_hidden(torch.arange(7, 307)[None]).shape[1] == 300
    assert not any(child._forward_pre_hooks for child in lm.module.modules())
