"""activity.safetensors: written, read back, and refused where it is damaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from some_saes import random_sae

from steer_eval.errors import FormatError
from steer_eval.formats.saelens import read_saelens, write_saelens
from steer_eval.formats.safetensors_file import read_header
from steer_eval.sae.feature_activity import (
    FILE,
    FORMAT,
    FeatureActivity,
    read_feature_activity,
    write_feature_activity,
)

D_SAE = 6


def some() -> FeatureActivity:
    maximum = torch.tensor([0.0, 1.5, 2.25, 700.0, 1e-6, 3.0])
    return FeatureActivity(maximum, torch.tensor([0.0, 0.5, 1.0, 1e-5, 0.25, 0.125]))


def saved(folder: Path, tensors: dict[str, list[float]], metadata: dict[str, str] | None = None) -> Path:
    """A file with any tensors, by hand: the writer does not make bad ones."""
    header, content = {"__metadata__": {"format": FORMAT, "tokens": "9"} if metadata is None else metadata}, b""
    for name, values in tensors.items():
        data = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": offsets}
        content += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_bytes(struct.pack("<Q", len(text)) + text + content)
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_feature_activity(tmp_path, some(), tokens=80_000)
    found = read_feature_activity(tmp_path, D_SAE)

    assert np.array_equal(found.maximum, some().maximum.numpy())
    assert np.array_equal(found.frequency, some().frequency.numpy())
    assert (found.maximum.dtype, found.frequency.dtype) == (np.float32, np.float32)
    assert read_header(tmp_path / FILE, name=FILE)["__metadata__"] == {"format": FORMAT, "tokens": "80000"}


def test_equal_activities_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_feature_activity(tmp_path / name, some(), tokens=9)

    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "other" / FILE).read_bytes()


def test_the_sae_beside_it_is_read_as_without_it(tmp_path: Path) -> None:
    sae = random_sae(4, D_SAE, 2)
    write_saelens(tmp_path, sae)
    write_feature_activity(tmp_path, some(), tokens=9)

    again = read_saelens(tmp_path)
    assert all(torch.equal(again.tensors()[key], tensor) for key, tensor in sae.tensors().items())


GOOD = {"maximum": [0.0, 2.0], "frequency": [0.0, 0.5]}


@pytest.mark.parametrize(
    ("tensors", "metadata", "where"),
    [
        ({**GOOD, "maximum": [0.0, -1.0]}, None, "maximum[1]"),
        ({**GOOD, "frequency": [0.0, 1.5]}, None, "frequency[1]"),
        ({**GOOD, "frequency": [-0.5, 0.5]}, None, "frequency[0]"),
        ({**GOOD, "maximum": [float("nan"), 1.0]}, None, "maximum[0]"),
        ({**GOOD, "maximum": [float("inf"), 1.0]}, None, "maximum[0]"),
        ({**GOOD, "maximum": [0.0, 2.0, 3.0]}, None, "maximum"),
        ({**GOOD, "frequency": [0.5]}, None, "frequency"),
        ({"maximum": [0.0, 2.0]}, None, "header"),
        ({**GOOD, "sparsity": [0.0]}, None, "header"),
        (GOOD, {"format": "other/1", "tokens": "9"}, "header: __metadata__.format"),
        (GOOD, {"format": FORMAT, "tokens": "many"}, "header: __metadata__.tokens"),
        (GOOD, {}, "header: __metadata__"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(
    tmp_path: Path, tensors: dict[str, list[float]], metadata: dict[str, str] | None, where: str
) -> None:
    saved(tmp_path, tensors, metadata)

    with pytest.raises(FormatError) as caught:
        read_feature_activity(tmp_path, 2, name="m/saes/tiny/layers.2")

    assert caught.value.file == "m/saes/tiny/layers.2/activity.safetensors"
    assert caught.value.where == where
    assert caught.value.fix


def test_an_absent_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="the file is absent") as caught:
        read_feature_activity(tmp_path, 2)

    assert "sae train" in caught.value.fix


def test_a_large_claim_allocates_nothing(tmp_path: Path) -> None:
    saved(tmp_path, GOOD)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes().replace(b"[2]", b"[9]"))

    with pytest.raises(FormatError, match="another length than its shape needs"):
        read_feature_activity(tmp_path, 9)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "elsewhere", GOOD)
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / FILE).symlink_to(tmp_path / "elsewhere" / FILE)

    with pytest.raises(FormatError):
        read_feature_activity(tmp_path / "sae", 2)
