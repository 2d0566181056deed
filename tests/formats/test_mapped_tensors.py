"""Held to safetensors' own reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steer_eval.formats.mapped_tensors import MappedTensors
from steer_eval.formats.safetensors_file import read_header

VALUES = {
    "W": torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    "b": torch.tensor([0.0, -0.0, 1e-30, 65504.0, -2.5]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_are_those_that_are_stored(tmp_path, dtype):
    stored = {key: value.to(dtype) for key, value in VALUES.items()}
    save_file(stored, tmp_path / "t.safetensors")
    mapped = MappedTensors(tmp_path / "t.safetensors", read_header(tmp_path / "t.safetensors", name="t"))

    for key, value in stored.items():
        found = mapped.values(key)
        assert found.dtype == np.float32
        assert found.tobytes() == value.float().numpy().tobytes()
    assert np.array_equal(mapped.values("W", [3, 0]), stored["W"][[3, 0]].float().numpy())
    assert np.array_equal(mapped.values("W", (slice(None), [6])), stored["W"][:, [6]].float().numpy())


def test_a_file_that_was_cut_since_is_an_error(tmp_path):
    path = tmp_path / "t.safetensors"
    save_file(VALUES, path)
    mapped = MappedTensors(path, read_header(path, name="t"))
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(ValueError, match="mmap"):
        [mapped.values(key) for key in VALUES]
