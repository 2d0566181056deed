from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from pt_files import caa, features, sae, saved, transfer_map, transferred, write_document
from studies import HEX, build, vector, write_lines

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.sae import TopKSae, read_sae_pt
from steer_eval.formats.saelens import StoredSae, read_saelens, write_saelens
from steer_eval.formats.transfer import (
    TransferMap,
    TransferredVectors,
    read_transfer_map_pt,
    read_transferred_pt,
    write_transfer_map,
    write_transferred,
)
from steer_eval.formats.vector import SteeringVector, write_vector
from steer_eval.inventory import DOCUMENTS, MAX_CARD_BYTES, TABLES, Artifact, Inventory, Root, take_inventory

SAE_FOLDER = "saes/tiny/layers.14"
SCORES = {"mature_anger": 4.5, "juvenile_rage": 2.0, "coherence": 5.0}


def inventory_of(folder: Path, **options: object) -> Inventory:
    return take_inventory([Root(folder, "lab/x/", "model", **options)])


def only(folder: Path, **options: object) -> Artifact:
    [artifact] = inventory_of(folder, **options).artifacts
    return artifact


@pytest.fixture
def repo(tmp_path) -> Path:
    """A repo with every kind of file that has a value."""
    folder = build(tmp_path).model
    saved(folder / "vectors" / "tiny_L1_caa.pt", caa())
    saved(folder / "vectors" / "transferred.pt", transferred())
    saved(folder / "transfer" / "map.pth", transfer_map())
    saved(folder / "saes" / "tiny_L14.pt", sae())
    write_saelens(folder / SAE_FOLDER, read_sae_pt(folder / "saes" / "tiny_L14.pt"))
    write_transferred(folder / "transfer" / "v.safetensors", read_transferred_pt(folder / "vectors" / "transferred.pt"))
    write_transfer_map(folder / "transfer" / "m.safetensors", read_transfer_map_pt(folder / "transfer" / "map.pth"))
    write_document(folder / "saes" / "tiny_L14_features.json", features())
    write_document(folder / "notes.json", {"a": [1]})
    (folder / "ci.yml").write_text("name: checks\n")
    return folder


VALUES = {
    "README.md": ("card", str),
    "config.json": ("config", type(None)),
    "study.yaml": ("study", type(None)),
    "ci.yml": ("yaml", type(None)),
    "notes.json": ("json", dict),
    "vectors/tiny_L1_caa.safetensors": ("vector", SteeringVector),
    "vectors/tiny_L1_caa.pt": ("vector_pt", SteeringVector),
    "vectors/transferred.pt": ("transferred_pt", TransferredVectors),
    "transfer/v.safetensors": ("transferred", TransferredVectors),
    "transfer/map.pth": ("transfer_map_pt", TransferMap),
    "transfer/m.safetensors": ("transfer_map", TransferMap),
    "saes/tiny_L14.pt": ("sae_pt", TopKSae),
    f"{SAE_FOLDER}/sae_weights.safetensors": ("sae", StoredSae),
    f"{SAE_FOLDER}/cfg.json": ("sae_config", type(None)),
    "saes/tiny_L14_features.json": ("features", FeatureTable),
}


def test_every_file_has_its_kind_and_its_value(repo):
    artifacts = {artifact.path: artifact for artifact in inventory_of(repo).artifacts}

    assert list(artifacts) == sorted(artifacts)
    assert {path: artifacts[path].kind for path in VALUES} == {path: kind for path, (kind, _) in VALUES.items()}
    for path, (_, kind) in VALUES.items():
        assert type(artifacts[path].value) is kind, path
    for path, artifact in artifacts.items():
        assert artifact.troubles == (), path
        assert artifact.size == (repo / path).stat().st_size
        assert (artifact.file, artifact.name) == (f"lab/x/{path}", Path(path).name)


def test_the_files_are_those_of_all_roots_but_hidden_ones_the_manifest_and_links_out(repo, tmp_path):
    data = tmp_path / "persona-data"
    (repo / ".hidden").write_text("x")
    (tmp_path / "secret.json").write_text("{}")
    (repo / "secret.json").symlink_to(tmp_path / "secret.json")
    inventory = take_inventory([Root(repo, "lab/persona/", "model"), Root(data, "lab/persona-data/", "dataset")])
    files = {artifact.file for artifact in inventory.artifacts}

    assert len(files) == len(inventory.artifacts)
    assert files == {
        f"{prefix}{path.relative_to(folder)}"
        for folder, prefix in ((repo, "lab/persona/"), (data, "lab/persona-data/"))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".hidden", "secret.json", "manifest.json"}
    }
    assert [root.role for root in inventory.roots] == ["model", "dataset"]


def test_what_can_be_used_is_found_by_kind_and_name(tmp_path):
    for layer in (3, 1):
        write_vector(tmp_path / "vectors" / f"tiny_L{layer}_caa.safetensors", vector("tiny", layer))
    (tmp_path / "vectors" / "tiny_L2_caa.safetensors").write_bytes(b"broken")
    saved(tmp_path / "vectors" / "a.pt", caa())
    inventory = inventory_of(tmp_path)

    assert [each.name for each in inventory.of("vector_pt", "vector")] == [
        "a.pt",
        "tiny_L1_caa.safetensors",
        "tiny_L3_caa.safetensors",
    ]
    assert list(inventory.of("sweep")) == []
    assert inventory.named("tiny_L3_caa.safetensors", "vector").value.layer == 3
    assert inventory.named("tiny_L2_caa.safetensors", "vector") is None
    assert inventory.named("tiny_L3_caa.safetensors", "vector_pt") is None


TABLE_ROWS = {
    "contrast_pairs.jsonl": {"scenario": "s", "angry": "a", "calm": "c"},
    "eval_prompts.jsonl": {"scenario": "s"},
    "judge_x_large.jsonl": {"layer": 6, "coef": 2.0, **SCORES},
    "judge_x_large_comparison.jsonl": {
        **{"variant": "addition", "label": "steered", "layer": 6, "coef": 2.0, **SCORES},
    },
    "judge_x_transfer.jsonl": {"label": "native", **SCORES},
    "judge_phase_i.jsonl": {"label": "patch", **SCORES},
    "transfer_eval.jsonl": {"label": "native", "ppl": 30.0, "ppl_ratio": 1.1, "norm": 1.0, "generations": []},
    "anchor_eval.jsonl": {"label": "prompt_only", "system_prompt": "p", "generations": []},
    "sweep_x.jsonl": {
        **{"layer": 1, "coef": 2.0, "base_ppl": 20.0, "ppl": 30.0},
        **{"ppl_ratio": 1.5, "collapsed": False, "generations": []},
    },
    "comparison_x.jsonl": {
        **{"layer": 1, "coef": 2.0, "variant": "addition", "label": "steered", "edits": []},
        **{"base_ppl": 20.0, "ppl": 30.0, "sentence_nll": [1.0], "sentence_tokens": [1]},
        **{"ppl_ratio": 1.5, "collapsed": False, "generations": []},
    },
}


def test_the_tables_are_of_every_kind():
    assert {kind_of(path) for path in TABLE_ROWS} == set(TABLES)


@pytest.mark.parametrize(("path", "row"), TABLE_ROWS.items())
def test_a_bad_row_does_not_hide_the_good_ones(tmp_path, path, row):
    field = next(iter(row))
    write_lines(tmp_path / path, [row, {**row, field: []}, {}, row, {**row, "score": math.nan}])
    artifact = only(tmp_path)

    assert [(each.line, each.value) for each in artifact.value] == [(1, row), (4, row)]
    assert [trouble.where.split(":")[0] for trouble in artifact.troubles] == ["line 2", "line 3", "line 5"]
    assert {trouble.file for trouble in artifact.troubles} == {f"lab/x/{path}"}
    assert [isinstance(trouble, NotFiniteError) for trouble in artifact.troubles] == [False, False, True]


def test_numbers_that_are_none_do_not_hide_a_document(tmp_path):
    document = {"ridge_heldout_r2": 0.2, "cca_fit_corrs": [1.0, math.nan]}
    document |= dict.fromkeys(("cos_ridge_native", "cos_proc_native", "cos_ridge_proc"), 0.5)
    write_document(tmp_path / "latent_diff.json", document)
    artifact = only(tmp_path)

    assert artifact.value == {**document, "cca_fit_corrs": [1.0, None]}
    [trouble] = artifact.troubles
    assert isinstance(trouble, NotFiniteError)
    assert trouble.where == "line 1: cca_fit_corrs[1]"


@pytest.mark.parametrize("path", ["latent_diff.json", "size_comparison.json"])
def test_a_document_that_breaks_its_schema_has_no_value(tmp_path, path):
    assert kind_of(path) in DOCUMENTS
    write_document(tmp_path / path, {"a": math.inf})
    artifact = only(tmp_path)

    assert artifact.value is None
    assert [isinstance(trouble, NotFiniteError) for trouble in artifact.troubles] == [True, False]


TORCH = {
    "vector": (caa(), "vector_pt"),
    "vector with more": ({**caa(), "v_ridge": 1}, "vector_pt"),
    "transferred": (transferred(), "transferred_pt"),
    "transfer map": (transfer_map(), "transfer_map_pt"),
    "sae": (sae(), "sae_pt"),
}


@pytest.mark.parametrize(("value", "kind"), TORCH.values(), ids=TORCH)
@pytest.mark.parametrize("path", ["x.pt", "vectors/x.pth", "deep/er/x.bin"])
def test_a_pytorch_file_is_told_by_its_keys_wherever_it_stands(tmp_path, value, kind, path):
    saved(tmp_path / path, value)
    artifact = only(tmp_path)

    assert (artifact.kind, artifact.troubles) == (kind, ())
    assert artifact.value is not None


@pytest.mark.parametrize(
    ("value", "observed"),
    [
        ({"weight": torch.ones(2), "bias": 1}, ["bias", "weight"]),
        (torch.ones(2), "a value without a dict around it"),
        ({}, []),
    ],
    ids=["keys", "tensor", "nothing"],
)
def test_a_pytorch_file_of_no_known_kind_is_named_with_its_keys(tmp_path, value, observed):
    saved(tmp_path / "x.pt", value)
    artifact = only(tmp_path)

    assert (artifact.kind, artifact.value) == ("torch", None)
    [trouble] = artifact.troubles
    assert (trouble.file, trouble.reason) == ("lab/x/x.pt", "the file is none of the known kinds")
    assert trouble.observed == observed


def test_a_transfer_of_no_known_kind_is_named_with_its_tensors(tmp_path):
    write_vector(tmp_path / "transfer" / "x.safetensors", vector("tiny", 1))
    artifact = only(tmp_path)

    assert (artifact.kind, artifact.value) == ("transfer", None)
    [trouble] = artifact.troubles
    assert trouble.observed == ["vector"]


BROKEN = (
    *("vectors/x.pt", "saes/x.pt", "transfer/x.safetensors", "vectors/x.safetensors", "saes/x_features.json"),
    *("saes/t/layers.1/sae_weights.safetensors", "x.json", "latent_diff.json", "sweep_x.jsonl", "README.md"),
)


@pytest.mark.parametrize("path", BROKEN)
def test_a_broken_file_is_one_trouble_and_does_not_hide_the_next(tmp_path, path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"\xff: [\0")
    write_document(tmp_path / "zzz.json", {"good": 1})
    broken, good = inventory_of(tmp_path).artifacts

    [trouble] = broken.troubles
    assert isinstance(trouble, FormatError)
    assert trouble.file.startswith(f"lab/x/{Path(path).parent.as_posix()}/".replace("/./", "/"))
    assert not broken.value
    assert good.value == {"good": 1}


def test_the_settings_of_an_sae_belong_to_its_weights(repo):
    (repo / SAE_FOLDER / "cfg.json").unlink()
    artifact = next(each for each in inventory_of(repo).artifacts if each.kind == "sae")

    assert artifact.value is None
    assert [str(trouble) for trouble in artifact.troubles] == [f"lab/x/{SAE_FOLDER}/cfg.json: the file is absent"]


def test_settings_that_are_a_link_out_of_the_repo_are_not_read(repo, tmp_path):
    (repo / SAE_FOLDER / "cfg.json").rename(tmp_path / "cfg.json")
    (repo / SAE_FOLDER / "cfg.json").symlink_to(tmp_path / "cfg.json")
    artifact = next(each for each in inventory_of(repo).artifacts if each.kind == "sae")

    assert artifact.value is None
    assert "leaves the repo" in str(artifact.troubles[0])


def test_the_kind_that_a_study_chose_comes_first(tmp_path):
    write_lines(tmp_path / "my_prompts.jsonl", [{"scenario": "s"}])

    assert only(tmp_path).kind == "jsonl"
    artifact = only(tmp_path, kinds={"my_prompts.jsonl": "eval_prompts"})
    assert artifact.kind == "eval_prompts"
    assert [row.value for row in artifact.value] == [{"scenario": "s"}]


def test_a_snapshot_in_the_hub_s_cache_is_read_like_the_folder(repo, tmp_path):
    # As the Hub's client lays it out: the files of a snapshot are links to blobs.
    cached = tmp_path / "hub" / "models--lab--persona"
    snapshot = cached / "snapshots" / HEX[:40]
    (cached / "blobs").mkdir(parents=True)
    for index, path in enumerate(sorted(path for path in repo.rglob("*") if path.is_file())):
        blob = cached / "blobs" / f"{index:040x}"
        blob.write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(repo)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    original, linked = inventory_of(repo), inventory_of(snapshot)

    assert [str(trouble) for each in linked.artifacts for trouble in each.troubles] == []
    assert [(each.path, each.kind, each.size, type(each.value)) for each in linked.artifacts] == [
        (each.path, each.kind, each.size, type(each.value)) for each in original.artifacts
    ]


def test_the_published_study_is_read_but_for_its_two_numbers_that_are_none(upstream):
    roots = [Root(upstream / "model", "model/", "model"), Root(upstream / "dataset", "data/", "dataset")]
    inventory = take_inventory(roots)
    kinds = [artifact.kind for artifact in inventory.artifacts]

    assert (kinds.count("vector_pt"), kinds.count("transferred_pt"), kinds.count("features")) == (13, 1, 2)
    assert all(artifact.value is not None for artifact in inventory.artifacts)
    troubles = [trouble for artifact in inventory.artifacts for trouble in artifact.troubles]
    assert [(trouble.file, type(trouble), trouble.where.split(": ")[1]) for trouble in troubles] == [
        ("data/latent_diff.json", NotFiniteError, "cca_fit_corrs[19]"),
        ("data/latent_diff.json", NotFiniteError, "cca_heldout_corrs[19]"),
    ]


def test_an_sae_in_the_inventory_is_the_one_of_its_reader(repo):
    ours = next(inventory_of(repo).of("sae")).value
    theirs = read_saelens(repo / SAE_FOLDER)

    assert all(
        torch.equal(a, b) for a, b in zip(ours.read().tensors().values(), theirs.tensors().values(), strict=True)
    )


def test_a_card_beyond_what_people_write_is_not_read(tmp_path):
    (tmp_path / "README.md").write_bytes(b"x" * (MAX_CARD_BYTES + 1))

    artifact = only(tmp_path)

    assert artifact.value is None
    assert "more than the 8388608 that are read" in artifact.troubles[0].reason
