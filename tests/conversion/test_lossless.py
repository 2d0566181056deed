"""That nothing is lost: every byte, tensor and setting is in the new repo."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pt_files
import torch
from conversion.converting import MANIFEST, converted, differences
from convertible import BECOMES, COPIED, contents, listing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open
from safetensors.torch import load_file

from steer_eval.convert_plan import COPY
from steer_eval.formats.manifest import check_manifest, write_manifest
from steer_eval.formats.vector import read_vector
from steer_eval.inventory import Root, take_inventory


def test_everything_is_in_the_new_repo_and_nothing_else(repo: Path, out: Path) -> None:
    before = {path: (repo / path).stat().st_mtime_ns for path in listing(repo)}, listing(repo)
    plan = converted(repo, out)

    targets = {target for paths in BECOMES.values() for target in paths}
    assert set(listing(out)) == {*targets, *COPIED, MANIFEST}
    assert all((out / path).read_bytes() == (repo / path).read_bytes() for path in COPIED)
    assert stat.S_IMODE((out / "notes/run.sh").stat().st_mode) & 0o111
    assert differences(plan, out) == []
    assert check_manifest(out) == []
    assert ({path: (repo / path).stat().st_mtime_ns for path in listing(repo)}, listing(repo)) == before
    assert sorted(path.name for path in repo.parent.iterdir()) == ["persona", "safe"]


def test_every_tensor_and_setting_as_the_libraries_read_them(repo: Path, out: Path) -> None:
    """Without a line of our readers: PyTorch on one side, safetensors and json on the other."""
    converted(repo, out)
    for path, source in contents().items():
        target = out / BECOMES[path][-1]
        tensors = load_file(target)
        originals = source.get("state_dict", source)
        originals = {key: value for key, value in originals.items() if hasattr(value, "shape")}
        assert tensors.keys() == originals.keys()
        for key, original in originals.items():
            back = tensors[key] if isinstance(original, np.ndarray) else tensors[key].to(original.dtype)
            assert pt_files.bits(back) == pt_files.bits(original), (path, key)
        if "state_dict" in source:
            config = json.loads((out / BECOMES[path][0]).read_text())
            recorded = config["metadata"]["steer_eval"]
            assert (config["d_in"], config["d_sae"], config["k"]) == (4, 12, 3)
            assert (config["metadata"]["model_name"], config["metadata"]["hook_name"]) == (
                "lab/tiny-base",
                "blocks.14.hook_resid_post",
            )
            assert (recorded["final_recon"], recorded["steps"]) == ("0.25", "4000")
        else:
            with safe_open(target, framework="pt") as file:
                recorded = file.metadata()
            for key in source.keys() - originals.keys():
                text = source[key] if isinstance(source[key], str) else repr(source[key])
                assert recorded[key] == text
        assert recorded["source_file"] == path
        assert recorded["source_sha256"] == hashlib.sha256((repo / path).read_bytes()).hexdigest()


def test_the_new_repo_is_read_as_the_old_one(repo: Path, out: Path) -> None:
    converted(repo, out)
    old, new = (take_inventory([Root(folder, "", "model")]) for folder in (repo, out))

    assert [artifact.troubles for artifact in new.artifacts if artifact.troubles] == []
    for legacy, safe in (
        ("vector_pt", "vector"),
        ("transferred_pt", "transferred"),
        ("transfer_map_pt", "transfer_map"),
        ("sae_pt", "sae"),
    ):
        assert len(list(old.of(legacy))) == len(list(new.of(safe))) > 0
    vector = new.named("tiny_L14_caa.safetensors", "vector")
    assert vector is not None
    assert (vector.value.provenance["dtype"], vector.value.provenance["method"]) == ("float16", "caa")
    assert vector.value.provenance["source_format"] == "caa-pt"
    maps = new.named("transfer_map_large_to_small.safetensors", "transfer_map")
    assert maps is not None
    assert maps.value.transposed == ("W",)


def test_equal_repos_become_equal_repos(repo: Path, out: Path, tmp_path: Path) -> None:
    converted(repo, out)
    converted(repo, tmp_path / "again")

    assert listing(out) == listing(tmp_path / "again")


def test_converting_a_converted_repo_changes_nothing(repo: Path, out: Path, tmp_path: Path) -> None:
    converted(repo, out)
    plan = converted(out, tmp_path / "again")

    assert {step.source.kind for step in plan.steps} == {COPY}
    assert listing(tmp_path / "again") == listing(out)


def test_a_manifest_that_was_there_is_written_anew(repo: Path, out: Path) -> None:
    write_manifest(repo)
    plan = converted(repo, out)

    assert check_manifest(out) == []
    assert differences(plan, out) == []


def test_values_beside_the_known_ones_are_kept(repo: Path, out: Path) -> None:
    more = {"seed": 7, "notes": ["a", {"format": None}], "format": "mine", "rate": np.float32(0.1)}
    pt_files.saved(repo / "vectors/tiny_L6_caa.pt", {**pt_files.caa(layer=6), **more})
    pt_files.saved(repo / "vectors/small_transferred_caa.pt", {**pt_files.transferred(), **more})
    plan = converted(repo, out)

    expected = {**more, "rate": float(np.float32(0.1))}
    for path in ("vectors/tiny_L6_caa.safetensors", "transfer/small_transferred_caa.safetensors"):
        with safe_open(out / path, framework="pt") as file:
            assert json.loads(file.metadata()["extra"]) == expected
    assert plan.findings == ()
    assert differences(plan, out) == []


def test_the_study_itself(upstream: Path, out: Path) -> None:
    plan = converted(upstream / "model", out)

    assert plan.findings == ()
    assert sum(step.source.kind == COPY for step in plan.steps) == 3
    assert len(list((out / "vectors").iterdir())) == 13
    assert differences(plan, out) == []
    vector = read_vector(out / "vectors/qwen_large_L14_caa.safetensors")
    original = torch.load(upstream / "model/vectors/qwen_large_L14_caa.pt", weights_only=True)
    assert vector.values.tobytes() == pt_files.bits(original["vector"])
    assert float(vector.provenance["norm"]) == original["norm"]


@st.composite
def legacy_files(draw: st.DrawFn) -> dict[str, Any]:
    """Some of each kind of file, with tensors or arrays of any dtype."""

    def values(*shape: int) -> Any:
        dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
        width = 16 if dtype == torch.float16 else 32
        elements = st.floats(
            width=width, allow_nan=False, allow_infinity=False, max_value=2.0**15, min_value=-(2.0**15)
        )
        array = draw(arrays(np.float32, shape, elements=elements))
        if draw(st.booleans()):
            return np.asfortranarray(array)
        tensor = torch.from_numpy(array).to(dtype)
        return tensor.mT.contiguous().mT if tensor.ndim == 2 and draw(st.booleans()) else tensor

    def tensors(*shape: int) -> torch.Tensor:
        return torch.as_tensor(values(*shape))

    large, small, number = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.floats(0, 1e300))
    layer = draw(st.integers(0, 9999))
    caa = {
        "vector": values(large),
        "norm": number,
        "layer": layer,
        "model": draw(st.text("aé/", min_size=1)),
        "n_pairs": 3,
    }
    carried = {f"v_{key}": values(small) for key in ("ridge", "procrustes", "random", "small_native")}
    shapes = {key: (small, large) if draw(st.booleans()) else (large, small) for key in "WR"}
    maps = {**{key: values(*shape) for key, shape in shapes.items()}, "b": values(small)}
    state = {"W_enc": tensors(large, small), "b_enc": tensors(small), "W_dec": tensors(small, large)}
    return {
        "v.pt": caa,
        "t.pt": {**carried, "v_large_source": values(large), "L_small": layer, "c_small": -number},
        "m.pt": {**maps, "L_large": layer, "L_small": 1, "alpha": number},
        "x_L1_sae.pt": {
            **{"state_dict": {**state, "b_dec": tensors(large)}, "d_model": large, "d_sae": small, "k": 1},
            **{"layer": layer, "model_id": "lab/x", "final_recon": number, "steps": 1},
        },
    }


@settings(max_examples=30, deadline=None)
@given(legacy_files())
def test_any_numbers_survive_bit_for_bit(files: dict[str, Any]) -> None:
    with TemporaryDirectory() as scratch:
        repo, out = Path(scratch, "repo"), Path(scratch, "out")
        for path, content in files.items():
            pt_files.saved(repo / path, content)
        plan = converted(repo, out)

        assert plan.findings == ()
        assert differences(plan, out) == []
        for step in plan.steps:
            source = files[step.source.path]
            tensors = load_file(out / step.targets[-1])
            for key, tensor in tensors.items():
                original = torch.as_tensor(
                    np.ascontiguousarray(value)
                    if isinstance(value := source.get("state_dict", source)[key], np.ndarray)
                    else value
                )
                assert pt_files.bits(tensor.to(original.dtype)) == pt_files.bits(original)
                assert torch.equal(tensor, original.to(tensor.dtype))
