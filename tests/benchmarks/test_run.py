"""Results are kept beside others, rendered, and say where they come from; groups are run as asked.

No time is measured here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from importlib import metadata

import jsonschema
import pytest
import results_file
import run
from environments import python_of
from measuring import Asked, Comparison, MeasurementError, Point

MACHINE = {
    "cpu": "one",
    "cores": 2,
    "memory_gb": 16.0,
    "system": "Linux x86_64",
    "versions": {"torch": "2.13.0"},
    "import_mb": 230.0,
}
CODE = {"date": "2026-01-02", "steer_eval": "1.0", "commit": "abc"}


def entry(name: str, **changes: object) -> Comparison:
    return replace(Comparison(name, 2.0, "other", 3.0, 1.5, 0.1, True, 99.5, 3, (1.4, 1.5, 1.6)), **changes)


def test_some_entries_are_replaced_and_the_others_kept():
    before = results_file.merged(None, MACHINE, [entry("b"), entry("c"), entry("a")], CODE)
    new = [entry("b", ratio=9.0), entry("d")]
    later = {**CODE, "date": "2026-01-03"}
    after = results_file.merged(before, {**MACHINE, "import_mb": 231.0}, new, later)

    assert [each["name"] for each in before["comparisons"]] == ["a", "b", "c"]
    kept = {each["name"]: each for each in before["comparisons"]}
    assert [after["comparisons"][place] for place in (0, 2)] == [kept["a"], kept["c"]]
    assert [(each["ratio"], each["measured"]["date"]) for each in after["comparisons"]] == [
        (1.5, "2026-01-02"),
        (9.0, "2026-01-03"),
        (1.5, "2026-01-02"),
        (1.5, "2026-01-03"),
    ]
    assert after["machine"]["import_mb"] == 231.0


def test_entries_of_another_machine_never_stand_beside_new_ones():
    before = results_file.merged(None, MACHINE, [entry("a"), entry("b")], CODE)
    other = {**MACHINE, "cpu": "two"}

    assert results_file.continued(before, {**MACHINE, "import_mb": 231.0}, ["a"]) == before
    with pytest.raises(MeasurementError, match=r"^b: measured on another machine"):
        results_file.continued(before, other, ["a", "c"])
    assert results_file.continued(before, other, ["a", "b"]) is None
    assert results_file.continued(None, other, ["a"]) is None


def test_a_results_file_reads_as_it_was_written(tmp_path):
    path = tmp_path / "results.json"
    results = results_file.merged(None, MACHINE, [entry("a", identical=None)], CODE)
    results_file.write_results(path, results)

    assert results_file.read_results(path) == results
    # That there is nothing to compare is said; what was not asked for is left out.
    assert results["comparisons"][0]["identical"] is None
    assert not {"near_ties", "points", "peer_peak_mb"} & results["comparisons"][0].keys()
    assert results_file.read_results(tmp_path / "absent.json") is None


def test_results_from_before_rounds_were_noted_are_read_and_shown_without(tmp_path):
    path = tmp_path / "results.json"
    results = results_file.merged(None, MACHINE, [entry("a"), entry("b")], CODE)
    for key in ("pairs", "rounds", "measured"):
        del results["comparisons"][0][key]
    results_file.write_results(path, results)

    [old, new] = [
        line for line in run.rendered(results_file.read_results(path), {}).splitlines() if line.startswith("| `")
    ]
    assert ("|  |  | 10% |  | yes |" in old, "|  | 1.40 | 10% | 3 | yes |" in new) == (True, True)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(results_file.SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.update(note="x"),
        lambda results: results["machine"].update(load=1.0),
        lambda results: results["comparisons"][0].update(better=True),
        lambda results: results["comparisons"][0].pop("spread"),
        lambda results: results["comparisons"][0].update(ratio=0),
        lambda results: results["comparisons"][0].update(pairs=0),
        lambda results: results["comparisons"][0].update(rounds=[]),
        lambda results: results["comparisons"][0].update(near_ties=[[1, 2]]),
        lambda results: results.update(whole_run={"minutes": 0, "comparisons": 1, "date": "2026-01-02"}),
        lambda results: results["comparisons"][0].update(identical="yes"),
    ],
    ids=[
        "more",
        "more of the machine",
        "more of an entry",
        "less",
        "no ratio",
        "no pairs",
        "no rounds",
        "half a place",
        "no time",
        "no answer",
    ],
)
def test_results_of_another_form_are_neither_written_nor_read(tmp_path, change):
    path = tmp_path / "results.json"
    results = results_file.merged(None, MACHINE, [entry("a")], CODE)
    change(results)

    with pytest.raises(jsonschema.ValidationError):
        results_file.write_results(path, results)
    assert not path.exists()
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(MeasurementError, match="no results file"):
        results_file.read_results(path)


def rendered(*entries: Comparison, required: float | None = None) -> str:
    benchmarks = {each.name: run.Benchmark("ours", required, lambda _asked: []) for each in entries}
    return run.rendered(results_file.merged(None, MACHINE, entries, CODE), benchmarks)


@pytest.mark.parametrize(
    ("required", "words"),
    [
        (1.2, "≥ 1.20 (met)"),
        (1.4, "≥ 1.40 (met)"),
        (1.45, "≥ 1.45 (met, within noise)"),
        (1.55, "≥ 1.55 (**missed**)"),
    ],
)
def test_a_target_is_met_by_the_median_and_the_least_round_says_whether_it_is_noise(required, words):
    assert f"| **1.50** | {words} | 1.40 |" in rendered(entry("a"), required=required)


def test_what_is_known_of_some_entries_only_is_shown_with_them():
    points = (Point(1, 2.0, 1.0), Point(2, 3.0, 1.5), Point(4, 5.0, 2.5))
    ties = ((3, 1, 17), (4, 0, 2))
    text = rendered(entry("a", points=points), entry("b", near_ties=ties, peer_peak_mb=123.4), entry("c", near_ties=()))

    stamped = "Measured on 2026-01-02 with 1.0, commit abc."
    assert f"- `a`: ours. Peer: other. {stamped}\n" in text
    assert "near-tie: 2 (cell 3, prompt 1, token 17; cell 4, prompt 0, token 2). Measured" in text
    assert f"- `c`: ours. Peer: other. Texts that part at a near-tie: 0. {stamped}\n" in text
    [a, b, c] = [line for line in text.splitlines() if line.startswith("| `") and "MB" in line]
    assert (a.endswith(" MB |  |"), b.endswith("| 123 MB |"), c.endswith(" MB |  |")) == (True, True, True)
    assert "| Comparison | 1 times | 2 times | 4 times |\n|---|---|---|---|\n" in text
    assert text.endswith("| `a` | 2.00 s (1.00) | 3.00 s (1.50) | 5.00 s (2.50) |\n")


def test_what_was_compared_is_said_where_something_was():
    entries = [entry("a"), entry("b", identical=None), entry("c"), entry("d", identical=False)]
    same = {"a": "the texts", "b": "the texts", "c": "", "d": "the texts"}
    benchmarks = {name: run.Benchmark("ours", None, lambda _asked: [], same=words) for name, words in same.items()}
    text = run.rendered(results_file.merged(None, MACHINE, entries, CODE), benchmarks)
    lines = {line[3]: line for line in text.splitlines() if line.startswith("- `")}
    assert {name: " Compared: the texts. Measured" in line for name, line in lines.items()} == {
        "a": True,
        "b": False,
        "c": False,
        "d": True,
    }


def test_every_comparison_of_results_says_what_it_compares():
    for each in results_file.read_results(run.RESULTS)["comparisons"]:
        assert bool(run.BENCHMARKS[each["name"]].same) == (each["identical"] is not None)


def test_the_code_is_told_by_version_and_commit(tmp_path):
    version = metadata.version("steer-eval")

    told = results_file.stamp(tmp_path)
    assert told == {"date": told["date"], "steer_eval": version}
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments: str) -> None:
        settings = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *settings, *arguments], check=True, capture_output=True)

    git("init", "-q")
    assert "commit" not in results_file.stamp(tmp_path), "nothing is committed yet"
    for name in ("benchmarks/results.json", "benchmarks/run.py", "steer_eval/model.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = results_file.stamp(tmp_path)["commit"]
    assert re.fullmatch("[0-9a-f]{10}", clean)
    # An unpacked folder inside somebody's checkout is not that checkout.
    assert "commit" not in results_file.stamp(tmp_path / "benchmarks")
    (tmp_path / "benchmarks/results.json").write_text("{}", encoding="utf-8")
    assert results_file.stamp(tmp_path)["commit"] == clean, "results are no code"
    (tmp_path / "steer_eval/model.py").write_text("1", encoding="utf-8")
    assert results_file.stamp(tmp_path)["commit"] == f"{clean}-changed"


class Groups:
    """Groups that give prepared ratios, and remember what they were asked for together."""

    def __init__(self, ratios: dict[str, float]) -> None:
        self.ratios = ratios
        self.asked: list[Asked] = []

    def group(self) -> run.Group:
        def measured(asked: Asked) -> list[Comparison]:
            assert list(asked.folder.iterdir()) == []
            (asked.folder / "left").touch()
            self.asked.append(asked)
            return [entry(name, ratio=self.ratios[name], identical=name != "other") for name in asked.names]

        return measured


def test_a_run_of_some_comparisons_keeps_the_others_and_writes_both_files(tmp_path, capsys):
    path = tmp_path / "results.json"
    groups = Groups({"fast": 2.0, "slow": 0.5, "other": 1.0})
    benchmarks = {name: run.Benchmark("ours", 1.0, groups.group()) for name in groups.ratios}

    def measured(*names: str) -> int:
        return run.main(["--results", str(path), *names], benchmarks, lambda _: MACHINE)

    assert measured("fast", "slow") == 0
    assert re.search(r"^2 comparisons, 0\.0 min$", capsys.readouterr().err, re.MULTILINE)
    assert "whole_run" not in results_file.read_results(path), "that was not all"
    groups.ratios["slow"] = 0.75
    assert measured("other", "slow") == 1, "the two sides of one differ"
    assert [(asked.names, asked.pairs) for asked in groups.asked] == [
        ((name,), run.PAIRS) for name in ("fast", "slow", "other", "slow")
    ]
    results = results_file.read_results(path)
    assert {each["name"]: each["ratio"] for each in results["comparisons"]} == {"fast": 2.0, "other": 1.0, "slow": 0.75}
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text == run.rendered(results, benchmarks)
    [fast, other, slow] = [line for line in text.splitlines() if line.startswith("| `")]
    assert "| **2.00** | ≥ 1.00 (met) | 1.40 | 10% | 3 | yes |" in fast
    assert "| **no** |" in other
    assert "| **0.75** | ≥ 1.00 (**missed**) |" in slow


def test_a_run_of_all_comparisons_says_how_long_it_took_and_later_parts_leave_that(tmp_path):
    path = tmp_path / "results.json"
    groups = Groups({"a": 1.0, "b": 1.0})
    benchmarks = {name: run.Benchmark("ours", None, groups.group()) for name in groups.ratios}
    for names in ([], ["a"]):
        assert run.main(["--results", str(path), *names], benchmarks, lambda _: MACHINE) == 0
        whole = results_file.read_results(path)["whole_run"]
        assert (whole["comparisons"], whole["minutes"]) == (2, 0.1)
        text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert f"All 2 comparisons took 0.1 min together, on {whole['date']}." in text


def test_comparisons_of_a_group_are_measured_together_and_only_those_asked_for(tmp_path):
    groups = Groups(dict.fromkeys("abcde", 1.0))
    two, three = groups.group(), groups.group()
    benchmarks = {name: run.Benchmark("ours", None, three if name in "ace" else two) for name in "abcde"}
    path = tmp_path / "results.json"

    run.main(["--results", str(path), "e", "b", "a", "e"], benchmarks, lambda _: MACHINE)
    assert [asked.names for asked in groups.asked] == [("e", "a"), ("b",)]
    # What is written once for the run is seen by all.
    assert len({asked.shared for asked in groups.asked}) == 1
    assert not groups.asked[0].shared.exists()
    assert [each["name"] for each in results_file.read_results(path)["comparisons"]] == ["a", "b", "e"]


def test_what_was_measured_before_a_failure_is_kept(tmp_path):
    def fails(_asked: Asked) -> list[Comparison]:
        raise MeasurementError("no such cell")

    good = Groups({"a": 1.0})
    benchmarks = {"a": run.Benchmark("ours", None, good.group()), "b": run.Benchmark("ours", None, fails)}
    path = tmp_path / "results.json"

    assert run.main(["--results", str(path)], benchmarks, lambda _: MACHINE) == 2
    assert [each["name"] for each in results_file.read_results(path)["comparisons"]] == ["a"]


def test_what_can_not_be_measured_is_known_of_before_anything_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "python_of", partial(python_of, environments=tmp_path))
    groups = Groups({"a": 1.0, "b": 1.0})
    benchmarks = {
        "a": run.Benchmark("ours", None, groups.group()),
        "b": run.Benchmark("ours", None, groups.group(), libraries=("repeng",)),
    }
    arguments = ["--results", str(tmp_path / "results.json")]

    assert run.main(arguments, benchmarks, lambda _: MACHINE) == 2
    assert "repeng/bin/python is absent: `make bench` builds" in capsys.readouterr().err
    assert run.main([*arguments, "a", "--pairs", "2"], benchmarks, lambda _: MACHINE) == 2
    assert "2 pairs say nothing" in capsys.readouterr().err
    assert groups.asked == []
    assert run.main([*arguments, "a"], benchmarks, lambda _: MACHINE) == 0, "it is not needed for this one"


def test_the_published_results_are_in_order_and_rendered():
    results = results_file.read_results(run.RESULTS)

    assert {each["name"] for each in results["comparisons"]} <= run.BENCHMARKS.keys()
    rendered = run.RESULTS.with_name("RESULTS.md").read_text(encoding="utf-8")
    assert rendered == run.rendered(results, run.BENCHMARKS)
