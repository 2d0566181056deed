"""sparsify loads exported SAEs and computes what `steer_eval.sae.topk` says, up to the rounding of float32 sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from interop.saes import Exported, export_sae, job, residuals, results

from steer_eval.sae.topk import decode, encode

EXPORTS = {
    "float32": ("sparsify", torch.float32),
    "bfloat16": ("sparsify", torch.bfloat16),
    "both": ("sae-both", torch.float32),
}
# sparsify adds the same 576 products in another order. The largest sums here are 300, where float32 has steps of 3e-5.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saes")


@pytest.fixture(scope="module")
def exports(folder) -> dict[str, Exported]:
    return {
        name: export_sae(folder / name, target, dtype=dtype, seed=seed)
        for seed, (name, (target, dtype)) in enumerate(EXPORTS.items())
    }


@pytest.fixture(scope="module")
def answers(consumer, folder, exports) -> dict[str, Any]:
    residuals(folder)
    # The lines for one folder for two tools stand in the order of the tools' names in the format's.
    jobs = {name: job(folder, name, exported.usage.split("\n\n")[-1]) for name, exported in exports.items()}
    return consumer("sparsify", jobs=jobs)[0]


@pytest.mark.parametrize("name", EXPORTS)
def test_sparsify_computes_the_same_numbers(folder, exports, answers, name):
    sae, theirs, inputs = exports[name].sae, results(folder, name), residuals(folder)

    assert (answers[name]["class"], answers[name]["dtype"]) == ("SparseCoder", "torch.float32")
    acts = encode(sae, inputs)
    largest = encode(replace(sae, k=sae.k + 1), inputs).sort(dim=-1, descending=True).values
    clear = largest[:, sae.k - 1] - largest[:, sae.k] > 2 * TOLERANCE
    assert clear.float().mean() > 0.95, "too few rows in which rounding can't change which features fire"
    assert torch.equal(theirs["acts"][clear] > 0, acts[clear] > 0)
    torch.testing.assert_close(theirs["acts"][clear], acts[clear], rtol=0.0, atol=TOLERANCE)
    scale = decode(sae, acts).abs().max()
    for key in ("decoded", "forward"):
        torch.testing.assert_close(theirs[key][clear] / scale, decode(sae, acts)[clear] / scale, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_tolerance_tells_the_decoder_bias_left_out(folder, exports, answers, name):
    sae = exports[name].sae
    without = replace(sae, b_dec=torch.zeros_like(sae.b_dec))

    distance = (encode(without, residuals(folder)) - results(folder, name)["acts"]).abs().max()

    assert distance > 1000 * TOLERANCE


@pytest.mark.parametrize("name", EXPORTS)
def test_sparsify_has_the_tensors_of_the_study_file(folder, exports, answers, name):
    original, state = exports[name].original, results(folder, name)["state"]

    assert set(state) == {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}
    assert torch.equal(state["encoder.weight"], original["W_enc"].T.float())
    assert torch.equal(state["encoder.bias"], original["b_enc"].float())
    assert torch.equal(state["W_dec"], original["W_dec"].float())
    assert torch.equal(state["b_dec"], original["b_dec"].float())


@pytest.mark.parametrize("name", EXPORTS)
def test_sparsify_knows_the_settings(answers, name):
    config = answers[name]["config"]

    assert (config["num_latents"], config["k"], config["activation"]) == (2304, 32, "topk")
    assert not any(config[key] for key in ("transcode", "skip_connection", "multi_topk", "normalize_decoder"))
