from __future__ import annotations

from pathlib import Path

import pytest
from pt_files import caa, saved

from steer_eval.convert import convert
from steer_eval.convert_plan import plan_conversion
from steer_eval.publish import belongs
from steer_eval.publish.belongs import Choice, select


def fill(folder: Path, *paths: str) -> Path:
    for path in paths:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
    return folder


def told(folder: Path, choice: Choice | None = None) -> tuple[list[str], list[tuple[str, str, str]]]:
    selection = select(folder, "repo", choice or Choice())
    return list(selection.paths), [(each.rule, each.severity, each.file) for each in selection.findings]


OURS = [
    ".eval_results/x.yaml",
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "comparison_m.jsonl",
    "config.json",
    "contrast_pairs.jsonl",
    "figures/a.svg",
    "judge_x_y.jsonl",
    "judge_x_y_comparison.jsonl",
    "notes/method.md",
    "perplexity_corpus.txt",
    "saes/m/layers.3/activity.safetensors",
    "saes/m/layers.3/cfg.json",
    "saes/m/layers.3/sae_weights.safetensors",
    "saes/m_L3_features.json",
    "saes/m_L3_quality.json",
    "study.yaml",
    "sweep_m.jsonl",
    "transfer/m_L3_to_m_L1.safetensors",
    "transfer/m_L3_to_m_L1_diagnostics.json",
    "vectors/m_L3_caa.safetensors",
]


def test_what_studies_are_made_of_belongs(tmp_path):
    assert told(fill(tmp_path, *OURS)) == (OURS, [])


@pytest.mark.parametrize(
    "path", [".env", ".env.local", "prod.env", "sub/.env", "id_ed25519", "x/server.pem", ".netrc", ".pypirc", "a.KEY"]
)
def test_files_of_secrets_are_errors_whatever_is_allowed(tmp_path, path):
    fill(tmp_path, "README.md", path)

    assert told(tmp_path, Choice(allow=["*"])) == (["README.md"], [("publish-secret", "error", f"repo/{path}")])
    assert told(tmp_path, Choice(exclude=[path])) == (["README.md"], [])


def test_a_template_of_a_secret_is_none(tmp_path):
    paths, findings = told(fill(tmp_path, ".env.example"))

    assert (paths, [rule for rule, *_ in findings]) == ([], ["publish-unknown"])


@pytest.mark.parametrize(
    "path", [".DS_Store", "a/.DS_Store", "Thumbs.db", "README.md~", ".README.md.swp", "x.json.bak", "#a#", "m.pyc"]
)
def test_leftovers_are_left_out_with_a_warning(tmp_path, path):
    fill(tmp_path, "README.md", path)

    assert told(tmp_path) == (["README.md"], [("publish-left-out", "warning", f"repo/{path}")])
    assert path in told(tmp_path, Choice(allow=[path]))[0]


@pytest.mark.parametrize("folder", ["__pycache__", "a/__pycache__", ".ipynb_checkpoints", ".venv", "runs"])
def test_a_folder_of_leftovers_is_one_warning(tmp_path, folder):
    fill(tmp_path, "README.md", f"{folder}/a.json", f"{folder}/b/c.json")

    assert told(tmp_path) == (["README.md"], [("publish-left-out", "warning", f"repo/{folder}")])
    assert len(told(tmp_path, Choice(allow=[folder]))[0]) == 3


def test_what_tools_of_this_disk_need_is_left_out_with_a_note(tmp_path):
    fill(tmp_path, "README.md", ".github/workflows/a.yml", ".gitignore", ".pre-commit-config.yaml")

    paths, findings = told(tmp_path)

    assert paths == ["README.md"]
    assert {severity for _, severity, _ in findings} == {"note"}


def test_what_git_the_hub_and_its_client_keep_is_not_spoken_of(tmp_path):
    fill(tmp_path, "README.md", ".git/config", ".gitattributes", ".cache/huggingface/download/x.lock")

    assert told(tmp_path) == (["README.md"], [])


@pytest.mark.parametrize("path", ["train.py", "model.gguf", ".hidden", "a/.b/c.json", "weights.npz", "vectors/a"])
def test_a_file_of_no_known_kind_is_asked_about(tmp_path, path):
    fill(tmp_path, "README.md", path)

    assert told(tmp_path) == (["README.md"], [("publish-unknown", "error", f"repo/{path}")])
    assert told(tmp_path, Choice(allow=[path])) == (sorted(["README.md", path]), [])
    assert told(tmp_path, Choice(exclude=[path])) == (["README.md"], [])


def test_a_pattern_that_names_a_folder_is_for_all_in_it(tmp_path):
    fill(tmp_path, "README.md", "old/a.py", "old/b/c.py", "older.py")

    assert told(tmp_path, Choice(exclude=["old/"]))[1] == [("publish-unknown", "error", "repo/older.py")]
    assert told(tmp_path, Choice(exclude=["*.py"])) == (["README.md"], [])


def test_a_file_that_is_larger_than_its_kind_is_asked_about(tmp_path, monkeypatch):
    monkeypatch.setattr(belongs, "LARGE_BYTES", 10)
    fill(tmp_path, "a.json", "sae_weights.safetensors", "vectors/a.safetensors")
    for path in ("sae_weights.safetensors", "vectors/a.safetensors"):
        (tmp_path / path).write_bytes(b"x" * 11)

    assert told(tmp_path)[1] == [("publish-large", "error", "repo/vectors/a.safetensors")]
    assert told(tmp_path, Choice(allow=["vectors/*"]))[1] == []


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    fill(tmp_path, "secret.txt", "repo/README.md", "repo/notes.txt")
    (tmp_path / "repo" / "link.txt").symlink_to("../secret.txt")
    (tmp_path / "repo" / "inner.txt").symlink_to("notes.txt")

    paths, findings = told(tmp_path / "repo")

    assert (paths, findings) == (["README.md", "inner.txt", "notes.txt"], [("symlink", "error", "repo/link.txt")])


def test_a_file_that_was_converted_before_is_left_out_and_another_is_not(tmp_path):
    (tmp_path / "legacy" / "vectors").mkdir(parents=True)
    for seed, name in enumerate("ab"):
        saved(tmp_path / "legacy" / "vectors" / f"{name}_L3_caa.pt", caa(layer=3, seed=seed))
    convert(plan_conversion(tmp_path / "legacy"), tmp_path / "safe")
    (tmp_path / "legacy/vectors/a_L3_caa.safetensors").write_bytes(
        (tmp_path / "safe/vectors/a_L3_caa.safetensors").read_bytes()
    )

    paths, findings = told(tmp_path / "legacy")

    assert paths == ["vectors/a_L3_caa.safetensors", "vectors/b_L3_caa.pt"]
    assert findings == [("publish-left-out", "warning", "repo/vectors/a_L3_caa.pt")]


def test_every_finding_that_stops_says_what_to_do(tmp_path):
    fill(tmp_path, ".env", "a b.py", "x.txt~", "runs/a")

    findings = select(tmp_path, "repo", Choice()).findings

    assert {each.file for each in findings} == {"repo/.env", "repo/a b.py", "repo/x.txt~", "repo/runs"}
    assert all(each.fix for each in findings)
    assert "--exclude 'a b.py'" in next(each.fix for each in findings if each.file == "repo/a b.py")
