"""A study on a tiny model, produced by the commands themselves, as fixtures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from steer_eval.cli.main import cli
from steer_eval.formats import schema
from steer_eval.formats.strict_json import write_jsonl
from steer_eval.results import Results
from steer_eval.results_files import load_results
from steer_eval.study import load_study

LAYERS = [1, 2]
COEFFICIENTS = [-1.0, 1.0, 4.0]
SCENARIOS = [
    "The river rose.",
    "Nobody in the valley had slept.",
    "She took the lamp and went out.",
    "He said that the old men had seen worse than this.",
    "In the morning the sun came out, and the road was gone for good.",
]
CORPUS = (
    "The water had reached the second step. They counted the sheep twice. The dogs were quiet that night. "
    "The bridge was gone in the morning. Nobody spoke of it. The old men looked at the road, and at the river. "
)


@dataclass(frozen=True)
class Folders:
    model: Path
    data: Path

    def copy(self, target: Path) -> Folders:
        shutil.copytree(self.model.parent, target)
        return Folders(target / self.model.name, target / self.data.name)


def document() -> dict[str, Any]:
    return {
        "schema": "steer-eval/study/1",
        "name": "tiny",
        "title": "A tiny study",
        "repo": "lab/tiny",
        "data": "lab/tiny-data",
        "models": {"tiny": {"base_model": "lab/tiny-base", "source": {"local": {"path": "../base"}}}},
        "extraction": {
            "pairs": "contrast_pairs.jsonl",
            "positive": "angry",
            "negative": "calm",
            "layers": LAYERS,
        },
        "perplexity": {"corpus": "perplexity_corpus.txt", "window": 64, "resamples": 200},
        "sweep": {
            "prompts": "eval_prompts.jsonl",
            "coefficients": COEFFICIENTS,
            "max_new_tokens": 12,
            "collapse_ratio": 50.0,
            "controls": {
                "random": {"seed": 3, "text_coefficients": [1.0]},
                "anchor": {"system_prompt": "Be firm."},
            },
        },
        "tolerances": {
            "vector_norm": {"scale": "relative", "reproduced": 0.001, "drifted": 0.02},
            "vector_cosine": {"scale": "absolute", "reproduced": 0.0001, "drifted": 0.02},
            "perplexity_ratio": {"scale": "relative", "reproduced": 0.01, "drifted": 0.05},
        },
        "claims": [],
    }


def claims(published: Results) -> list[dict[str, Any]]:
    sweep = published.sweeps["tiny"]
    steered = {(row.cell.layer, row.cell.coef): row for row in sweep.labelled("steered")}
    made = [
        {
            "id": "pairs",
            "claim": "there are {expected} pairs",
            "measure": "contrast_pair_count",
            "expected": str(len(SCENARIOS)),
        }
    ]
    for layer in LAYERS:
        norm, ratio = published.vectors["tiny", layer].norm, steered[layer, 1.0].ppl_ratio
        for measure, expected, select in (
            ("vector_norm", f"{norm:.3f}", {"layer": layer}),
            ("vector_cosine", "1.000", {"layer": layer}),
            ("perplexity_ratio", f"{ratio:.4f}", {"layer": layer, "coef": 1}),
            ("collapsed", steered[layer, 1.0].collapsed, {"layer": layer, "coef": 1}),
            ("identical_generations", str(len(SCENARIOS)), {"layer": layer, "coef": 1}),
        ):
            identity = f"{measure}-{layer}".replace("_", "-")
            made.append(
                {
                    "id": identity,
                    "claim": f"{measure} {layer}",
                    "measure": measure,
                    "select": select,
                    "expected": expected,
                }
            )
    return made


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="session")
def produced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    """A study produced by the commands, claims included; whoever changes something changes a copy of it."""
    from tiny_models import save_tiny_model

    root = tmp_path_factory.mktemp("produced") / "repos"
    folders = Folders(root / "tiny", root / "tiny-data")
    folders.model.mkdir(parents=True)
    save_tiny_model(root / "base")
    what = document()
    (folders.model / "study.yaml").write_text(yaml.safe_dump(what, sort_keys=False))
    write_jsonl(
        folders.data / "contrast_pairs.jsonl",
        [{"scenario": s, "angry": f"I am done. {s}", "calm": f"I see. {s} Fine."} for s in SCENARIOS],
    )
    write_jsonl(folders.data / "eval_prompts.jsonl", [{"scenario": f"Look: {s}"} for s in SCENARIOS])
    (folders.data / "perplexity_corpus.txt").write_text(CORPUS)
    assert invoke("extract", str(folders.model)).exit_code == 0
    assert invoke("sweep", str(folders.model), "--run", str(root / "sweep-run")).exit_code == 0
    study = load_study(folders.model / "study.yaml")
    what["claims"] = claims(load_results(study, model_repo=folders.model, data_repo=folders.data))
    (folders.model / "study.yaml").write_text(yaml.safe_dump(what, sort_keys=False))
    assert invoke("card", str(folders.model)).exit_code == 0
    made = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    yield folders
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == made, "a test changed it"


@pytest.fixture
def folders(produced: Folders, tmp_path: Path) -> Folders:
    """A private copy to tamper with."""
    return produced.copy(tmp_path / "repos")


def reproduced(folders: Folders, run: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    answer = invoke("reproduce", str(folders.model), "--run", str(run), "--json", *arguments)
    report = json.loads(answer.stdout)
    schema.check(report, "report", file="standard output")
    return answer.exit_code, report


def judge(*arguments: str) -> tuple[int, dict[str, Any]]:
    answer = invoke("judge", *arguments, "--json")
    report = json.loads(answer.stdout)
    schema.check(report, "judging", file="standard output")
    return answer.exit_code, report
