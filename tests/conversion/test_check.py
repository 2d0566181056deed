"""That a loss would be found, where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversion.converting import MANIFEST, converted, differences, with_vector
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from steer_eval.convert_check import check_conversion, first_difference
from steer_eval.convert_plan import plan_conversion
from steer_eval.formats.manifest import write_manifest


def flip(path: str) -> Callable[[Path], object]:
    """Change the last bit of a file."""

    def change(out: Path) -> None:
        content = bytearray((out / path).read_bytes())
        content[-1] ^= 1
        (out / path).write_bytes(content)
        write_manifest(out)

    return change


def say(path: str, old: bytes, new: bytes) -> Callable[[Path], object]:
    """Change a text in a file for one of the same length."""

    def change(out: Path) -> None:
        content = (out / path).read_bytes()
        assert content.count(old) == 1
        assert len(old) == len(new)
        (out / path).write_bytes(content.replace(old, new))
        write_manifest(out)

    return change


def in_manifest(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], object]:
    def changed(out: Path) -> None:
        document = json.loads((out / MANIFEST).read_text())
        change(document["files"])
        (out / MANIFEST).write_text(json.dumps(document))

    return changed


VECTOR = "vectors/tiny_L6_caa.safetensors"
CARRIED = "transfer/small_transferred_caa.safetensors"
MAP = "transfer/transfer_map_large_to_small.safetensors"
SAE = "saes/tiny/layers.14"
LOSSES = {
    "bit of a vector": (flip(VECTOR), [(VECTOR, "vector, value 7")]),
    "bit of a carried vector": (flip(CARRIED), [(CARRIED, "v_large_source, value 8")]),
    "bit of a map": (flip(MAP), [(MAP, "R, value 23")]),
    "bit of an SAE": (flip(f"{SAE}/sae_weights.safetensors"), [(f"{SAE}/sae_weights.safetensors", "b_dec, value 3")]),
    "byte of a copy": (flip("saes/tiny_L14_features.json"), [("saes/tiny_L14_features.json", "")]),
    "hidden copy": (flip(".gitattributes"), [(".gitattributes", "")]),
    "pairs": (say(VECTOR, b'"n_pairs":"80"', b'"n_pairs":"81"'), [(VECTOR, "n_pairs")]),
    "layer": (say(VECTOR, b'"layer":"6"', b'"layer":"7"'), [(VECTOR, "layer")]),
    "source": (say(VECTOR, b"tiny_L6_caa.pt", b"tiny_L7_caa.pt"), [(VECTOR, "source_file")]),
    "coefficient": (say(CARRIED, b'"c_small":"1.0"', b'"c_small":"1.5"'), [(CARRIED, "c_small")]),
    "penalty": (say(MAP, b'"alpha":"100.0"', b'"alpha":"100.1"'), [(MAP, "alpha")]),
    "k": (say(f"{SAE}/cfg.json", b'"k": 3', b'"k": 2'), [(f"{SAE}/cfg.json", "k")]),
    "hook": (
        say(f"{SAE}/cfg.json", b"blocks.14.hook", b"blocks.15.hook"),
        [(f"{SAE}/cfg.json", "metadata.hook_name")],
    ),
    "steps": (
        say(f"{SAE}/cfg.json", b'"steps": "4000"', b'"steps": "4001"'),
        [(f"{SAE}/cfg.json", "metadata.steer_eval.steps")],
    ),
    "names of two tensors": (say(CARRIED, b'"v_ridge"', b'"v_rigde"'), [(CARRIED, "header")]),
    "whole vector": (lambda out: ((out / VECTOR).unlink(), write_manifest(out)), [(VECTOR, "")]),
    "half an SAE": (lambda out: ((out / SAE / "cfg.json").unlink(), write_manifest(out)), [(f"{SAE}/cfg.json", "")]),
    "file of nobody": (lambda out: ((out / "x").write_text("x"), write_manifest(out)), [("x", "")]),
    "manifest": (lambda out: (out / MANIFEST).unlink(), [(MANIFEST, "")]),
    "manifest of another kind": (lambda out: (out / MANIFEST).write_text("[]"), [(MANIFEST, "schema")]),
    "checksum": (in_manifest(lambda files: files[0].update(sha256="0" * 64)), [(MANIFEST, "README.md")]),
    "kind": (in_manifest(lambda files: files[0].update(kind="other")), [(MANIFEST, "README.md")]),
    "unlisted": (in_manifest(lambda files: files.pop(0)), [(MANIFEST, "README.md")]),
    "listed twice": (in_manifest(lambda files: files.append(files[0])), [(MANIFEST, "files")]),
}


@pytest.mark.parametrize(("change", "places"), LOSSES.values(), ids=LOSSES)
def test_every_loss_is_found_where_it_is(
    repo: Path, out: Path, change: Callable[[Path], object], places: list[tuple[str, str]]
) -> None:
    plan = converted(repo, out)
    change(out)

    assert differences(plan, out) == places


def test_a_file_behind_a_link_out_is_not_read(repo: Path, out: Path, tmp_path: Path) -> None:
    plan = converted(repo, out)
    (out / VECTOR).rename(tmp_path / "moved")
    (out / VECTOR).symlink_to(tmp_path / "moved")
    checked, beside = check_conversion(plan, out)

    [finding] = [finding for each in checked for finding in each.findings]
    assert "leaves the repo" in finding.message
    assert {each.rule for each in (finding, *beside)} == {"convert-differs"}
    assert [finding.where for finding in beside] == [VECTOR]


def test_a_bad_source_is_told_as_such_when_an_earlier_conversion_is_checked(repo: Path, out: Path) -> None:
    with_vector(vector=torch.tensor([float("inf")]))(repo / "vectors/tiny_L6_caa.pt")
    converted(repo, out)
    [each] = [each for each in check_conversion(plan_conversion(repo), out)[0] if each.findings]

    assert each.step.source.path == "vectors/tiny_L6_caa.pt"
    assert "not finite" in each.findings[0].message


@settings(deadline=None)
@given(arrays(np.float32, array_shapes(max_dims=2), elements=st.floats(width=32, allow_nan=False)), st.data())
def test_the_first_value_with_other_bits_is_found(values: np.ndarray, data: st.DataObject) -> None:
    other = values.copy()
    index = data.draw(st.integers(0, values.size - 1))
    assert first_difference(values, torch.from_numpy(other)) is None
    other.view(np.uint32).flat[index] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    if index + 1 < values.size:
        other.flat[-1] += 1

    assert first_difference(values, torch.from_numpy(other)) == index


def test_a_zero_and_a_negative_zero_are_two_values() -> None:
    assert first_difference(torch.tensor([1.0, 0.0]), torch.tensor([1.0, -0.0])) == 1
