"""lm-eval measures the same perplexity, by code that shares nothing with ours but the model.

Its own perplexity metrics count words or bytes and condition the first token on a prefix; the task below asks it for
the log-likelihood of all tokens but the first.
"""

import datasets
import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.api.metrics import weighted_perplexity
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny_models import fingerprint, random_vector

from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.steering.interventions import Add
from steer_eval.study import PerplexityProtocol

pytestmark = pytest.mark.slow

# lm-eval takes the logarithm of the softmax in float32, ours sums in float64: that alone is almost this much.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def corpus(smollm2, packaged_data):
    text = (packaged_data / "perplexity_corpus.txt").read_text(encoding="utf-8")
    return tokenise(text, smollm2, PerplexityProtocol("", window=256, beyond="truncate"))


def token_perplexity_task(lm, corpus) -> ConfigurableTask:
    ids = corpus.windows[0].ids
    first, rest = lm.tokenizer.decode(ids[:1]), lm.tokenizer.decode(ids[1:])
    # lm-eval gets text, so its tokens must be ours.
    assert tuple(lm.text_ids(first + rest, special_tokens=True)) == ids
    assert tuple(lm.text_ids(first, special_tokens=True)) == ids[:1]
    return ConfigurableTask(
        config={
            "task": "token_perplexity",
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list([{"first": first, "rest": rest}])},
            "test_split": "test",
            "output_type": "loglikelihood",
            "doc_to_text": "{{first}}",
            "doc_to_target": "{{rest}}",
            "target_delimiter": "",
            "process_results": lambda _doc, results: {"token_perplexity": (results[0][0], len(ids) - 1)},
            "metric_list": [
                {"metric": "token_perplexity", "aggregation": weighted_perplexity, "higher_is_better": False}
            ],
        }
    )


def measured_by_lm_eval(lm, corpus, model) -> float:
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=[token_perplexity_task(lm, corpus)],
        # Reading the thousands of tasks that come with lm-eval takes longer than the measurement.
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    return float(results["results"]["token_perplexity"]["token_perplexity,none"])


CELLS = ({15: 1.0}, {15: -2.0}, {5: 1.0, 25: 0.5}, {29: 2.0})
"""Layers and coefficients of each steered cell."""


def vector_of(layer: int, smollm2) -> torch.Tensor:
    return random_vector(layer, norm=20.0, size=smollm2.hidden_size)


@pytest.fixture(scope="module")
def ours(smollm2, corpus) -> list[float]:
    """Mean loss of the unsteered model and of every cell, all measured at once."""
    cells = [tuple(Add(layer, vector_of(layer, smollm2), c) for layer, c in edits.items()) for edits in CELLS]
    before = fingerprint(smollm2)
    scores = dict(perplexity_grid(smollm2, corpus, [(), *cells]))
    assert fingerprint(smollm2) == before
    return [float(scores[number].mean()) for number in range(len(cells) + 1)]


def test_unsteered(smollm2, corpus, ours):
    model = HFLM(pretrained=smollm2.module, tokenizer=smollm2.tokenizer, batch_size=1, device="cpu")
    assert measured_by_lm_eval(smollm2, corpus, model) == pytest.approx(np.exp(ours[0]), rel=TOLERANCE)


@pytest.mark.parametrize("number", range(len(CELLS)), ids=lambda number: str(CELLS[number]).replace(" ", ""))
def test_steered(smollm2, corpus, tmp_path, ours, number):
    steering = {
        f"layers.{layer}": {
            "steering_vector": vector_of(layer, smollm2),
            "steering_coefficient": c,
            "action": "add",
            "bias": None,
        }
        for layer, c in CELLS[number].items()
    }
    torch.save(steering, tmp_path / "steered.pt")
    before = fingerprint(smollm2)
    model = SteeredModel(
        pretrained=smollm2.module,
        steer_path=str(tmp_path / "steered.pt"),
        tokenizer=smollm2.tokenizer,
        batch_size=1,
        device="cpu",
    )
    assert measured_by_lm_eval(smollm2, corpus, model) == pytest.approx(np.exp(ours[number + 1]), rel=TOLERANCE)
    assert fingerprint(smollm2) == before
    # The edit matters far more than the tolerance.
    assert abs(ours[number + 1] - ours[0]) > 100 * TOLERANCE
