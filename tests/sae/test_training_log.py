from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from steer_eval.errors import SteerEvalError
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.sae import training_log
from steer_eval.sae.activations import Activations, Shard
from steer_eval.sae.recipe import Recipe
from steer_eval.sae.training import Progress, Training
from steer_eval.sae.training_log import TrainingLog


def activations() -> Activations:
    values = torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    places = torch.arange(400, dtype=torch.int32)
    return Activations([Shard(values.bfloat16(), places, places, places, places)])


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_batch_without_variance_is_refused_and_nothing_written_that_json_has_not(tmp_path, loss):
    training = Training(activations(), d_in=12, d_sae=32, k=3, recipe=Recipe(batch=40, epochs=1), seed=0)
    log = TrainingLog(tmp_path / "log.jsonl", training, activations(), lambda _: None)
    last = Progress(training.steps, loss, 3.0, 0.0)

    with pytest.raises(SteerEvalError, match="no variance to explain") as caught:
        log.add(last)
    assert "saes.text" in caught.value.fix
    assert not log.file.exists()
    assert log.add(replace(last, loss=0.5))


def test_the_last_excess_stays_beside_the_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, "EVERY", 2)
    monkeypatch.setattr(training_log, "ENTROPY_EVERY", 4)
    training = Training(activations(), d_in=12, d_sae=32, k=3, recipe=Recipe(batch=40, epochs=1), seed=0)
    given: list[TopKSae] = []

    def excess(sae: TopKSae) -> float:
        given.append(sae)
        return len(given) / 8

    log = TrainingLog(tmp_path / "log.jsonl", training, activations(), excess)
    notes = [log.add(progress).partition(", dead 0.0 %")[2] for progress in training.run()]

    first, second, third = (f", excess {nats} nats" for nats in ("0.125", "0.250", "0.375"))
    assert notes == ["", "", "", first, "", first, "", second, "", third]
    rows = [row.value for row in read_jsonl(tmp_path / "log.jsonl", schema="sae_training_row")]
    assert [(row["step"], row.get("excess_cross_entropy")) for row in rows] == [
        (2, None),
        (4, 0.125),
        (6, None),
        (8, 0.25),
        (10, 0.375),
    ]
    assert not torch.equal(given[0].w_dec, given[1].w_dec)
