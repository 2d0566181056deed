from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz import mutations, planted
from fuzz.__main__ import REGRESSIONS
from fuzz.harness import generated
from fuzz.readers import readers

SLICE = 3000


def fuzz(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and summary of `python -m fuzz`; forking is safe there, whatever runs in this process."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--json", *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_slice_of_inputs_finds_nothing(tmp_path):
    code, summary = fuzz("--inputs", str(SLICE), "--seed", "7", "--regressions", str(tmp_path))

    assert (code, summary["failures"]) == (0, [])
    totals = {
        each.name: summary["accepted"].get(each.name, 0) + summary["refused"].get(each.name, 0) for each in readers()
    }
    assert sum(totals.values()) == SLICE
    assert max(totals.values()) - min(totals.values()) <= 1
    # Mutations that are always refused stop at a reader's door; some must get in, and some must not.
    for name, total in totals.items():
        assert 0.04 < summary["accepted"][name] / total < 0.96, name


def test_inputs_that_once_failed_do_not_fail_again(tmp_path):
    known = list(REGRESSIONS.glob("*/*.bin"))
    names = {each.name for each in readers()}

    code, summary = fuzz("--replay", "--regressions", str(REGRESSIONS))

    assert {path.parent.name for path in known} <= names
    assert (code, summary["failures"]) == (0, [])
    assert sum(summary["accepted"].values()) + sum(summary["refused"].values()) == len(known) > 0


def test_regressions_are_small():
    assert all(path.stat().st_size < 8192 for path in REGRESSIONS.glob("*/*.bin"))


def test_every_planted_misdeed_is_noticed_and_its_input_is_kept(tmp_path):
    count = 2 * len(planted.readers())
    options = ("--readers", "fuzz.planted", "--inputs", str(count), "--seed", "5", "--seconds", "1")

    code, summary = fuzz(*options, "--regressions", str(tmp_path))

    assert code == 1
    noticed = {(failure["reader"], failure["kind"]) for failure in summary["failures"]}
    assert noticed == {(name, kind) for name, (kind, _) in planted.DEEDS.items()}
    for failure in summary["failures"]:
        assert (tmp_path / failure["reader"] / failure["input"]).read_bytes().startswith(b"good!")
    assert set(planted.GOOD) <= set(summary["accepted"])
    assert not (tmp_path.parent / "written").exists()
    # What was kept fails again, and what fails there is not lost when processes die.
    code, again = fuzz("--replay", "--readers", "fuzz.planted", "--seconds", "1", "--regressions", str(tmp_path))
    assert code == 1
    assert {(failure["reader"], failure["kind"]) for failure in again["failures"]} == noticed


def test_the_same_seed_gives_the_same_inputs():
    count = len(readers())
    # The good files that are mutated are made anew each time, as every process makes them.
    cases = [generated(readers.__wrapped__(), seed) for seed in (1, 1, 2)]
    first, again, other = ([case(number).content for number in range(3 * count)] for case in cases)

    assert first == again
    assert sum(one != two for one, two in zip(first, other, strict=True)) > 2 * count


@pytest.mark.parametrize("reader", readers(), ids=lambda reader: reader.name)
def test_mutations_survive_their_own_results(reader):
    from random import Random

    for number in range(60):
        content = random_bytes = Random(number).randbytes(number)  # noqa: S311
        for _ in range(3):
            random = Random(f"{number}")  # noqa: S311
            content = random.choice(reader.mutations)(content, random, [*reader.seeds, random_bytes])
            content = content[: mutations.MAX_BYTES]
        assert isinstance(content, bytes)
