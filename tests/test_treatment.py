"""What is done to a row decides its key, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from edits_by_hand import SAE, adding, clamp, rotate
from some_saes import random_sae
from tiny_models import HIDDEN, add, random_vector

from steer_eval.digest import sha256_vector
from steer_eval.formats import schema
from steer_eval.steering.interventions import Add, ClampFeatures, Patch, Rotate
from steer_eval.treatment import Treatment, edit_key, edit_to_json, sae_digest


def patch(at=(0, 2), fill=1.0, layer=2):
    return Patch(layer, torch.full((len(at), HIDDEN), fill), at)


def other_sae(features=(3, 4)):
    return ClampFeatures(2, random_sae(HIDDEN, 96, 8, seed=1), features, torch.tensor([1.0, 2.0]))


EDITS = [
    add(2, 1.0),
    add(3, 1.0),
    add(2, 2.0),
    add(2, 1.0, seed=1),
    adding(2, 1.0, "prompt"),
    adding(2, 1.0, "generated"),
    rotate(2, 1.0),
    rotate(2, 2.0),
    rotate(2, 1.0, "generated"),
    clamp(2, 1.0, 2.0),
    clamp(2, 1.0, 3.0),
    clamp(2, 1.0),
    clamp(2, 1.0, 2.0, first=5),
    clamp(2, 1.0, 2.0, sink_norm=9.0),
    clamp(2, 1.0, 2.0, positions="prompt"),
    other_sae(),
    patch(),
    patch(at=(0, 3)),
    patch(fill=2.0),
    patch(layer=1),
]


def test_every_change_of_an_edit_changes_its_key():
    keys = [repr(edit_key(edit)) for edit in EDITS]

    assert len(set(keys)) == len(EDITS)


def test_an_addition_is_keyed_as_journals_have_it():
    vector = random_vector(1)

    assert edit_key(Add(2, vector, -1.5)) == (2, -1.5, sha256_vector(vector.numpy()))


def test_the_digest_of_an_sae_is_of_its_values():
    changed = random_sae(HIDDEN, 96, 8)
    changed.w_dec[3, 4] += 1e-3

    assert sae_digest(random_sae(HIDDEN, 96, 8)) == sae_digest(SAE)
    assert sae_digest(changed) != sae_digest(SAE)
    assert sae_digest(random_sae(HIDDEN, 96, 7)) != sae_digest(SAE)
    assert sae_digest(random_sae(HIDDEN, 96, 8, seed=2)) != sae_digest(SAE)


@pytest.mark.parametrize("edit", [edit for edit in EDITS if not isinstance(edit, Patch)])
def test_what_a_row_says_of_an_edit_satisfies_the_schema(edit):
    row = {
        "variant": "some-method",
        "label": "steered",
        "layer": None,
        "coef": 0.0,
        "edits": [edit_to_json(edit)],
        "base_ppl": 20.0,
        "ppl": 20.0,
        "ppl_ratio": 1.0,
        "collapsed": False,
        "sentence_nll": [1.0],
        "sentence_tokens": [1],
        "generations": [],
    }
    schema.check(row, "comparison_row", file="x")


def test_what_a_row_says_of_an_addition_is_what_is_added():
    vector = torch.zeros(HIDDEN)
    vector[:2] = torch.tensor([3.0, 4.0])

    for kind, name in ((Add, "add"), (Rotate, "rotate")):
        said = edit_to_json(kind(2, vector, -2.0))
        assert (said["kind"], said["layer"], said["coefficient"], said["norm"]) == (name, 2, -2.0, 10.0)


def test_the_unsteered_model_is_scored_in_the_same_place():
    treated = Treatment((patch(),), after="The river rose.")

    assert treated.unsteered.keys() == []
    assert treated.unsteered.context == treated.context == {"after": "The river rose."}
    # A system prompt is what is tried, so the model without it is what it is compared with.
    anchored = Treatment((add(2, 1.0),), system="Be firm.")
    assert anchored.context == "Be firm."
    assert anchored.unsteered.context is None
