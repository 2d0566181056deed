"""Studies that ship with the package, for repos that have none of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from steer_eval.claims.claim import Selector
from steer_eval.claims.measures import REGISTRY
from steer_eval.claims.verdict import NO_JUDGE, NO_RERUN, judge
from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.published import published_results
from steer_eval.report_data import load_page
from steer_eval.repository import Repositories, StudyRepositories, open_target, shipped_studies
from steer_eval.rules.claims import check_claims
from steer_eval.study import load_study
from steer_eval.validate import validate

SEED = "qwen35-mature-anger"
STUDIES = shipped_studies()
WRONG = {
    "transfer-mature-anger-unnamed": 1.5,
    "large-ranking": False,
    "small-ranking": False,
    "small-features": 2,
}
"""What the seed's card says and its data does not, with what the data has."""


@pytest.mark.parametrize("name", STUDIES)
def test_a_shipped_study_is_sound(name: str) -> None:
    study = load_study(STUDIES[name])

    assert study.name == name
    assert study.repo, "it is found by the Hub id of its model repo"
    assert check_claims(study, name) == []


def test_no_two_shipped_studies_are_of_one_repo() -> None:
    repos = [load_study(path).repo for path in STUDIES.values()]
    assert len(set(repos)) == len(repos) > 0


def test_a_study_is_taken_by_name_or_file(upstream: Path) -> None:
    model, data = str(upstream / "model"), str(upstream / "dataset")
    for named in (SEED, str(STUDIES[SEED])):
        target = open_target(model, data, named)
        assert isinstance(target, StudyRepositories)
        assert target.study.name == SEED
        assert target.words
    assert isinstance(open_target(model, data), Repositories)
    with pytest.raises(SteerEvalError, match="there is no study nonsense") as refused:
        open_target(model, data, "nonsense")
    assert SEED in refused.value.fix


def test_a_hub_repo_without_a_study_is_recognised(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, from a snapshot in the Hub's cache."""
    commit = "0" * 40
    for kind, folder, source in (("models", "steering", "model"), ("datasets", "data", "dataset")):
        repo = tmp_path / f"{kind}--Rachata--{SEED}-{folder}"
        (repo / "snapshots").mkdir(parents=True)
        (repo / "snapshots" / commit).symlink_to(upstream / source)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    target = open_target(f"Rachata/{SEED}-steering")

    assert isinstance(target, StudyRepositories)
    assert (target.study.name, target.data.name) == (SEED, f"Rachata/{SEED}-data")


def reproduced(upstream: Path, run: Path, *options: str) -> Result:
    target = ["reproduce", str(upstream / "model"), "--data", str(upstream / "dataset"), "--study", SEED]
    return CliRunner().invoke(cli, [*target, "--run", str(run), "--json", *options], catch_exceptions=False)


def test_the_seeds_claims_hold_on_its_published_data(upstream: Path, tmp_path: Path) -> None:
    """Beside them the numbers of its card, of which one is contradicted."""
    answer = reproduced(upstream, tmp_path / "run", "--level", "recompute")
    report = json.loads(answer.stdout)
    own = [verdict for verdict in report["verdicts"] if verdict["source"]["file"] == "study.yaml"]
    card = [verdict for verdict in report["verdicts"] if verdict["source"]["file"] != "study.yaml"]

    assert answer.exit_code == 1
    assert len(own) == len(load_study(STUDIES[SEED]).claims)
    contradicted = {verdict["id"]: verdict["checks"][0]["observed"] for verdict in own if verdict["id"] in WRONG}
    assert contradicted == WRONG
    assert {verdict["verdict"] for verdict in own if verdict["id"] in WRONG} == {"contradicted"}
    others = [verdict for verdict in own if verdict["id"] not in WRONG]
    assert {verdict["verdict"] for verdict in others if verdict["measure"] != "vector_cosine"} == {"reproduced"}
    assert {verdict["verdict"] for verdict in others if verdict["measure"] == "vector_cosine"} == {"not-checkable"}, (
        "a direction needs a re-run"
    )
    assert [verdict["claim"] for verdict in card if verdict["verdict"] == "contradicted"] == [
        "feature 4617 of qwen_large fires on 100% of tokens with steering"
    ]
    coverage = report["coverage"]
    assert coverage["understood"] == coverage["numbers"] == len(card) - coverage["places"]
    ties = [finding for finding in report["findings"] if finding["rule"] == "best-cell-tie"]
    assert [tie["where"].partition(": ")[2] for tie in ties if tie["file"] == "study.yaml"] == [
        "small-best",
        "xlarge-best",
    ]
    page = load_page(str(upstream / "model"), str(upstream / "dataset"), SEED)
    assert {(claim.id, claim.verdict) for claim in page.verdicts} >= {(each["id"], each["verdict"]) for each in own}


EDITS = {
    "judge_deepseek_large.jsonl": ("large-margin", '"layer": 14, "coef": 1.0', "mature_anger", "large-ratio"),
    "judge_phase_i.jsonl": ("anchor-mature-anger", '"prompt_only"', "juvenile_rage", "large-margin"),
}
"""By file: a claim, what its row has, the field to change, and a claim on other rows."""


@pytest.mark.parametrize("file", EDITS)
def test_a_row_that_contradicts_itself_supports_no_claim_of_a_study(file: str, upstream: Path, tmp_path: Path) -> None:
    claim, row, field, other = EDITS[file]
    data = shutil.copytree(upstream / "dataset", tmp_path / "data", copy_function=shutil.copyfile)
    data.chmod(0o755)
    lines = (data / file).read_text().splitlines()
    changed = [json.loads(line) | {field: 2.0} if row in line else json.loads(line) for line in lines]
    (data / file).write_text("".join(f"{json.dumps(each)}\n" for each in changed))
    target = open_target(str(upstream / "model"), str(data), SEED)
    assert isinstance(target, StudyRepositories)
    validation = validate(target)

    verdicts = {each.claim.id: each for each in judge(target.study, published_results(target, validation), None)}
    assert verdicts[claim].word == "contradicted"
    assert "margin" in verdicts[claim].checks[0].reason
    assert verdicts[other].word == "reproduced"


def test_a_rerun_names_what_it_needs_and_what_it_leaves_out(upstream: Path, tmp_path: Path) -> None:
    answer = reproduced(upstream, tmp_path / "run", "--max-minutes", "0")
    report = json.loads(answer.stdout)
    left_out = [finding for finding in report["findings"] if finding["rule"] == "model-left-out"]

    assert {finding["file"] for finding in left_out} == set(load_study(STUDIES[SEED]).models)
    assert all("--max-minutes" in finding["fix"] for finding in left_out)
    assert "tokens" in answer.stderr
    assert "judges: no calls" in answer.stderr
    assert report["level"] == {"requested": "rerun", "reached": "recompute"}
    again = {
        (REGISTRY[verdict["measure"]].is_judged(Selector()), check["reason"])
        for verdict in report["verdicts"]
        for check in verdict["checks"]
        if check["evidence"] == "re-run"
    }
    assert again == {(True, NO_JUDGE), (False, NO_RERUN[1])}
