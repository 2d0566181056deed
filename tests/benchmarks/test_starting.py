"""Each load is that of a process started for it, and both ways end in the same weights; no time is judged here."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import starting
from measuring import Command, MeasurementError

HERE = Path(starting.__file__).parent


def command(body: str, way: str) -> Command:
    code = f"""
import os, sys
sys.path.insert(0, {str(HERE)!r})
from serving import serve
{body}
"""
    return Command((sys.executable, "-c", code, way))


def test_each_load_has_a_process_of_its_own_and_the_time_that_it_says():
    body = """
import time
loads = []
def load():
    loads.append(os.getpid())
    time.sleep(0.02)
    return 1, None
serve({"load": load, "weights": lambda: (time.sleep(0.3) or 1, loads)})
"""
    found = {}
    load = starting.loading(found)
    seen = []
    for way in ("ours", "plain", "ours"):
        start = time.perf_counter()
        cost = load([command(body, way)])
        assert 0.02 <= cost.seconds <= time.perf_counter() - start - 0.3
        assert cost.peak_mb > 1
        seen += found[way]
    assert len(set(seen)) == 3


def test_a_load_that_fails_is_told():
    with pytest.raises(MeasurementError, match="no such model"):
        starting.loading({})([command('raise SystemExit("no such model")', "ours")])


@pytest.mark.slow
def test_both_ways_load_the_same_weights(produced):
    found = {}
    load = starting.loading(found)
    for way in ("ours", "plain"):
        cost = load([Command((sys.executable, str(HERE / "loading.py"), str(produced.model), way))])
        assert cost.seconds > 0
        assert cost.peak_mb > 100
    assert found["ours"] == found["plain"]
    assert any(found["ours"].values())
