from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.formats import schema
from steer_eval.formats.kinds import _RULES, kind_of

KINDS = schema.load_schema("manifest")["properties"]["files"]["items"]["properties"]["kind"]["enum"]

PATHS = {
    "study.yaml": "study",
    "README.md": "card",
    "config.json": "config",
    "manifest.json": "manifest",
    "environment.json": "environment",
    "contrast_pairs.jsonl": "contrast_pairs",
    "eval_prompts.jsonl": "eval_prompts",
    "perplexity_corpus.txt": "perplexity_corpus",
    "vectors/qwen_large_L14_caa.safetensors": "vector",
    "vectors/deep/er.safetensors": "vector",
    "vectors/qwen_large_L14_caa.pt": "torch",
    "transfer/vectors.safetensors": "transfer",
    "transfer/map.pt": "torch",
    "saes/qwen_large_L14.pt": "torch",
    "pytorch_model.bin": "torch",
    "x.pth": "torch",
    "saes/qwen_large/layers.14/sae_weights.safetensors": "sae",
    "saes/qwen_large/layers.14/cfg.json": "sae_config",
    "saes/qwen_large/layers.14/activity.safetensors": "sae_activity",
    "transfer/activity.safetensors": "transfer",
    "saes/qwen_large_L14_features.json": "features",
    "saes/qwen_large_L14_quality.json": "sae_quality",
    "quality.json": "json",
    "features.json": "features",
    "latent_diff.json": "latent_diff",
    "transfer/a_L1_to_b_L2_diagnostics.json": "transfer_diagnostics",
    "x_diagnostics.json": "json",
    "size_comparison.json": "size_comparison",
    "sweep_qwen_small.jsonl": "sweep",
    "comparison_qwen_small.jsonl": "comparison",
    "sub/comparison_x.jsonl": "jsonl",
    "judge_deepseek_large.jsonl": "judge",
    "judge_deepseek_large_comparison.jsonl": "judge_comparison",
    "judge_comparison.jsonl": "judge",
    "judge_transfer.jsonl": "judge_labels",
    "judge_deepseek_transfer.jsonl": "judge_labels",
    "judge_phase_i.jsonl": "judge_labels",
    "transfer_eval.jsonl": "transfer_eval",
    "patch_eval.jsonl": "phase_i",
    "sae_steer_eval.jsonl": "phase_i",
    "multi_layer_eval.jsonl": "phase_i",
    "anchor_eval.jsonl": "phase_i",
    "figures/heatmap.svg": "figure",
    "cfg.json": "json",
    "notes.json": "json",
    "文.json": "json",
    "more/rows.jsonl": "jsonl",
    "sub/sweep_x.jsonl": "jsonl",
    "ci.yml": "yaml",
    "sub/study.yaml": "yaml",
    "sub/README.md": "other",
    "readme.md": "other",
    "model.safetensors": "other",
    "README.md/x": "other",
    "a.pt.txt": "other",
    "a.json\n": "other",
    "": "other",
}


@pytest.mark.parametrize(("path", "kind"), PATHS.items())
def test_a_path_tells_its_kind(path, kind):
    assert kind_of(path) == kind


def test_every_kind_but_the_manifest_may_stand_in_one():
    assert {kind for kind, _ in _RULES} - {"manifest"} <= set(KINDS)
    assert set(KINDS) <= {kind for kind, _ in _RULES} | {"other"}


@given(
    st.text(max_size=30) | st.from_regex(re.compile(r"(saes|vectors|a)/[a-z_]{0,9}\.[a-z]{1,11}\n?"), fullmatch=True)
)
def test_every_path_has_a_kind(path):
    assert kind_of(path) in {*KINDS, "manifest"}


def test_the_published_files_have_kinds(upstream):
    kinds = {
        path.name: kind_of(path.relative_to(upstream / part).as_posix())
        for part in ("model", "dataset")
        for path in (upstream / part).rglob("*")
        if path.is_file()
    }

    assert "other" not in kinds.values()
    assert not {"json", "jsonl"} & set(kinds.values())
