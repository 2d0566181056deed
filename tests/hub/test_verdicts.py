"""A study that is read from the Hub has the verdicts of the folders that were put there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_fixtures import run_cli
from hub_repos import run_commands

REAL, REAL_DATA = "Rachata/qwen35-mature-anger-steering", "Rachata/qwen35-mature-anger-data"


def parts(report: dict[str, Any], *repos: str) -> dict[str, Any]:
    """What a report says, whatever its repos are called."""
    text = json.dumps({key: report[key] for key in ("level", "findings", "verdicts")} | _coverage(report))
    for number, repo in enumerate(repos):
        text = text.replace(json.dumps(repo)[1:-1], f"repo {number}")
    said: dict[str, Any] = json.loads(text)
    return said


def _coverage(report: dict[str, Any]) -> dict[str, Any]:
    return {"coverage": report.get("coverage")}


def test_the_packaged_study(hub, tmp_path, packaged_study, packaged_data):
    repo, data = f"steer-eval/{packaged_study.name}", f"steer-eval/{packaged_data.name}"
    hub.upload(repo, "model", packaged_study)
    hub.upload(data, "dataset", packaged_data)
    local, remote = run_commands(
        hub.environment(tmp_path / "home"),
        ["reproduce", str(packaged_study), "--level", "recompute", "--run", str(tmp_path / "local"), "--json"],
        ["reproduce", repo, "--level", "recompute", "--run", str(tmp_path / "hub"), "--json"],
    )
    mine, theirs = json.loads(local["out"]), json.loads(remote["out"])

    assert remote["code"] == local["code"] == 0
    # What is left on the Hub for its size, of which no claim asks the values, is said.
    left = [finding for finding in theirs["findings"] if finding["rule"] == "values-not-read"]
    large = ("saes/smollm2/layers.18/sae_weights", "transfer/smollm2_L18_to_smollm2_L10")
    assert [finding["file"] for finding in left] == [f"{repo}/{name}.safetensors" for name in large]
    theirs["findings"] = [finding for finding in theirs["findings"] if finding not in left]
    assert parts(theirs, data, repo) == parts(mine, mine["data"], mine["repo"])
    assert theirs["revision"] == hub.head(repo, "model")
    assert theirs["data_revision"] == hub.head(data, "dataset")
    for name in ("README.md", "MODEL_CARD.md"):
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_the_real_study(hub, tmp_path, upstream):
    """Its study ships with the package, and is found by the name of the repo."""
    hub.upload(REAL, "model", upstream / "model")
    hub.upload(REAL_DATA, "dataset", upstream / "dataset")
    hub.upload("fork/steering", "model", upstream / "model")
    model, data = str(upstream / "model"), str(upstream / "dataset")
    named = REAL.rpartition("/")[2].removesuffix("-steering")
    level = ["--level", "recompute", "--json"]
    local, remote, plain, fork = run_commands(
        hub.environment(tmp_path / "home"),
        ["reproduce", model, "--data", data, "--study", named, *level, "--run", str(tmp_path / "1")],
        ["reproduce", REAL, *level, "--run", str(tmp_path / "2")],
        ["reproduce", model, "--data", data, *level, "--run", str(tmp_path / "3")],
        ["reproduce", "fork/steering", "--data", f"hf://datasets/{REAL_DATA}", *level, "--run", str(tmp_path / "4")],
    )
    reports = [json.loads(each["out"]) for each in (local, remote, plain, fork)]

    assert len({each["code"] for each in (local, remote, plain, fork)}) == 1
    assert len(reports[1]["verdicts"]) > 40
    assert parts(reports[1], REAL_DATA, REAL) == parts(reports[0], data, model)
    assert parts(reports[3], f"hf://datasets/{REAL_DATA}", "fork/steering") == parts(reports[2], data, model)
    assert reports[1]["data_revision"] == reports[3]["data_revision"] == hub.head(REAL_DATA, "dataset")


@pytest.mark.slow
def test_a_rerun_from_the_hub(hub, tmp_path, packaged_study, packaged_data, smollm2_cache):
    """Some claims of the packaged study, on the model itself."""
    what = yaml.safe_load((packaged_study / "study.yaml").read_text(encoding="utf-8"))
    chosen = [
        next(claim for claim in what["claims"] if claim["measure"] == measure)
        for measure in ("vector_norm", "perplexity_ratio")
    ]
    text = yaml.safe_dump({**what, "claims": chosen}, sort_keys=False, allow_unicode=True)
    study = tmp_path / "study.yaml"
    study.write_text(text, encoding="utf-8")
    hub.upload(what["repo"], "model", packaged_study)
    hub.upload(what["repo"], "model", {"study.yaml": text.encode()})
    hub.upload(what["data"], "dataset", packaged_data)
    env = hub.environment(tmp_path / "home")
    cache = Path(env["STEER_EVAL_CACHE"])
    cache.mkdir(parents=True)
    (cache / "models").symlink_to(Path(smollm2_cache) / "models")
    arguments = ["reproduce", what["repo"], "--run", tmp_path / "run", "--json"]
    result = run_cli(*arguments, env=env, cwd=tmp_path, timeout=1500)
    report = json.loads(result.stdout)

    assert report["level"]["reached"] == "rerun"
    assert {each["verdict"] for each in report["verdicts"]} == {"reproduced"}
    assert {check["evidence"] for each in report["verdicts"] for check in each["checks"]} >= {"re-run"}
    assert report["revision"] == hub.head(what["repo"], "model")
