"""`datasets` itself loads every table of what is published, from a Hub, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import legacy
import studies
from hub_fixtures import run_client
from hub_server import HubServer
from huggingface_hub import DatasetCard
from publish_staging import staged
from whole_studies import whole

from steer_eval import table_configs

COMPARED = "comparison_tiny.jsonl"
LOAD = """
import json, sys
import datasets
loaded = {}
for repo in sys.argv[1:]:
    configs = loaded[repo] = {}
    for name in datasets.get_dataset_config_names(repo):
        tables = datasets.load_dataset(repo, name)
        configs[name] = {split: [dict(row) for row in table] for split, table in tables.items()}
    configs["(default)"] = {split: table.num_rows for split, table in datasets.load_dataset(repo).items()}
print(json.dumps(loaded))
"""


def put(hub: HubServer, name: str, scratch: Path, model: Path, data: Path) -> Path:
    """Stage two folders, and upload the dataset repo as it would be published."""
    made = staged(scratch / name, model, data)
    hub.upload(f"steer/{name}", "dataset", made.data.folder)
    return made.data.folder


def load(hub: HubServer, home: Path, *repos: str) -> dict[str, dict[str, dict[str, Any]]]:
    env = hub.environment(home, HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    found: dict[str, dict[str, dict[str, Any]]] = run_client(LOAD, env, *repos)
    return found


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without_empty(value: Any) -> Any:
    """A row as `datasets` gives it back: what a row does not have is None there."""
    if isinstance(value, dict):
        return {key: without_empty(each) for key, each in value.items() if each is not None}
    return [without_empty(each) for each in value] if isinstance(value, list) else value


def check(folder: Path, loaded: dict[str, dict[str, Any]]) -> set[str]:
    """Every table of a folder is loaded under the name and splits that its card gives, with all its values."""
    configs = DatasetCard.load(folder / "README.md").data.to_dict()["configs"]
    seen = set()
    for config in configs:
        for part in config["data_files"]:
            table = loaded[config["config_name"]][part["split"]]
            assert without_empty(table) == without_empty(rows(folder / part["path"])), part["path"]
            seen.add(part["path"])
    assert seen == {path.name for path in folder.glob("*.jsonl")}
    assert loaded.keys() == {config["config_name"] for config in configs} | {"(default)"}
    sweep = loaded["sweep"]
    assert loaded["(default)"] == {split: len(table) for split, table in sweep.items()}
    return set(sweep)


def test_every_table_of_our_study_loads_with_a_split_per_model(tmp_path, hub, packaged_study, packaged_data):
    folder = put(hub, "ours", tmp_path, packaged_study, packaged_data)

    assert check(folder, load(hub, tmp_path / "home", "steer/ours")["steer/ours"]) == {"smollm2"}


def test_every_table_of_studies_with_unlike_rows_loads(tmp_path, hub, monkeypatch):
    """Two models whose sweeps have other columns, a study without `study.yaml`, and one with a judged comparison."""
    two = studies.build(tmp_path / "two", models=("tiny", "other"))
    table = two.data / "sweep_other.jsonl"
    bare = [{key: row[key] for key in row if not key.startswith("sentence_")} for row in rows(table)]
    studies.write_lines(table, bare)
    old = legacy.build(tmp_path / "old")
    compared = whole(tmp_path / "compared")
    scores = {"mature_anger": 4.0, "juvenile_rage": 1.5, "coherence": 4.5, "margin": 2.5}
    methods = [
        {key: row[key] for key in ("variant", "label", "layer", "coef")} for row in rows(compared.data / COMPARED)
    ]
    studies.write_lines(compared.data / "judge_owl_tiny_comparison.jsonl", [{**each, **scores} for each in methods])
    places = {
        "two": put(hub, "two", tmp_path / "s", two.model, two.data),
        "old": put(hub, "old", tmp_path / "s", old.model, old.data),
        "compared": put(hub, "compared", tmp_path / "s", compared.model, compared.data),
    }

    loaded = load(hub, tmp_path / "home", *(f"steer/{name}" for name in places))

    splits = {name: check(folder, loaded[f"steer/{name}"]) for name, folder in places.items()}
    assert splits == {"two": {"tiny", "other"}, "old": {"fox_large", "fox_small"}, "compared": {"tiny"}}
    assert {"comparison", "judge_owl_comparison"} <= loaded["steer/compared"].keys()


def test_every_table_of_the_upstream_study_loads(tmp_path, hub, upstream):
    folder = put(hub, "upstream", tmp_path, upstream / "model", upstream / "dataset")

    splits = check(folder, load(hub, tmp_path / "home", "steer/upstream")["steer/upstream"])
    assert splits == {"qwen_small", "qwen_large", "qwen_xlarge"}


def test_types_are_stated_where_one_piece_of_a_file_does_not_show_them(tmp_path, hub, monkeypatch):
    """A column that is empty for the first ten megabytes, which is what `datasets` infers types from."""
    place = studies.build(tmp_path / "own")
    first = rows(place.data / "sweep_tiny.jsonl")[0]
    padding = {"prompt_idx": 0, "prompt": studies.PROMPTS[0], "gen": "x" * 4_000_000}
    long = [{**first, "system_prompt": None, "generations": [padding]} for _ in range(4)]
    studies.write_lines(place.data / "sweep_long.jsonl", [*long, {**first, "system_prompt": "Be firm."}])

    folder = put(hub, "long", tmp_path / "s", place.model, place.data)

    size = (folder / "sweep_long.jsonl").stat().st_size
    assert size > table_configs.ONE_PIECE_BYTES
    assert "dataset_info" in DatasetCard.load(folder / "README.md").data.to_dict()
    loaded = load(hub, tmp_path / "home", "steer/long")["steer/long"]
    assert [row["system_prompt"] for row in loaded["sweep"]["long"]] == [None] * 4 + ["Be firm."]
