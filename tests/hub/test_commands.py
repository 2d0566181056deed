"""Every command that takes a folder takes a repo of the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import legacy
import pytest
import yaml
from hub_fixtures import run_cli
from hub_repos import large_files, put_study, run_commands
from safetensors.numpy import load, load_file
from tiny_study import reproduced

from steer_eval.formats.schema import check

STUDY, DATA = "lab/tiny", "lab/tiny-data"


@pytest.fixture
def tiny(hub, folders):
    """A study that was measured, on the Hub with its model."""
    what = yaml.safe_load((folders.model / "study.yaml").read_text())
    what["models"]["tiny"]["source"] = {"hub": {"id": "lab/tiny-base", "revision": "main"}}
    (folders.model / "study.yaml").write_text(yaml.safe_dump(what, sort_keys=False))
    hub.upload("lab/tiny-base", "model", folders.model.parent / "base")
    hub.upload(STUDY, "model", folders.model)
    hub.upload(DATA, "dataset", folders.data)
    return hub


def test_commands_that_run_a_model(tiny, folders, tmp_path):
    env = tiny.environment(tmp_path / "home")
    out, run, vector = tmp_path / "out", tmp_path / "run", "vectors/tiny_L1_caa.safetensors"
    extract, sweep, refused, generated, of_file, rerun = run_commands(
        env,
        ["extract", STUDY, "--out", str(out)],
        ["sweep", f"hf://{STUDY}", "--out", str(out), "--run", str(tmp_path / "sweep")],
        ["sweep", STUDY, "--run", str(tmp_path / "other")],
        ["generate", STUDY, "--prompt", "Look.", "--layer", "1", "--max-new-tokens", "3", "--json"],
        ["generate", f"hf://{STUDY}/{vector}", "--prompt", "Look.", "--max-new-tokens", "3", "--json"],
        ["reproduce", STUDY, "--run", str(run), "--json"],
    )

    assert extract["code"] == 0, extract
    assert (load_file(out / vector)["vector"] == load_file(folders.model / vector)["vector"]).all()
    assert sweep["code"] == 0, sweep
    assert (out / "sweep_tiny.jsonl").read_bytes() == (folders.data / "sweep_tiny.jsonl").read_bytes()
    assert refused["code"] == 2
    assert refused["error"] == f"{DATA} is on the Hub, and is not written to"
    assert "give --out" in refused["fix"]
    assert generated["code"] == 0, generated
    shown, alone = json.loads(generated["out"]), json.loads(of_file["out"])
    assert shown["model"]["revision"] == tiny.head("lab/tiny-base", "model")
    assert alone["prompts"] == shown["prompts"]

    report = json.loads(rerun["out"])
    check(report, "report", file="standard output")
    assert (report["repo"], report["revision"]) == (STUDY, tiny.head(STUDY, "model"))
    assert (report["data"], report["data_revision"]) == (DATA, tiny.head(DATA, "dataset"))
    _, local = reproduced(folders, tmp_path / "local", "--level", "recompute")
    assert [each["verdict"] for each in report["verdicts"]] == ["reproduced"] * len(local["verdicts"])
    assert report["level"]["reached"] == "rerun"
    assert (local["revision"], local["data_revision"]) == (None, None)
    # The run stands by itself, and what it was made from is not in it.
    assert not [path for path in run.rglob("*") if path.is_symlink()]


def test_commands_that_read(hub, tmp_path, monkeypatch):
    put_study(hub, tmp_path / "source")
    files = large_files()
    hub.upload("lab/saes", "model", {"README.md": b"# SAEs\n", **files})
    monkeypatch.chdir(tmp_path)
    sae = "hf://lab/saes/saes/big/layers.3"
    validated, data, card, no_card, page, shown, audited, exported, saelens, whole = run_commands(
        hub.environment(tmp_path / "home"),
        ["validate", "lab/persona", "--json"],
        ["validate", "hf://datasets/lab/persona-data"],
        ["card", "lab/persona", "--check"],
        ["card", "lab/persona"],
        ["report", "lab/persona", "--out", "page.html"],
        ["report", "lab/persona", "--json"],
        ["audit", "lab/persona", "--data", "lab/persona-data", "--json"],
        ["export", "lab/persona", "--to", "llama-cpp", "--layer", "3", "--model-type", "llama", "--out", "a.gguf"],
        ["export", sae, "--to", "saelens", "--out", "sae"],
        ["validate", "lab/saes", "--download", "--json"],
    )

    report = json.loads(validated["out"])
    check(report, "validation", file="standard output")
    assert validated["code"] == 0
    assert report["revision"] == hub.head("lab/persona", "model")
    assert report["data_revision"] == hub.head("lab/persona-data", "dataset")
    assert data["code"] == 0
    assert card["code"] == 0, card
    assert no_card["error"] == "lab/persona is on the Hub, and is not written to"
    assert "steer-eval pull lab/persona" in no_card["fix"]
    assert page["code"] == 0
    assert hub.head("lab/persona", "model") in Path("page.html").read_text(encoding="utf-8")
    assert shown["out"]
    assert audited["code"] in (0, 2), audited
    assert json.loads(audited["out"])["file"] == "lab/persona"
    assert exported["code"] == 0, exported
    assert Path("a.gguf").stat().st_size > 0
    assert saelens["code"] == 0, saelens
    path = "saes/big/layers.3/sae_weights.safetensors"
    [written] = Path("sae").rglob("sae_weights.safetensors")
    exact, source = load_file(written), load(files[path])
    assert all((exact[key] == source[key]).all() for key in source)
    checked = json.loads(whole["out"])
    assert f"lab/saes/{path}" in checked["checked"]
    assert "values-not-read" not in {each["rule"] for each in checked["findings"]}


def test_a_repo_without_a_study(hub, tmp_path, monkeypatch):
    place = legacy.build(tmp_path / "source")
    hub.upload("den/fox", "model", place.model)
    hub.upload("den/fox-data", "dataset", place.data)
    monkeypatch.chdir(tmp_path)
    refused, cards, converted, again, recomputed = run_commands(
        hub.environment(tmp_path / "home"),
        ["card", "den/fox"],
        ["card", "den/fox", "--out", "cards"],
        ["convert", "den/fox", "--check"],
        ["convert", str(place.model), "--out", "local"],
        ["reproduce", "den/fox", "--level", "recompute", "--json"],
    )

    assert "give --out DIR" in refused["fix"]
    assert cards["code"] == 0, cards
    assert "den/fox" in Path("cards/model/README.md").read_text()
    assert converted["code"] == 0, converted
    assert again["code"] == 0
    mine, other = (
        {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        for folder in ("fox-safe", "local")
    )
    for files in (mine, other):
        files.pop(Path("manifest.json"))
    mine.pop(Path(".gitattributes"))
    assert mine == other
    assert not any(path.is_symlink() for path in Path("fox-safe").rglob("*"))
    report = json.loads(recomputed["out"])
    assert report["data_revision"] == hub.head("den/fox-data", "dataset")
    assert report["run"]["folder"] == "runs/fox-audit"
    assert report["coverage"]["understood"]


def test_a_folder_goes_before_the_hub_and_that_is_told(hub, tmp_path):
    put_study(hub, tmp_path / "lab")
    (tmp_path / "lab" / "plain").mkdir()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "persona").symlink_to(tmp_path / "lab" / "persona")
    (tmp_path / "artifacts" / "persona-data").symlink_to(tmp_path / "lab" / "persona-data")
    env = hub.environment(tmp_path / "home")
    hub.requests.clear()
    told = run_cli("validate", "lab/persona", env=env, cwd=tmp_path)
    quiet = run_cli("validate", "artifacts/persona", "--data", "./lab/persona-data", env=env, cwd=tmp_path)
    plain = run_cli("validate", "lab/plain", env=env, cwd=tmp_path)

    assert told.returncode == 0
    assert told.stderr == "note: the folder lab/persona is read; the repo of the Hub is hf://lab/persona\n"
    assert quiet.stderr == "", "its study is of another repo"
    assert "the folder lab/plain is read" in plain.stderr
    assert hub.requests == []
