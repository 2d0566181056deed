"""Every mistake that can be made in a study's files is found by exactly its rule, in its file and line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from mistakes import LATE_MISTAKES, MISTAKES
from studies import (
    HEX,
    OnDisk,
    build,
    environment,
    rows,
)
from study_edits import CORPUS, LAST, LINE, PAIRS, PROMPTS, SWEEP, VECTOR, of_every_row, of_row, with_vector

from steer_eval.findings import worst
from steer_eval.formats import schema
from steer_eval.formats.vector import file_name
from steer_eval.repository import open_target
from steer_eval.results_files import write_environments, write_sweep
from steer_eval.validate import MAX_ALIKE, validate


def found(place: OnDisk) -> list[tuple[str, str, str, str]]:
    """Findings as (severity, rule, file, where), with the names of the folders only."""
    root = str(place.model.parent)
    results = validate(place.repositories()).findings
    for finding in results:
        schema.check(json.loads(json.dumps(finding.to_json(), allow_nan=False)), "finding", file="x")
    return [(f.severity, f.rule, str(Path(f.file).relative_to(root)), f.where) for f in results]


def test_a_clean_study_has_no_finding(tmp_path):
    validation = validate(build(tmp_path, models=("tiny", "other")).repositories())

    assert validation.findings == ()
    assert worst(validation.findings) is None


def test_everything_that_is_there_was_looked_at(tmp_path):
    place = build(tmp_path)
    files = {str(path) for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()}

    assert {str(Path(file)) for file in validate(place.repositories()).checked} == files


@pytest.mark.parametrize(("mistake", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_where_it_is(tmp_path, mistake, expected):
    place = build(tmp_path)
    mistake(place)
    place.seal()

    assert found(place) == expected


@pytest.mark.parametrize(("mistake", "expected"), LATE_MISTAKES.values(), ids=LATE_MISTAKES)
def test_a_mistake_after_sealing_is_found(tmp_path, mistake, expected):
    place = build(tmp_path)
    mistake(place)

    assert {(severity, rule, file) for severity, rule, file, _ in found(place)} == expected


def test_the_expected_and_the_observed_value_are_given(tmp_path):
    place = build(tmp_path)
    MISTAKES["wrong ratio"][0](place)
    [finding] = validate(place.repositories(), with_cards=False).findings[1:]

    assert finding.expected == pytest.approx(2.4)
    assert finding.observed == 2.5
    assert finding.message == "ppl_ratio is 2.5, ppl / base_ppl gives 2.4"
    assert finding.fix


def test_all_mistakes_together_are_all_found(tmp_path):
    """One bad file never hides another, and one bad row never another row."""
    together = [
        "row against its schema",
        "pair without a reply",
        "empty prompts",
        "corpus not UTF-8",
        "vector of another norm",
    ]
    together += ["environment absent"]
    place = build(tmp_path)
    MISTAKES["wrong flag"][0](place)
    of_row(lambda value: value.update(ppl_ratio=9.0), line=3)(place)
    of_row(lambda value: value.update(ppl=-1.0), line=4)(place)
    for name in together[1:]:
        MISTAKES[name][0](place)
    place.seal()

    everything = {item[1:] for item in found(place)}
    assert everything >= {item[1:] for name in ("wrong flag", *together[1:]) for item in MISTAKES[name][1]}
    assert everything >= {("sweep-arithmetic", SWEEP, "line 3: ppl_ratio"), ("table", SWEEP, "line 4: ppl")}


def test_one_models_bad_sweep_does_not_hide_the_others(tmp_path):
    place = build(tmp_path, models=("tiny", "other"))
    (place.data / "sweep_tiny.jsonl").write_bytes(b"\xff")
    place.edit_line("sweep_other.jsonl", LINE, lambda value: value.update(ppl_ratio=2.5))
    place.seal()

    assert found(place)[0] == ("error", "table", SWEEP, "byte 0")
    assert ("error", "sweep-arithmetic", "persona-data/sweep_other.jsonl", f"line {LINE}: ppl_ratio") in found(place)


LINKED = [
    "persona/README.md",
    "persona/manifest.json",
    "persona/figures/perplexity_tiny.svg",
    "persona/vectors",
    VECTOR,
    SWEEP,
    PAIRS,
    PROMPTS,
    CORPUS,
    "persona-data/environment.json",
    "persona-data/README.md",
    "persona-data/config.json",
]


@pytest.mark.parametrize("file", LINKED)
def test_a_link_out_of_the_repo_is_not_followed(tmp_path, file):
    """Not even where it leads to the very same content; and that is all there is to say about the file."""
    place = build(tmp_path / "repos")
    path = place.model.parent / file
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    problems = found(place)
    assert problems[0] == ("error", "symlink", file, "")
    # A card shows what could be read, so it differs from one without the file.
    assert {rule for _, rule, _, _ in problems[1:]} <= {"card-differs", "card-absent"}
    assert not any(str(path) in each for each in validate(place.repositories()).checked)


def test_nothing_of_a_linked_file_gets_into_messages_or_results(tmp_path):
    place = build(tmp_path / "repos")
    (tmp_path / "secret").write_text("hunter2")
    for file in (SWEEP, PAIRS, PROMPTS, CORPUS, "persona-data/environment.json", VECTOR, "persona/README.md"):
        (place.model.parent / file).unlink()
        (place.model.parent / file).symlink_to(tmp_path / "secret")
    validation = validate(place.repositories())

    assert "hunter2" not in repr(validation)


def test_links_inside_the_repo_are_followed(tmp_path):
    place = build(tmp_path)
    (place.data / "texts").mkdir()
    (place.data / "perplexity_corpus.txt").rename(place.data / "texts" / "corpus.txt")
    (place.data / "perplexity_corpus.txt").symlink_to("texts/corpus.txt")
    place.seal()

    assert found(place) == []


def test_a_base_perplexity_that_is_not_the_zero_controls_is_found_in_every_row(tmp_path):
    """Also where all rows agree on it, and every ratio follows from it."""
    place = build(tmp_path)
    of_every_row(lambda value: value.update(base_ppl=20.1, ppl_ratio=value["ppl"] / 20.1))(place)
    place.seal()

    assert found(place) == [("error", "sweep-arithmetic", SWEEP, f"line {line}: base_ppl") for line in range(1, LAST)]


def test_a_tampered_vector_file_is_a_finding_not_a_crash(tmp_path):
    place = build(tmp_path)
    path = place.model / file_name("tiny", 3)
    header = json.dumps({"__metadata__": {"norm": "..."}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    place.seal()

    assert found(place) == [("error", "vector", VECTOR, "header")]


def test_without_cards_nothing_is_rendered(tmp_path):
    place = build(tmp_path)
    (place.model / "README.md").unlink()

    rules = {finding.rule for finding in validate(place.repositories(), with_cards=False).findings}
    assert rules == {"file-absent"}


def test_the_helpers_write_what_a_clean_study_has(tmp_path):
    place = build(tmp_path)
    study = place.study()
    write_sweep(place.data, "tiny", rows(study, "tiny"))
    write_environments(place.data, {"tiny": environment()})
    with_vector(weights_sha256=HEX)(place)

    assert found(place) == []


def test_findings_of_one_cause_are_bounded_and_counted(tmp_path):
    """The first ones are shown as they are, and how many more there are."""
    row = {"layer": 1, "base_ppl": 20.0, "ppl": 24.0, "ppl_ratio": 1.3, "collapsed": False, "generations": []}
    lines = [json.dumps({**row, "coef": float(coefficient)}) for coefficient in range(MAX_ALIKE + 7)]
    (tmp_path / "sweep_tiny.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    wrong = [each for each in validate(open_target(str(tmp_path))).findings if each.rule == "sweep-arithmetic"]
    assert [each.where for each in wrong] == [f"line {line}: ppl_ratio" for line in range(1, MAX_ALIKE + 1)] + [""]
    assert wrong[-1].message.startswith("7 more of these")
