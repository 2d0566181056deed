"""The promise of an audit: a number that is changed, in the card or in the data, does not stay reproduced unnoticed.

On a copy of the reference study. Each of 200 edits of the card, and of 200 of the data that the card rests on, is
noticed where it is, and nothing else changes.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from steer_eval.audit import Audit, Evidence, Place
from steer_eval.claims.claim import Selector
from steer_eval.claims.printed import Printed
from steer_eval.findings import Finding
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.repository import open_target
from steer_eval.rules.judges import judge_findings
from steer_eval.rules.saes import sae_findings
from steer_eval.rules.sweep_files import sweep_file_findings, sweep_files
from steer_eval.rules.vector_files import vector_file_findings
from steer_eval.validate import Validation, validate

EDITS = 200
NUMBER = re.compile(r"[0-9][0-9,]*(?:\.(?P<decimals>[0-9]+))?")


@dataclass(frozen=True)
class Study:
    """The reference study with the audit of its card."""

    folder: Path
    text: str
    validation: Validation
    evidence: Evidence
    audit: Audit

    @property
    def inventory(self) -> Inventory:
        return self.validation.inventory


@pytest.fixture(scope="module")
def study(upstream: Path) -> Study:
    validation = validate(open_target(str(upstream / "model"), str(upstream / "dataset")))
    text = (upstream / "model" / "README.md").read_text(encoding="utf-8")
    evidence = Evidence.of(validation.inventory, validation.findings)
    return Study(upstream, text, validation, evidence, evidence.audit(text, "card"))


def test_one_number_of_the_study_is_contradicted(study: Study) -> None:
    """The share of prompts that the card takes for one of tokens; nothing else, so that a finding means something."""
    words = [place.verdict.word for place in study.audit.places]
    [wrong] = [place for place in study.audit.places if place.verdict.word == "contradicted"]

    assert wrong.verdict.claim.measure == "feature_steered_frequency"
    assert "of prompts, not of tokens" in wrong.verdict.checks[0].reason
    assert words.count("reproduced") >= 30
    assert study.audit.coverage.understood == study.audit.coverage.numbers


def lesser_cells(study: Study, place: Place) -> list[Selector]:
    """Cells that are not among the best ones of a claim's model and judge."""
    select = place.verdict.claim.select
    scores = study.evidence.facts.find("margin", Selector(select.model, judge=select.judge))
    judged = [fact for fact in scores if not fact.imputed]
    highest = max(fact.value for fact in judged)
    return [fact.select for fact in judged if fact.value < highest]


def changed(study: Study, place: Place, rng: random.Random) -> str:
    """Another number in the same form, further off than any rounding; for a best cell, one that is none."""
    claim = place.verdict.claim
    expected = claim.expected
    if claim.measure == "best_cell":
        cell = rng.choice([*lesser_cells(study, place), Selector(layer=rng.randrange(40, 90), coef=1.0)])
        return f"L={cell.layer} c={cell.coef:+g}"
    if claim.measure == "feature_listed":
        return str(rng.randrange(9000, 9999))
    assert isinstance(expected, Printed)
    match = NUMBER.search(expected.text)
    assert match is not None
    decimals = len(match["decimals"] or "")
    value = float(match[0])
    if expected.text.startswith("<"):
        value = rng.randrange(1, 6)
    else:
        step = max(2 * expected.rounding, 0.3 * value if claim.measure == "file_size" else 0.0, 10.0**-decimals)
        value += rng.choice((1, -1) if value > 12 * step else (1,)) * rng.uniform(3, 9) * step
    if claim.measure == "scores_to":
        value = rng.randrange(1, 5)
    return expected.text[: match.start()] + f"{value:.{decimals}f}" + expected.text[match.end() :]


def lines_of_one_statement(text: str, line: int) -> set[int]:
    """A row of a table, or the paragraph around a line."""
    lines = text.split("\n")
    if lines[line - 1].startswith("|"):
        return {line}
    first = last = line
    while lines[first - 2].strip():
        first -= 1
    while lines[last].strip():
        last += 1
    return set(range(first, last + 1))


@pytest.mark.parametrize("seed", range(EDITS))
def test_an_edit_of_the_card_is_noticed_and_changes_nothing_else(study: Study, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    checkable = [place for place in study.audit.places if place.verdict.word == "reproduced"]
    place = rng.choice(checkable)
    lines = study.text.split("\n")
    line = lines[place.line - 1]
    number = changed(study, place, rng)
    lines[place.line - 1] = line[: place.start] + number + line[place.end :]
    edited = study.evidence.audit("\n".join(lines), "card")

    [now] = [each for each in edited.places if (each.line, each.start) == (place.line, place.start)]
    # What now names something that is not there (a feature that no table has, a cell) is not reproduced either.
    names = place.verdict.claim.measure in ("feature_listed", "best_cell")
    expected = {"contradicted", "not-checkable"} if names else {"contradicted"}
    assert now.verdict.word in expected, number
    near = lines_of_one_statement(study.text, place.line)
    assert [each for each in edited.places if each.line not in near] == [
        each for each in study.audit.places if each.line not in near
    ]


@dataclass(frozen=True)
class DataEdit:
    """One changed number: its file and place as findings and facts name them, and the study's files with it."""

    file: str
    where: str
    artifact: Artifact


def of_row(artifact: Artifact, line: int, key: str, change: Callable[[float], float]) -> DataEdit:
    rows = tuple(
        replace(row, value={**row.value, key: change(row.value[key])}) if row.line == line else row
        for row in artifact.value
    )
    return DataEdit(artifact.file, f"line {line}", replace(artifact, value=rows))


def edited_data(study: Study, rng: random.Random) -> DataEdit:
    """A number that a claim of the card rests on, changed beyond rounding."""
    resting = {
        (check.file, check.where)
        for place in study.audit.places
        for check in place.verdict.checks
        if check.file and place.verdict.claim.measure not in ("scores_from", "scores_to")
    }
    kind = rng.choice(("sweep", "judge", "best", "feature", "size", "vector"))
    factor = rng.choice((rng.uniform(0.5, 0.9), rng.uniform(1.12, 2.0)))
    if kind == "sweep":
        rows = lines_resting(study, "sweep", resting)
        return of_row(*rng.choice(rows), rng.choice(("ppl", "ppl_ratio", "base_ppl")), lambda value: value * factor)
    shift = rng.choice((-1.0, -0.5, 0.5, 1.0))
    if kind == "judge":
        axis = rng.choice(("mature_anger", "juvenile_rage", "coherence", "margin"))
        return of_row(*rng.choice(lines_resting(study, "judge", resting)), axis, lambda value: value + shift)
    if kind == "best":
        # That a cell is the best one rests on every margin of its model and judge.
        files = {file for file, _ in resting}
        tables = [artifact for artifact in study.inventory.of("judge") if artifact.file in files]
        artifact = rng.choice(tables)
        axis = rng.choice(("mature_anger", "juvenile_rage", "margin"))
        return of_row(artifact, rng.choice(artifact.value).line, axis, lambda value: value + shift)
    if kind == "feature":
        [artifact] = [each for each in study.inventory.of("features") if (each.file, "top_features[0]") in resting]
        key = rng.choice(("base_mean", "steered_mean", "delta", "steered_freq"))
        first = artifact.value.rows[0]
        value = getattr(first, key) * (factor if key != "steered_freq" else rng.uniform(0.2, 0.9))
        rows = (replace(first, **{key: value}), *artifact.value.rows[1:])
        table = replace(artifact, value=replace(artifact.value, rows=rows))
        return DataEdit(artifact.file, "top_features[0]", table)
    vectors = list(study.inventory.of("vector_pt"))
    artifact = rng.choice(vectors)
    if kind == "size":
        return DataEdit(artifact.file, "", replace(artifact, size=artifact.size + rng.randrange(6_000, 90_000)))
    values = artifact.value.values.copy()
    largest = abs(values).argmax()
    values[largest] *= 3
    return DataEdit(artifact.file, "vector", replace(artifact, value=replace(artifact.value, values=values)))


def lines_resting(study: Study, kind: str, resting: set[tuple[str, str]]) -> list[tuple[Artifact, int]]:
    return [
        (artifact, row.line)
        for artifact in study.inventory.of(kind)
        for row in artifact.value
        if (artifact.file, f"line {row.line}") in resting
    ]


def findings_on(inventory: Inventory) -> list[Finding]:
    """What the rules on sweeps, scores, features and vectors find."""
    sweeps = sweep_files(inventory)
    return [
        *sweep_file_findings(inventory, sweeps, frozenset()),
        *judge_findings(inventory, sweeps),
        *sae_findings(inventory),
        *vector_file_findings(inventory),
    ]


def audited_with(study: Study, edit: DataEdit) -> tuple[Audit, list[Finding]]:
    """The card's audit on the study with one file changed."""
    artifacts = tuple(edit.artifact if each.file == edit.file else each for each in study.inventory.artifacts)
    inventory = Inventory(study.inventory.roots, artifacts)
    findings = findings_on(inventory)
    return Evidence.of(inventory, findings).audit(study.text, "card"), findings


def rests_on(place: Place, edit: DataEdit) -> bool:
    """Whether a claim rests on what was edited."""
    check = place.verdict.checks[0]
    if place.verdict.claim.measure in ("best_cell", "scores_from", "scores_to"):
        same_model = check.file == edit.file
        return same_model or place.verdict.claim.measure != "best_cell"
    if place.verdict.claim.measure == "file_size":
        # A row about several files rests on each of them; its check names one.
        return edit.where == ""
    return (check.file, check.where) == (edit.file, edit.where)


@pytest.fixture(scope="module")
def known(study: Study) -> set[tuple[str, str, str]]:
    return {(finding.rule, finding.file, finding.where) for finding in findings_on(study.inventory)}


def noticed(before: Audit, after: Audit, edit: DataEdit, findings: list[Finding], known: set[Any]) -> bool:
    """Whether a verdict changed, or there is a new finding that names the file and the row."""
    if [place.verdict.word for place in before.places] != [place.verdict.word for place in after.places]:
        return True
    new = [each for each in findings if (each.rule, each.file, each.where) not in known]
    # A vector is one row; findings on it name the key that it disagrees with.
    where = "" if edit.where == "vector" else edit.where.removesuffix("]")
    return any(each.file == edit.file and each.where.startswith(where) for each in new)


@pytest.mark.parametrize("seed", range(EDITS))
def test_an_edit_of_the_data_is_noticed_and_changes_nothing_else(
    study: Study, known: set[tuple[str, str, str]], seed: int
) -> None:
    edit = edited_data(study, random.Random(1000 + seed))  # noqa: S311
    after, findings = audited_with(study, edit)

    assert noticed(study.audit, after, edit, findings, known), f"{edit.file} {edit.where}"
    for before, now in zip(study.audit.places, after.places, strict=True):
        if not rests_on(before, edit):
            assert now.verdict.word == before.verdict.word, before.verdict.claim.words


@pytest.mark.parametrize("seed", range(6))
def test_another_cell_with_a_higher_margin_contradicts_the_best_one_of_its_model_only(study: Study, seed: int) -> None:
    """A whole row that is in order, so that no rule finds fault with it."""
    rng = random.Random(seed)  # noqa: S311
    stated = [each for each in study.audit.places if each.verdict.claim.measure == "best_cell"]
    place = stated[seed % len(stated)]
    rival, file = rng.choice(lesser_cells(study, place)), place.verdict.checks[0].file
    artifact = next(each for each in study.inventory.artifacts if each.file == file)
    scores = {"mature_anger": 5.0, "juvenile_rage": 1.0, "margin": 4.0}
    rows = tuple(
        replace(row, value={**row.value, **scores})
        if (row.value["layer"], row.value["coef"]) == (rival.layer, rival.coef)
        else row
        for row in artifact.value
    )
    after, _ = audited_with(study, DataEdit(file, "", replace(artifact, value=rows)))

    words = {each.line: each.verdict.word for each in after.places if each.verdict.claim.measure == "best_cell"}
    assert words == {each.line: "contradicted" if each is place else "reproduced" for each in stated}


def in_line(file: str, line: int, old: str, new: str) -> Callable[[Path], tuple[str, str]]:
    def change(folder: Path) -> tuple[str, str]:
        lines = (folder / file).read_text(encoding="utf-8").split("\n")
        assert lines[line - 1].count(old) == 1
        lines[line - 1] = lines[line - 1].replace(old, new)
        (folder / file).write_text("\n".join(lines), encoding="utf-8")
        return file, f"line {line}"

    return change


def padded(file: str) -> Callable[[Path], tuple[str, str]]:
    def change(folder: Path) -> tuple[str, str]:
        with (folder / file).open("ab") as opened:
            opened.write(b"\n" * 20_000)
        return file, ""

    return change


ON_DISK = {
    "ratio": in_line("dataset/sweep_qwen_large.jsonl", 16, '"ppl_ratio": 1.1250915052471215', '"ppl_ratio": 1.25'),
    "perplexity": in_line("dataset/sweep_qwen_small.jsonl", 2, '"ppl": 30.', '"ppl": 39.'),
    "margin": in_line("dataset/judge_deepseek_large.jsonl", 16, '"margin": 2.5', '"margin": 3.5'),
    "score": in_line("dataset/judge_deepseek_xlarge.jsonl", 1, '"coherence": 5.0', '"coherence": 4.0'),
    "feature": in_line("model/saes/qwen_large_L14_features.json", 10, "1.78", "1.88"),
    "size": padded("model/saes/qwen_large_L14_features.json"),
}


@pytest.mark.parametrize("name", ON_DISK)
def test_an_edit_of_a_file_is_noticed_end_to_end(study: Study, tmp_path: Path, name: str) -> None:
    for part in ("model", "dataset"):
        shutil.copytree(study.folder / part, tmp_path / part, copy_function=shutil.copyfile)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    file, _where = ON_DISK[name](tmp_path)
    validation = validate(open_target(str(tmp_path / "model"), str(tmp_path / "dataset")))
    after = Evidence.of(validation.inventory, validation.findings).audit(study.text, "card")

    changed_places = [
        now
        for before, now in zip(study.audit.places, after.places, strict=True)
        if now.verdict.word != before.verdict.word
    ]
    assert changed_places
    assert all(place.verdict.word == "contradicted" for place in changed_places)
    assert {check.file for place in changed_places for check in place.verdict.checks} == {str(tmp_path / file)}


def test_rows_are_the_type_that_the_inventory_reads(study: Study) -> None:
    """So that the edits above are of what an audit reads."""
    assert all(isinstance(row, Row) for artifact in study.inventory.of("sweep", "judge") for row in artifact.value)
