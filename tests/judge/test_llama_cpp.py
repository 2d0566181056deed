"""A real llama.cpp server as a judge. SmolLM2 knows nothing of judging: what is tested is that nothing gets lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from judge.cases import RUBRIC

from steer_eval.formats.strict_json import read_jsonl
from steer_eval.judge.api import ApiJudge
from steer_eval.judge.cache import FILE, opened_log
from steer_eval.judge.judging import Judged, judge_cells
from steer_eval.judge.subjects import ProtocolName, Subject, subjects_of
from steer_eval.results_files import row_from_json

pytestmark = pytest.mark.slow
PROMPTS = 1


@pytest.fixture(scope="module")
def address(smollm2_reference) -> Iterator[str]:
    [file] = smollm2_reference.source.files
    gguf = metadata.distribution(file.package).locate_file(file.file)
    program = Path(__file__).with_name("llama_server.py")
    process = subprocess.Popen(
        [sys.executable, str(program), str(gguf)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        _wait(url)
        yield f"{url}/v1"
    finally:
        process.kill()
        process.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - on the loopback
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            pass
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cells(packaged_data: Path) -> list[Subject]:
    rows = read_jsonl(packaged_data / "sweep_smollm2.jsonl", schema="sweep_row")
    every = subjects_of(row_from_json(row.value, "smollm2", row.line) for row in rows)
    chosen = [every[0], next(subject for subject in every if subject.cell.label == "steered")]
    return [Subject(subject.cell, subject.samples[:PROMPTS]) for subject in chosen]


def judged(address: str, folder: Path, cells: list[Subject], protocol: ProtocolName, **options: Any) -> Judged:
    """Checks on the judge are asked under one protocol only: each call takes seconds."""
    with opened_log(folder, options.pop("replay", None)) as log:
        judge = ApiJudge(address, "smollm2", name="smollm2", log=log, concurrency=2, **options)
        judge.checked = protocol == "paper-cell"
        return judge_cells(judge, cells, RUBRIC, protocol, repeats=1)


@pytest.mark.parametrize("protocol", ["paper-cell", "sample"])
def test_every_cell_ends_scored_or_unscored_and_replays(
    address: str, cells: list[Subject], tmp_path: Path, protocol: ProtocolName
) -> None:
    # One cell is enough calls for the protocol that asks about each axis alone.
    what = cells if protocol == "paper-cell" else cells[:1]
    first = judged(address, tmp_path / "first", what, protocol)

    assert [score.cell for score in first.scores] == [subject.cell for subject in what]
    for judgement in first.judgements:
        assert judgement.scored != bool(judgement.reason)
        assert judgement.raw is not None
        assert set(judgement.scores.values()) <= set(RUBRIC.levels)
    # llama.cpp turns the schema into a grammar, so that its replies are on the scale whatever the model knows.
    assert first.identity["capabilities"]["format"] == "json_schema"
    assert all(score.is_scored for score in first.scores)
    calls = [json.loads(line) for line in (tmp_path / "first" / FILE).read_text().splitlines()]
    replies = [call["reply"] for call in calls if call["kind"] == "call"]
    assert all(reply["usage"]["prompt_tokens"] > 0 and reply["body"] for reply in replies)

    # Nobody listens at this address; what is not in the log can't be had.
    again = judged(address, tmp_path / "again", what, protocol, replay=tmp_path / "first", retries=0)
    assert again.scores == first.scores
    assert not (tmp_path / "again" / FILE).exists()
