from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from some_saes import between, random_sae
from tiny_models import ARCHITECTURES, HIDDEN, TEXT, random_vector, tiny_language_model

from steer_eval.sae import topk
from steer_eval.sae.activity import Reply, activity
from steer_eval.steering.interventions import Add

LAYER = 2
PROMPTS = ["The river rose.", "Nobody had slept!", "Was it the rain that woke her in the night?", "He said so."] * 3


def replies(lm) -> list[Reply]:
    """Prompts and replies of many lengths, more than one batch of them."""
    texts = [TEXT[: 11 + 9 * number] for number in range(len(PROMPTS))]
    return [
        Reply(tuple(lm.chat_ids(prompt)), tuple(lm.text_ids(text, special_tokens=False)))
        for prompt, text in zip(PROMPTS, texts, strict=True)
    ]


def directly(lm, reply: Reply, push: torch.Tensor | None) -> torch.Tensor:
    """Residuals over the tokens of one reply, by a hook and a full forward pass, `[tokens, hidden]`."""
    seen = {}

    def hook(_module, _arguments, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if push is not None:
            hidden = hidden + push
        seen["hidden"] = hidden
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = lm.blocks[LAYER].register_forward_hook(hook)
    try:
        with torch.no_grad():
            lm.module(input_ids=torch.tensor([reply.prompt + reply.ids]), use_cache=False)
    finally:
        handle.remove()
    return seen["hidden"][0, len(reply.prompt) :]


@pytest.mark.parametrize("coefficient", [None, 3.0])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activity_is_that_of_one_text_at_a_time(architecture, coefficient):
    lm = tiny_language_model(architecture)
    sae, texts = random_sae(HIDDEN, 96, 8), replies(lm)
    vector = random_vector(7)
    push = None if coefficient is None else coefficient * vector
    residuals = [directly(lm, text, push) for text in texts]
    # About half of the tokens count as sinks.
    threshold = between(torch.cat(residuals).norm(dim=1))
    done = []

    found = activity(
        lm,
        sae,
        texts,
        () if coefficient is None else (Add(LAYER, vector, coefficient),),
        threshold=threshold,
        on_replies=done.append,
    )

    for row, x in enumerate(residuals):
        acts = topk.encode(sae, x[x.norm(dim=1) <= threshold]).double()
        assert found.tokens[row] == len(acts)
        expected = acts.sum(dim=0) / max(1, len(acts))
        assert np.allclose(found.means[row], expected.numpy(), rtol=1e-4, atol=1e-4)
        assert np.array_equal(found.firing[row], (acts > 0).sum(dim=0).numpy())
    assert 0 < found.tokens.sum() < sum(len(text.ids) for text in texts)
    assert sum(done) == len(texts)


def test_an_edit_of_nothing_changes_nothing():
    lm = tiny_language_model()
    sae, texts = random_sae(HIDDEN, 96, 8), replies(lm)

    plain = activity(lm, sae, texts, (), threshold=math.inf)
    zero = activity(lm, sae, texts, (Add(LAYER, random_vector(7), 0.0),), threshold=math.inf)
    above = activity(lm, sae, texts, (Add(LAYER + 1, random_vector(7), 5.0),), threshold=math.inf)

    assert np.array_equal(zero.means, plain.means)
    assert np.array_equal(above.means, plain.means)
