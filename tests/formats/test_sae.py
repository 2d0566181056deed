from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pt_files
import pytest
import torch
from pt_files import bits, saved

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.sae import TENSORS, TopKSae, checked_sae, read_sae_pt


def same_bits(sae: TopKSae, state: dict) -> bool:
    return all(
        tensor.dtype == torch.as_tensor(state[key]).dtype
        and tensor.shape == state[key].shape
        and bits(tensor) == bits(torch.as_tensor(state[key]))
        for key, tensor in sae.tensors().items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_bit_and_the_dtype_survive(tmp_path, dtype):
    content = pt_files.sae(dtype=dtype)
    sae = read_sae_pt(saved(tmp_path / "x.pt", content))

    assert same_bits(sae, content["state_dict"])
    assert (sae.d_in, sae.d_sae, sae.k, sae.layer, sae.model) == (4, 12, 3, 14, "lab/tiny-base")
    assert tuple(sae.tensors()) == TENSORS
    assert sae.provenance == {"final_recon": "0.25", "steps": "4000"}


FORMS = {
    "parameters": torch.nn.Parameter,
    "arrays": lambda tensor: tensor.numpy(),
    "transposed": lambda tensor: tensor.mT.contiguous().mT if tensor.ndim == 2 else tensor,
    "views": lambda tensor: torch.cat([tensor, tensor])[: len(tensor)],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_other_ways_to_hold_the_tensors_are_plain_tensors_when_read(tmp_path, form):
    content = pt_files.sae()
    stored = {key: form(tensor) for key, tensor in content["state_dict"].items()}
    sae = read_sae_pt(saved(tmp_path / "x.pt", {**content, "state_dict": stored}))

    assert same_bits(sae, content["state_dict"])
    assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in sae.tensors().values())


def test_the_state_of_a_module_is_read(tmp_path):
    content = pt_files.sae()
    module = torch.nn.Module()
    for key, tensor in content["state_dict"].items():
        module.register_parameter(key, torch.nn.Parameter(tensor))

    assert same_bits(
        read_sae_pt(saved(tmp_path / "x.pt", {**content, "state_dict": module.state_dict()})), content["state_dict"]
    )


def changed(**changes: object) -> dict:
    return {**pt_files.sae(), **changes}


def with_tensor(key: str, tensor: object) -> dict:
    content = pt_files.sae()
    return {**content, "state_dict": {**content["state_dict"], key: tensor}}


def without_tensor(key: str) -> dict:
    content = pt_files.sae()
    return {**content, "state_dict": {name: each for name, each in content["state_dict"].items() if name != key}}


BAD = {
    "no state": ({key: value for key, value in pt_files.sae().items() if key != "state_dict"}, "state_dict"),
    "no encoder": (without_tensor("W_enc"), "W_enc"),
    "no decoder bias": (without_tensor("b_dec"), "b_dec"),
    "another tensor": (with_tensor("threshold", torch.ones(12)), "threshold"),
    "double precision": (with_tensor("b_enc", torch.ones(12, dtype=torch.float64)), "state_dict.b_enc.dtype"),
    "bias of one row": (with_tensor("b_enc", torch.ones(1, 12)), "state_dict.b_enc.shape"),
    "encoder transposed": (with_tensor("W_enc", torch.ones(12, 4)), r"state_dict.W_enc: the shape does not fit"),
    "decoder transposed": (with_tensor("W_dec", torch.ones(4, 12)), r"state_dict.W_dec: the shape does not fit"),
    "encoder bias of the input": (with_tensor("b_enc", torch.ones(4)), "state_dict.b_enc: the shape does not fit"),
    "decoder bias of the features": (with_tensor("b_dec", torch.ones(12)), "state_dict.b_dec: the shape does not fit"),
    "another width": (changed(d_model=5), "state_dict.W_enc: the shape does not fit d_in 5 and d_sae 12"),
    "another number of features": (changed(d_sae=13), "does not fit d_in 4 and d_sae 13"),
    "too many features fire": (changed(k=13), "k: k is larger than the number of features 12"),
    "no feature fires": (changed(k=0), "k: "),
    "k of a float": (changed(k=3.0), "k: "),
    "layer of text": (changed(layer="14"), "layer: "),
    "model of no name": (changed(model_id=""), "model_id: "),
    "negative loss": (changed(final_recon=-0.1), "final_recon: "),
    "loss of a tensor": (changed(final_recon=torch.tensor(0.1)), "final_recon: "),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_named(tmp_path, content, message):
    with pytest.raises(FormatError, match=f"^saes/x.pt: .*{message}") as caught:
        read_sae_pt(saved(tmp_path / "x.pt", content), name="saes/x.pt")

    assert caught.value.fix or caught.value.expected is not None


def test_all_features_may_fire(tmp_path):
    assert read_sae_pt(saved(tmp_path / "x.pt", changed(k=12))).k == 12


@pytest.mark.parametrize(
    ("key", "index", "place"),
    [("W_enc", (3, 11), "3, 11"), ("b_enc", (0,), "0"), ("W_dec", (11, 0), "11, 0"), ("b_dec", (3,), "3")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_that_is_no_number_is_named_with_its_index(tmp_path, key, index, place, dtype):
    content = pt_files.sae(dtype=dtype)
    content["state_dict"][key][index] = float("nan")

    with pytest.raises(NotFiniteError) as caught:
        read_sae_pt(saved(tmp_path / "x.pt", content), name="saes/x.pt")

    assert caught.value.where == f"state_dict.{key}[{place}]"


def test_tensors_are_named_as_their_file_names_them():
    tensors = list(pt_files.sae()["state_dict"].values())
    tensors[2][1, 1] = float("inf")

    with pytest.raises(NotFiniteError) as caught:
        checked_sae(tensors, k=3, layer=1, model="m", provenance={}, name="x")

    assert caught.value.where == "W_dec[1, 1]"


# Anonymous memory is what a process has beyond the files that it maps.
MEASURE = """
import sys
from pathlib import Path
from steer_eval.formats.sae import read_sae_pt

def anonymous():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024

read_sae_pt(Path(sys.argv[1]))
before = anonymous()
sae = read_sae_pt(Path(sys.argv[2]))
print(anonymous() - before, sae.d_in, sae.d_sae, float(sae.w_enc.double().sum()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_an_sae_of_the_study_s_size_stays_in_its_file(tmp_path):
    content = pt_files.sae(2048, 8192, k=64)
    small, large = saved(tmp_path / "small.pt", pt_files.sae()), saved(tmp_path / "large.pt", content)
    total = float(content["state_dict"]["W_enc"].double().sum())
    assert large.stat().st_size > 134_000_000
    del content

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(large)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    grown, d_in, d_sae, observed = done.stdout.split()
    assert (int(d_in), int(d_sae)) == (2048, 8192)
    # Threads add in another order in the other process.
    assert float(observed) == pytest.approx(total, rel=1e-9)
    # A copy of one matrix would be 67 MB.
    assert int(grown) < 12e6
