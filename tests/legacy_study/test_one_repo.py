"""Each repo of a study without `study.yaml` can be checked without the other."""

from __future__ import annotations

import legacy_edits as edits

from steer_eval.repository import open_target
from steer_eval.validate import validate


def alone(folder) -> list[tuple[str, str, str, str]]:
    findings = validate(open_target(str(folder))).findings
    return [
        (each.severity, each.rule, each.file.removeprefix(f"{folder}").lstrip("/"), each.where) for each in findings
    ]


def test_each_repo_can_be_checked_alone(place, tmp_path):
    manifest = ("warning", "manifest-unusable", "manifest.json", "")

    assert alone(place.model) == [manifest, ("note", "data-absent", "", "")]
    assert alone(place.data) == [manifest]


def test_a_repo_with_its_tables_beside_its_vectors_lacks_no_data(place):
    for path in place.data.glob("*.jsonl"):
        path.rename(place.model / path.name)

    assert "data-absent" not in {rule for _, rule, *_ in alone(place.model)}


def test_mistakes_are_found_in_a_repo_alone(place):
    edits.line(edits.SWEEP, 3, edits.scaled("ppl"))(place)
    edits.element(edits.LARGE_2)(place)

    assert ("error", "sweep-arithmetic", "sweep_fox_large.jsonl", "line 3: ppl_ratio") in alone(place.data)
    assert ("error", "vector-norm", "vectors/fox_large_L2_caa.pt", "norm") in alone(place.model)


def test_a_repo_alone_is_not_told_what_it_is(place):
    (place.data / "README.md").unlink()
    [message] = [each.message for each in validate(open_target(str(place.data))).findings if each.rule == "card-absent"]

    assert message.startswith("the repo has no card")


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()

    assert alone(tmp_path / "empty")[-1] == ("error", "repo-empty", "", "")
    assert validate(open_target(str(tmp_path / "empty"))).checked == ()
