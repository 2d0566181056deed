"""SAELens loads exported SAEs and computes, bit by bit, what `steer_eval.sae.topk` says; and we read what it saves."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from interop.saes import Exported, export_sae, job, residuals, results

from steer_eval.errors import FormatError
from steer_eval.formats.sae import TENSORS, TopKSae
from steer_eval.formats.saelens import CONFIG, read_saelens, write_saelens
from steer_eval.sae.feature_activity import FeatureActivity, write_feature_activity
from steer_eval.sae.recipe import RECIPES
from steer_eval.sae.topk import decode, encode
from steer_eval.sae.training import Training

EXPORTS = {
    "float32": ("saelens", torch.float32),
    "float16": ("saelens", torch.float16),
    "bfloat16": ("saelens", torch.bfloat16),
    "both": ("sae-both", torch.float32),
    "legacy": ("saelens", torch.float32),
}
WIDTH = 16
TRAINED = ("inference", "training", "again", "folded")
OURS = "ours"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saes")


@pytest.fixture(scope="module")
def exports(folder) -> dict[str, Exported]:
    exports = {
        name: export_sae(folder / name, target, dtype=dtype, seed=seed)
        for seed, (name, (target, dtype)) in enumerate(EXPORTS.items())
    }
    sae = exports["legacy"].sae
    flat = {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": sae.k},
        "normalize_activations": False,
        "model_name": sae.model,
        "hook_name": f"blocks.{sae.layer}.hook_resid_post",
    }
    (folder / "legacy" / "exported" / f"layers.{sae.layer}" / CONFIG).write_text(json.dumps(flat), encoding="utf-8")
    return exports


@pytest.fixture(scope="module")
def trained_here(folder) -> TopKSae:
    """An SAE after some steps of our training, with its scale folded into the biases."""
    values = 5 * torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(3)) + 7

    class InMemory:
        def __len__(self) -> int:
            return len(values)

        def rows(self, indices: torch.Tensor) -> torch.Tensor:
            return values[indices]

    training = Training(InMemory(), d_in=WIDTH, d_sae=96, k=4, recipe=RECIPES["recommended"], seed=0)
    assert [progress.step for progress in training.run(until=12)] == list(range(1, 13))
    sae = training.sae(layer=3, model="lab/tiny", provenance={"method": "top-k"})
    write_saelens(folder / "trained" / OURS, sae)
    # What else our training leaves in the folder is not looked at.
    activity = FeatureActivity(torch.ones(96), torch.full((96,), 0.5))
    write_feature_activity(folder / "trained" / OURS, activity, tokens=2000)
    return sae


@pytest.fixture(scope="module")
def answers(consumer, folder, exports, trained_here) -> dict[str, Any]:
    """What SAELens says of all SAEs, in one process: importing it takes ten seconds."""
    residuals(folder)
    residuals(folder / "trained", WIDTH)
    # The lines for one folder for two tools stand in the order of the tools' names in the format's.
    jobs = {name: job(folder, name, exported.usage.split("\n\n")[0]) for name, exported in exports.items()}
    for name in (*TRAINED, OURS):
        usage = f"from sae_lens import SAE\nsae = SAE.load_from_disk({str(folder / 'trained' / name)!r})"
        jobs[name] = job(folder / "trained", name, usage)
    return consumer(
        "sae-lens",
        train=str(folder / "trained"),
        residuals=str(folder / "trained" / "residuals.safetensors"),
        jobs=jobs,
    )[0]


@pytest.mark.parametrize("name", EXPORTS)
def test_sae_lens_computes_the_same_bits(folder, exports, answers, name):
    sae, theirs, inputs = exports[name].sae, results(folder, name), residuals(folder)

    assert answers[name]["class"] == "TopKSAE"
    acts = encode(sae, inputs)
    assert ((acts > 0).sum(dim=-1) == sae.k).all()
    assert torch.equal(theirs["acts"], acts)
    assert torch.equal(theirs["decoded"], decode(sae, acts))
    assert torch.equal(theirs["forward"], decode(sae, acts))


@pytest.mark.parametrize("name", EXPORTS)
def test_sae_lens_has_the_tensors_of_the_study_file(folder, exports, answers, name):
    original, state = exports[name].original, results(folder, name)["state"]

    assert set(state) == set(TENSORS)
    for key in TENSORS:
        assert state[key].dtype == torch.float32
        assert torch.equal(state[key], original[key].float())


def test_what_we_train_computes_the_same_bits_there(folder, answers, trained_here):
    theirs, inputs = results(folder / "trained", OURS), residuals(folder / "trained", WIDTH)

    acts = encode(trained_here, inputs)
    assert torch.equal(theirs["acts"], acts)
    assert torch.equal(theirs["decoded"], decode(trained_here, acts))
    assert all(torch.equal(trained_here.tensors()[key], theirs["state"][key]) for key in TENSORS)
    assert answers[OURS]["config"]["metadata"]["steer_eval"] == {"method": "top-k"}


def test_sae_lens_knows_what_the_sae_is_of(exports, answers):
    config = answers["float32"]["config"]

    assert {key: config[key] for key in ("d_in", "d_sae", "k")} == {"d_in": 576, "d_sae": 2304, "k": 32}
    assert config["metadata"]["model_name"] == "lab/tiny-base"
    assert config["metadata"]["hook_name"] == "blocks.14.hook_resid_post"
    assert config["metadata"]["sae_lens_training_version"] is None
    assert config["metadata"]["steer_eval"] == exports["float32"].sae.provenance


def test_a_folder_of_an_earlier_release_is_read_as_sae_lens_does(folder, exports, answers):
    sae = read_saelens(folder / "legacy" / "exported" / "layers.14")

    assert torch.equal(encode(sae, residuals(folder)), results(folder, "legacy")["acts"])
    assert answers["legacy"]["config"]["metadata"]["hook_name"] == "blocks.14.hook_resid_post"


@pytest.mark.parametrize("name", ["inference", "again", "folded"])
def test_what_sae_lens_trains_is_read(folder, answers, name):
    sae = read_saelens(folder / "trained" / name)
    theirs, inputs = results(folder / "trained", name), residuals(folder / "trained", WIDTH)

    assert (sae.d_in, sae.d_sae, sae.k, sae.layer, sae.model) == (WIDTH, 96, 4, 3, "lab/tiny")
    assert all(torch.equal(sae.tensors()[key], theirs["state"][key]) for key in TENSORS)
    # SAELens goes on multiplying by the decoder's norms, which are 1 up to the rounding of their own division.
    assert answers[name]["config"]["rescale_acts_by_decoder_norm"] is True
    acts = encode(sae, inputs)
    assert torch.equal(acts > 0, theirs["acts"] > 0)
    torch.testing.assert_close(theirs["acts"], acts, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(theirs["decoded"], decode(sae, acts), rtol=1e-5, atol=1e-5)


def test_what_sae_lens_saves_while_it_trains_is_refused_with_the_fix(folder, answers):
    with pytest.raises(FormatError, match="rescale_acts_by_decoder_norm") as caught:
        read_saelens(folder / "trained" / "training")

    assert "sae.fold_W_dec_norm(); sae.save_model(" in caught.value.fix
    # That fix, which the script followed, leaves the reconstruction as it was.
    before, after = results(folder / "trained", "training"), results(folder / "trained", "folded")
    torch.testing.assert_close(after["decoded"], before["decoded"], rtol=1e-4, atol=1e-4)
