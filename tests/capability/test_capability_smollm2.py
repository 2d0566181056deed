"""The real model: token perplexity through lm-eval is the number that the study published."""

from __future__ import annotations

import json
import math

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from steer_eval.capability.lm_eval_model import SteeredLM
from steer_eval.capability.source import open_source, steered
from steer_eval.capability.token_perplexity import TASK
from steer_eval.resources import folder

pytestmark = pytest.mark.slow


def test_token_perplexity_is_the_published_one(smollm2, smollm2_weights, packaged_study, packaged_data) -> None:
    source = open_source(str(packaged_study))
    rows = [json.loads(line) for line in (packaged_data / "sweep_smollm2.jsonl").read_text().splitlines()]
    [row] = [row for row in rows if (row["label"], row["layer"], row["coef"]) == ("steered", 18, 2.0)]
    manager = TaskManager(
        include_path=str(folder("tasks")),
        include_defaults=False,
        metadata={"corpus": str(source.corpus), "tokenizer": str(smollm2_weights.folder), "token_ids": True},
    )
    base = SteeredLM(lm=smollm2)
    for model, published in (
        (base, row["base_ppl"]),
        (base.steered(steered(source, 18, 2.0).intervention), row["ppl"]),
    ):
        found = lm_eval.simple_evaluate(model=model, tasks=[TASK], task_manager=manager, bootstrap_iters=0)
        value = found["results"][TASK]["token_perplexity,none"]
        assert math.isclose(value, published, rel_tol=1e-4)
