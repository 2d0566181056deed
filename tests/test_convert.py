"""From the legacy layout to the safe one: what becomes what, that nothing is lost, and that nothing is half-done."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pt_files
import pytest
import torch
from convertible import BECOMES, COPIED, build, contents, listing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open
from safetensors.torch import load_file

from steer_eval.convert import convert
from steer_eval.convert_check import check_conversion, first_difference
from steer_eval.convert_plan import COPY, Plan, Source, assign, plan_conversion
from steer_eval.errors import SteerEvalError
from steer_eval.formats.manifest import check_manifest, write_manifest
from steer_eval.formats.vector import read_vector
from steer_eval.inventory import Root, take_inventory

MANIFEST = "manifest.json"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return build(tmp_path / "persona")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "safe"


def converted(repo: Path, out: Path, **options: Any) -> Plan:
    return convert(plan_conversion(repo), out, **options)


def differences(plan: Plan, out: Path) -> list[tuple[str, str]]:
    """Files and places at which a converted repo differs."""
    checked, beside = check_conversion(plan, out)
    findings = [finding for each in checked for finding in each.findings] + beside
    assert {(finding.rule, finding.severity) for finding in findings} <= {("convert-differs", "error")}
    return [(finding.file.removeprefix(f"{out.name}/"), finding.where) for finding in findings]


# What becomes what


def test_each_file_becomes_what_its_content_says(repo: Path) -> None:
    plan = plan_conversion(repo)

    assert {step.source.path: list(step.targets) for step in plan.steps} == BECOMES | {path: [path] for path in COPIED}
    assert plan.findings == ()


@pytest.mark.parametrize(
    ("path", "targets"),
    [
        ("tiny_L6_caa.pt", ("vectors/tiny_L6_caa.safetensors",)),
        ("run/v.1.pth", ("vectors/v.1.safetensors",)),
        ("vectors/run/v.bin", ("vectors/run/v.safetensors",)),
    ],
)
def test_a_vector_from_anywhere_goes_to_the_vectors(path: str, targets: tuple[str, ...]) -> None:
    [step], _ = assign([Source(path, "vector_pt")])

    assert step.targets == targets


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("saes/qwen_large_L14_sae.pt", "saes/qwen_large/layers.14"),
        ("a_L2_b_L14.pt", "saes/a_L2_b/layers.14"),
        ("saes/plain.pt", "saes/plain/layers.14"),
        ("....pt", "saes/model/layers.14"),
        ("saes/.._L3_sae.pt", "saes/model/layers.14"),
    ],
)
def test_an_sae_goes_to_the_folder_of_its_model_and_of_its_own_layer(path: str, folder: str) -> None:
    [step], _ = assign([Source(path, "sae_pt", 14)])

    assert step.targets == (f"{folder}/cfg.json", f"{folder}/sae_weights.safetensors")


SEGMENTS = st.sampled_from(["vectors", "transfer", "saes", "a", "b_L1_sae", "layers.1", "cfg.json", "manifest.json"])
STEMS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
LEGACY_KINDS = st.sampled_from(["vector_pt", "transferred_pt", "transfer_map_pt", "sae_pt"])
SOURCES = st.one_of(
    st.builds(Source, st.tuples(STEMS, st.sampled_from(["", ".safetensors"])).map("".join)),
    st.builds(Source, st.tuples(STEMS, st.sampled_from([".pt", ".pth"])).map("".join), LEGACY_KINDS, st.integers(0, 2)),
)


@settings(deadline=None)
@given(st.lists(SOURCES, unique_by=lambda source: source.path, max_size=12))
def test_no_two_files_become_one_and_none_is_forgotten(sources: list[Source]) -> None:
    steps, clashes = assign(sources)
    targets = [target for step in steps for target in step.targets]

    assert sorted([*(step.source.path for step in steps), *clashes]) == sorted(source.path for source in sources)
    assert len(set(targets)) == len(targets)
    assert MANIFEST not in targets
    assert not any(one != other and other.startswith(f"{one}/") for one in targets for other in targets)
    assert assign(reversed(sources)) == (steps, clashes)


def test_what_is_there_already_keeps_its_place(repo: Path, out: Path) -> None:
    (repo / "vectors/tiny_L6_caa.safetensors").write_bytes(b"mine")
    pt_files.saved(repo / "tiny_L14_caa.pt", pt_files.caa())
    plan = converted(repo, out)

    assert [(finding.rule, finding.file) for finding in plan.findings] == [
        ("convert-refused", "persona/vectors/tiny_L14_caa.pt"),
        ("convert-refused", "persona/vectors/tiny_L6_caa.pt"),
    ]
    assert "whose place tiny_L14_caa.pt takes" in plan.findings[0].message
    assert (out / "vectors/tiny_L6_caa.safetensors").read_bytes() == b"mine"
    assert differences(plan, out) == []


# That nothing is lost


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


# What is refused


def refuse(name: str, message: str, change: Callable[[Path], object]) -> Any:
    return pytest.param(change, message, id=name)


def with_vector(**changes: Any) -> Callable[[Path], object]:
    return lambda path: pt_files.saved(path, {**pt_files.caa(layer=6), **changes})


HOSTILE = pt_files.program(pt_files.call("os.system", pt_files.text("true")))
REFUSALS = [
    refuse("hostile pickle", "refused", lambda path: pt_files.write_archive(path, HOSTILE)),
    refuse("bare pickle", "", lambda path: path.write_bytes(b"\x80\x02}.")),
    refuse("pointer to the file", "not a PyTorch file", lambda path: path.write_text("version https://git-lfs\n")),
    refuse("empty", "not a PyTorch file", lambda path: path.write_bytes(b"")),
    refuse("of no known kind", "none of the known kinds", lambda path: pt_files.saved(path, {"a": torch.zeros(2)})),
    refuse("a matrix for a vector", "", with_vector(vector=torch.zeros(2, 2))),
    refuse("float64", "", with_vector(vector=torch.zeros(2, dtype=torch.float64))),
    refuse("not a number", "not finite", with_vector(vector=torch.tensor([1.0, float("nan")]))),
    refuse("a tensor too many", "no place", with_vector(spread=torch.zeros(2))),
    refuse("a tensor in a list", "no place", with_vector(steps=[{"a": np.zeros(2)}])),
    refuse("a nested numpy number", "no place", with_vector(steps=[np.float64(0.5)])),
    refuse("a number in an array", "no place", with_vector(spread=np.array(0.5))),
    refuse("too much text", "bytes", with_vector(log="x" * 2**17)),
    refuse("half a character", "surrogate", with_vector(model="\ud800")),
    refuse("too many pairs", "n_pairs", with_vector(n_pairs=10**10)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_a_bad_file_is_named_and_all_others_are_converted(
    repo: Path, out: Path, change: Callable[[Path], object], message: str
) -> None:
    change(repo / "vectors/tiny_L6_caa.pt")
    plan = converted(repo, out)

    [finding] = plan.findings
    assert (finding.rule, finding.severity) == ("convert-refused", "error")
    assert finding.file == "persona/vectors/tiny_L6_caa.pt"
    assert message in f"{finding.where} {finding.message}"
    kept = {target for path, paths in BECOMES.items() if path != "vectors/tiny_L6_caa.pt" for target in paths}
    assert set(listing(out)) == {*kept, *COPIED, MANIFEST}
    assert differences(plan, out) == []
    assert check_manifest(out) == []


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "d_sae": 13}, "does not fit"),
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "layer": -1}, "minimum"),
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "optimizer": {"m": torch.zeros(2)}}, "no place"),
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "source_file": "x"}, "needs itself"),
        (
            "vectors/transfer_map_large_to_small.pt",
            {**pt_files.transfer_map(), "W": np.zeros((6, 4))},
            "float64",
        ),
        ("vectors/small_transferred_caa.pt", {**pt_files.transferred(), "v_random": torch.zeros(7)}, "width"),
    ],
    ids=["width", "layer", "optimizer", "key of ours", "float64 map", "width of one"],
)
def test_other_kinds_are_refused_as_well(repo: Path, out: Path, path: str, content: Any, message: str) -> None:
    pt_files.saved(repo / path, content)
    plan = converted(repo, out)

    [finding] = plan.findings
    assert (finding.rule, finding.file) == ("convert-refused", f"persona/{path}")
    assert message in finding.message
    assert not any((out / target).exists() for target in BECOMES[path])
    assert not (out / path).exists()
    assert differences(plan, out) == []


def test_links_inside_become_copies_and_others_are_findings(repo: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (repo / "inside.md").symlink_to("README.md")
    (repo / "best.pt").symlink_to("vectors/tiny_L6_caa.pt")
    (repo / "outside").symlink_to(tmp_path / "secret")
    (repo / "folder").symlink_to(tmp_path)
    (repo / "round").symlink_to("saes")
    (repo / "loop").symlink_to("loop")
    (repo / "dangling").symlink_to("nowhere")
    (repo / "token").symlink_to(".git/config")
    os.mkfifo(repo / "pipe")
    (repo / "back\\slash").write_text("x")
    plan = converted(repo, out)

    assert [(finding.rule, finding.file.removeprefix("persona/")) for finding in plan.findings] == [
        ("convert-refused", "back\\slash"),
        ("convert-refused", "dangling"),
        ("symlink", "folder"),
        ("convert-refused", "loop"),
        ("symlink", "outside"),
        ("convert-refused", "pipe"),
        ("convert-refused", "round"),
        ("convert-refused", "token"),
    ]
    assert not (out / "inside.md").is_symlink()
    assert (out / "inside.md").read_bytes() == (repo / "README.md").read_bytes()
    assert load_file(out / "vectors/best.safetensors").keys() == {"vector"}
    assert b"secret" not in b"".join(listing(out).values())
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert check_manifest(out) == []


def test_a_snapshot_in_the_cache_of_the_hub_is_a_repo(tmp_path: Path, out: Path) -> None:
    """All its files are links to blobs beside it."""
    repo = tmp_path / "models--lab--persona/snapshots" / ("0" * 40)
    build(repo)
    blobs = repo.parents[1] / "blobs"
    blobs.mkdir()
    for index, path in enumerate(sorted(BECOMES)):
        (repo / path).rename(blobs / str(index))
        (repo / path).symlink_to(os.path.relpath(blobs / str(index), (repo / path).parent))
    plan = converted(repo, out)

    assert plan.findings == ()
    assert {target for paths in BECOMES.values() for target in paths} <= set(listing(out))


def test_a_repo_without_files_is_no_repo(tmp_path: Path) -> None:
    (tmp_path / "empty/.git").mkdir(parents=True)
    for folder, message in ((tmp_path / "empty", "holds no files"), (tmp_path / "nowhere", "there is no folder")):
        with pytest.raises(SteerEvalError, match=message):
            plan_conversion(folder)


# That nothing is half-done


def test_an_interruption_leaves_nothing(repo: Path, out: Path) -> None:
    seen = []

    def stop(_: int) -> None:
        seen.append(sorted(path.name for path in repo.parent.iterdir()))
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(repo, out, on_file=stop)

    assert all(len(names) == 2 and "safe" not in names for names in seen)
    assert [path.name for path in repo.parent.iterdir()] == ["persona"]


def test_an_interruption_leaves_the_old_one(repo: Path, out: Path) -> None:
    converted(repo, out)
    before = listing(out)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(repo, out, force=True, on_file=stop)

    assert listing(out) == before
    assert sorted(path.name for path in repo.parent.iterdir()) == ["persona", "safe"]


def test_a_folder_that_is_there_is_replaced_only_if_asked_to(repo: Path, out: Path) -> None:
    converted(repo, out)
    pt_files.saved(repo / "vectors/tiny_L6_caa.pt", pt_files.caa(layer=6, seed=9))
    with pytest.raises(SteerEvalError, match="is there already"):
        converted(repo, out)
    stale = differences(plan_conversion(repo), out)

    plan = converted(repo, out, force=True)
    assert {file for file, _ in stale} == {"vectors/tiny_L6_caa.safetensors"}
    assert differences(plan, out) == []
    assert sorted(path.name for path in repo.parent.iterdir()) == ["persona", "safe"]


def edit(path: str) -> Callable[[Path], object]:
    return lambda out: (out / path).write_text("mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("README.md"), "README.md was changed since"),
        (edit("notes.txt"), "holds notes.txt"),
        (edit(".env"), r"holds \.env"),
        (edit(MANIFEST), "not made by a conversion"),
        (lambda out: (out / MANIFEST).unlink(), "not made by a conversion"),
        (lambda out: (out / MANIFEST).write_text('{"schema": "steer-eval/manifest/1"}'), "not made by a conversion"),
    ],
    ids=["edited", "added", "hidden", "broken manifest", "no manifest", "empty manifest"],
)
def test_work_of_others_is_never_replaced(
    repo: Path, out: Path, change: Callable[[Path], object], message: str
) -> None:
    converted(repo, out)
    change(out)
    before = listing(out)

    with pytest.raises(SteerEvalError, match=message):
        converted(repo, out, force=True)
    assert listing(out) == before


def test_a_study_with_a_manifest_of_its_own_is_never_replaced(repo: Path, packaged_study: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for path, content in listing(packaged_study).items():
        (study / path).parent.mkdir(parents=True, exist_ok=True)
        (study / path).write_bytes(content)

    with pytest.raises(SteerEvalError, match="which this conversion would not write"):
        converted(repo, study, force=True)
    assert listing(study) == listing(packaged_study)


def test_an_empty_folder_can_be_replaced(repo: Path, out: Path) -> None:
    out.mkdir()

    assert differences(converted(repo, out, force=True), out) == []


@pytest.mark.parametrize("inner", ["", "/safe", "/..", "/vectors/../safe"])
def test_neither_repo_may_lie_in_the_other(repo: Path, inner: str) -> None:
    with pytest.raises(SteerEvalError, match="lie in one another"):
        converted(repo, Path(f"{repo}{inner}"), force=True)


def test_a_link_or_a_file_is_no_folder(repo: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    out.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_text("x")

    for place in (out, tmp_path / "file"):
        with pytest.raises(SteerEvalError, match="is no folder"):
            converted(repo, place, force=True)


def test_a_place_that_cannot_be_written_is_an_error(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(SteerEvalError, match="can't be written"):
        converted(repo, tmp_path / "file" / "safe")


# That a loss would be found


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
