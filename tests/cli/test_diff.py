"""`steer-eval diff` as people and programs see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands import in_one_process
from hub_server import HubServer
from studies import OnDisk, build, claim

from steer_eval.cells import Cell
from steer_eval.cli import difference_output
from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.vector import SteeringVector, file_name, read_vector, write_vector

CLAIMS = [claim("perplexity_ratio", "1.50", identity="ratio", layer=1, coef=2)]


def diff(old: OnDisk, new: OnDisk, *options: str) -> Result:
    return CliRunner().invoke(cli, ["diff", str(old.model), str(new.model), *options])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[OnDisk, OnDisk]:
    return build(tmp_path / "old", claims=CLAIMS), build(tmp_path / "new", claims=CLAIMS)


def test_nothing_differs(pair: tuple[OnDisk, OnDisk]) -> None:
    answer = diff(*pair)

    assert answer.exit_code == 0
    assert answer.stdout == "no differences in 13 files\n"


def test_every_kind_of_change_is_shown(pair: tuple[OnDisk, OnDisk]) -> None:
    old, new = pair
    vector = read_vector(new.model / file_name("tiny", 1))
    turned = SteeringVector(np.array([4, 3, 0, 1], dtype=np.float32), vector.layer, vector.provenance)
    write_vector(new.model / file_name("tiny", 1), turned)
    (new.model / file_name("tiny", 3)).unlink()
    (new.data / "notes\x1b[31m.txt").write_text("x", encoding="utf-8")
    line = new.line_of(Cell("tiny", "steered", 1, 2.0))
    new.edit_line("sweep_tiny.jsonl", line, lambda row: row.update(ppl_ratio=1.7))
    card = new.model / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("is 1.50", "is 1.70"), encoding="utf-8")
    answer = diff(old, new)

    assert answer.exit_code == 1
    lines = [line.strip() for line in answer.stdout.splitlines()]
    assert f"- model: {file_name('tiny', 3)}, {(old.model / file_name('tiny', 3)).stat().st_size} bytes" in lines
    assert "~ vector: cosine 0.961538, norm × 1, largest difference 1" in lines
    assert f'~ label "steered", layer 1, coef 2 (line {line}): ppl_ratio 1.5 → 1.7' in lines
    assert "~ verdict reproduced → contradicted" in lines
    assert "~ data 1.5 → 1.7" in lines
    assert any(line.startswith("~ model card, line ") and ": 1.50 → 1.70 in " in line for line in lines)
    assert "\x1b" not in answer.stdout
    assert lines[-1] == (
        "artifacts: 1 added, 1 removed, 3 changed, 9 the same; numbers of cards that differ: 1; claims that differ: 1"
    )


def test_json_is_the_difference(pair: tuple[OnDisk, OnDisk]) -> None:
    old, new = pair
    (new.data / "notes.txt").write_text("x", encoding="utf-8")
    answer = diff(old, new, "--json")

    assert answer.exit_code == 1
    document = json.loads(answer.stdout)
    schema.check(document, "diff", file="standard output")
    assert [change["path"] for change in document["artifacts"]] == [{"new": "notes.txt"}]


def test_long_lists_are_cut_and_say_so(pair: tuple[OnDisk, OnDisk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference_output, "SHOWN", 2)
    old, new = pair
    for line in range(1, 6):
        new.edit_line("sweep_tiny.jsonl", line, lambda row: row.update(ppl=row["ppl"] + 1))
    answer = diff(old, new)

    assert "    … 3 more, see --json\n" in answer.stdout


def test_a_side_that_is_absent_is_an_error(pair: tuple[OnDisk, OnDisk]) -> None:
    answer = CliRunner().invoke(cli, ["diff", str(pair[0].model), "absent folder"])

    assert isinstance(answer.exception, SteerEvalError)
    assert "absent folder" in str(answer.exception)


def test_dataset_repos_can_be_named(pair: tuple[OnDisk, OnDisk]) -> None:
    old, new = pair
    new.data.rename(new.data.with_name("texts"))
    answer = diff(old, new, "--data-new", str(new.data.with_name("texts")))

    assert answer.exit_code == 0, answer.output


def test_a_study_that_ships_is_that_of_a_copy_too(upstream: Path, hub: HubServer, tmp_path: Path) -> None:
    name = "Rachata/qwen35-mature-anger"
    hub.upload(f"{name}-steering", "model", upstream / "model")
    hub.upload(f"{name}-data", "dataset", upstream / "dataset")
    command = ("diff", f"{name}-steering", upstream / "model", "--data-new", upstream / "dataset")
    [answer] = in_one_process(hub.environment(tmp_path / "home"), command)

    assert (answer.code, answer.stdout) == (0, "no differences in 38 files\n"), answer.stderr
