"""A judging run that is killed goes on without repeating a call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge.cases import judged_on, subjects
from judge.stub_server import Answer, Body, good, serving

from steer_eval.judge.cache import FILE

PROGRAM = """
import sys
from pathlib import Path
root = Path(sys.argv[1])
sys.path[:0] = [str(root / "tests"), str(root / "benchmarks")]
from judge.cases import judged_on, subjects
from judge.stub_server import Stub, good
stub = Stub(good, url=sys.argv[2])
print("started", flush=True)
judged_on(stub, Path(sys.argv[3]), subjects(12), protocol="sample", concurrency=2)
"""
CALLS = 12 * 3 * 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_resumes_without_a_repeated_call(tmp_path: Path, how: signal.Signals) -> None:
    def slow(body: Body, _count: int) -> Answer:
        return Answer(good(body).content, delay=0.02)

    with serving(slow) as stub:
        arguments = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[2]), stub.url, str(tmp_path)]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(stub.judged) < 20 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, how)
        process.wait(timeout=30)
        asked = len(stub.judged)
        kept = kept_calls(tmp_path)
        judged = judged_on(stub, tmp_path, subjects(12), protocol="sample", concurrency=2)

    assert 20 <= asked < CALLS
    # Only what was in flight at the kill may be asked twice.
    assert asked - 2 <= kept <= asked
    distinct = {json.dumps(body, sort_keys=True) for body in stub.judged}
    assert len(stub.judged) - len(distinct) <= 2
    assert len(stub.judged) - asked == len(distinct) - kept
    assert all(score.is_scored for score in judged.scores)


def kept_calls(folder: Path) -> int:
    """Whole lines of the log that are replies to questions."""
    lines = (folder / FILE).read_bytes().split(b"\n")[:-1]
    records = [json.loads(line) for line in lines]
    return sum(record["kind"] == "call" and "Answer with the JSON" not in json.dumps(record) for record in records)


def test_a_log_that_was_torn_is_read_up_to_the_tear(tmp_path: Path) -> None:
    with serving(good) as stub:
        first = judged_on(stub, tmp_path)
        log = tmp_path / FILE
        log.write_bytes(log.read_bytes()[:-200])
        before = len(stub.requests)
        again = judged_on(stub, tmp_path)

    assert len(stub.requests) == before + 1
    assert again.scores == first.scores
