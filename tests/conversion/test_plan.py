"""What each file becomes, and that no two become one."""

from __future__ import annotations

from pathlib import Path

import pt_files
import pytest
from conversion.converting import MANIFEST, converted, differences
from convertible import BECOMES, COPIED
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.convert_plan import Source, assign, plan_conversion


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
