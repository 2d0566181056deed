from __future__ import annotations

import torch
from some_saes import random_sae
from tiny_models import HIDDEN, TEXT, tiny_language_model

from steer_eval.sae import topk
from steer_eval.sae.activations import capture, cut, load_split
from steer_eval.sae.contexts import AFTER, BEFORE, top_contexts


def stored(lm, folder):
    passages = cut(lm, [TEXT[index:] for index in range(0, 60, 3)], context=24, tokens=10**6)
    capture(lm, passages, 2, folder, key={})
    return passages, load_split(folder, "train")


def test_contexts_are_the_strongest_places_of_different_passages(tmp_path):
    lm, sae = tiny_language_model(), random_sae(HIDDEN, 96, 8)
    passages, activations = stored(lm, tmp_path)
    x = activations.rows(torch.arange(len(activations)))
    threshold = float(x.norm(dim=1).quantile(0.9))
    acts = torch.where((x.norm(dim=1) > threshold)[:, None], 0.0, topk.encode(sae, x))
    sequences, positions = activations.sequences().tolist(), activations.positions().tolist()

    found = top_contexts(lm, sae, activations, [5, 17, 60], threshold=threshold, count=4)

    assert list(found) == [5, 17, 60]
    for feature, contexts in found.items():
        strongest: dict[int, tuple[float, int]] = {}
        for row, value in enumerate(acts[:, feature].tolist()):
            if value > strongest.get(sequences[row], (0.0, 0))[0]:
                strongest[sequences[row]] = (value, row)
        expected = sorted(strongest.values(), key=lambda each: -each[0])[:4]
        assert len(contexts) == len(expected) > 0
        assert torch.allclose(
            torch.tensor([each.activation for each in contexts]),
            torch.tensor([each[0] for each in expected]),
            rtol=1e-4,
        )
        if len(expected) > 1 and expected[0][0] - expected[1][0] > 1e-3:
            row = expected[0][1]
            ids, place = passages[sequences[row]].ids, positions[row]
            assert contexts[0].token == lm.decode([ids[place]])
            assert contexts[0].before == lm.decode(list(ids[max(0, place - BEFORE) : place]))
            assert contexts[0].after == lm.decode(list(ids[place + 1 : place + 1 + AFTER]))


def test_a_feature_that_never_fires_has_no_context(tmp_path):
    lm, sae = tiny_language_model(), random_sae(HIDDEN, 96, 8)
    sae.b_enc[3] = -1e9
    _, activations = stored(lm, tmp_path)

    assert top_contexts(lm, sae, activations, [3], threshold=float("inf"), count=5) == {3: ()}
