"""Cards are written over cards that were rendered only, and found wrong where they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from legacy_cards.opened import CARD, cached, code, loads, opened

from steer_eval.errors import SteerEvalError
from steer_eval.legacy.identity import Asked
from steer_eval.legacy.limits import limits
from steer_eval.legacy_cards import MARK, check_legacy, open_legacy, render_model_repo, write_legacy
from steer_eval.repository import Repositories, open_target


def test_rendering_again_changes_nothing(place):
    first = opened(place.model, place.data)
    written = write_legacy(first.repositories, first.study, out=None, force=True)
    again = opened(place.model, place.data)

    assert [Path(path).name for path in written if path.endswith(".md")] == [CARD, CARD]
    assert write_legacy(again.repositories, again.study, out=None, force=False) == []
    assert check_legacy(again.repositories, again.study) == []
    # That the features are of another coefficient than the best cell of their layer is told, and stays true.
    assert {finding.rule for finding in again.study.found} <= {"feature-coefficient"}


def test_absent_files_that_a_card_names_stay_named(place):
    place.path("model/saes/fox_large_L5_sae.pt").unlink()
    first = opened(place.model, place.data)
    write_legacy(first.repositories, first.study, out=None, force=True)

    assert limits(opened(place.model, place.data).study).absent == ("saes/fox_large_L5_sae.pt",)


def test_a_card_written_by_hand_is_not_written_over(place):
    found = opened(place.model, place.data)
    before = place.path("model/README.md").read_text()

    with pytest.raises(SteerEvalError, match="was not rendered") as caught:
        write_legacy(found.repositories, found.study, out=None, force=False)
    assert "--force" in caught.value.fix
    assert place.path("model/README.md").read_text() == before
    assert not (place.model / "figures").exists()


def test_a_card_by_hand_in_the_other_repo_keeps_both_as_they_are(place):
    place.path("model/README.md").write_text(f"---\ndatasets: den/fox-data\n---\n{MARK}\n")
    found = opened(place.model, place.data)

    with pytest.raises(SteerEvalError, match="was not rendered"):
        write_legacy(found.repositories, found.study, out=None, force=False)
    assert not (place.model / "figures").exists()


def test_writing_elsewhere_leaves_the_repos_alone(place, tmp_path):
    before = {
        path: path.read_bytes() for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()
    }
    found = opened(place.model, place.data)
    written = write_legacy(found.repositories, found.study, out=tmp_path / "cards", force=False)

    assert {Path(path).relative_to(tmp_path / "cards").as_posix() for path in written} == {
        "model/README.md",
        "model/figures/perplexity_fox_large.svg",
        "model/figures/perplexity_fox_small.svg",
        "dataset/README.md",
    }
    after = {
        path: path.read_bytes() for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()
    }
    assert after == before


def test_a_snapshot_of_the_hub_is_not_written_to(place, tmp_path):
    snapshot = cached(
        "den/model", {p.relative_to(place.model).as_posix(): p for p in place.model.rglob("*") if p.is_file()}
    )
    found = opened(Path("den/model"), place.data)
    assert found.repositories.model.folder.is_relative_to(snapshot)
    assert found.study.identity.repo == "den/model"

    with pytest.raises(SteerEvalError, match="on the Hub, and is not written to") as caught:
        write_legacy(found.repositories, found.study, out=None, force=True)
    assert "--out" in caught.value.fix
    assert len(write_legacy(found.repositories, found.study, out=tmp_path / "cards", force=False)) == 4


def test_a_place_that_cannot_be_written_is_named(place, tmp_path):
    found = opened(place.model, place.data)
    (tmp_path / "cards").write_text("a file")

    with pytest.raises(SteerEvalError, match="can't be written") as caught:
        write_legacy(found.repositories, found.study, out=tmp_path / "cards", force=False)
    assert "--out" in caught.value.fix


def test_the_definition_of_the_published_frequency_is_contradicted(published):
    findings = check_legacy(published.repositories, published.study)

    errors = [finding for finding in findings if finding.severity == "error"]
    assert [finding.where for finding in errors] == ["line 73: column 62"]
    assert "share of prompts" in errors[0].message
    assert [finding.rule for finding in findings if finding.severity == "warning"] == ["card-absent"]


def test_stale_numbers_of_a_rendered_card_are_found_the_first_first(place):
    found = opened(place.model, place.data)
    write_legacy(found.repositories, found.study, out=None, force=True)
    path = place.path("model/README.md")
    lines = path.read_text().splitlines(keepends=True)
    norms = [index for index, line in enumerate(lines) if re.match(r"\| den/fox-\S+ \| \d+ \| [0-9.]+ \|", line)]
    for index in (norms[0], norms[3]):
        lines[index] = re.sub(r"\| ([0-9.]+) \| (\d+) \|$", r"| 9\1 | \2 |", lines[index].rstrip()) + "\n"
    path.write_text("".join(lines))
    again = opened(place.model, place.data)

    findings = check_legacy(again.repositories, again.study)
    assert [finding.where.partition(":")[0] for finding in findings] == [f"line {norms[0] + 1}", f"line {norms[3] + 1}"]
    assert {finding.rule for finding in findings} == {"card-differs"}
    assert all("the data contradicts" in finding.message for finding in findings)


def test_words_of_a_rendered_card_are_held_to_the_rendering(place):
    found = opened(place.model, place.data)
    write_legacy(found.repositories, found.study, out=None, force=True)
    path = place.path("data/README.md")
    path.write_text(path.read_text().replace("## Limitations", "## Strengths"))
    place.path("model/figures/perplexity_fox_small.svg").unlink()
    again = opened(place.model, place.data)

    assert [(f.rule, Path(f.file).name) for f in check_legacy(again.repositories, again.study)] == [
        ("card-absent", "perplexity_fox_small.svg"),
        ("card-differs", CARD),
    ]


def test_what_contradicts_itself_supports_no_number(place):
    """A ratio that does not follow from its perplexities is contradicted, whatever the card says of it."""
    ratio = json.loads(place.path("data/sweep_fox_small.jsonl").read_text().splitlines()[1])["ppl_ratio"]
    place.path("data/README.md").write_text("# Fox\n\n")
    with place.path("model/README.md").open("a") as file:
        file.write(f"\n| Model | Cell | PPL ratio |\n|---|---|---|\n| 0.5B | L=2 c=+1 | {ratio + 0.5:.2f} |\n")
    place.edit_line("data/sweep_fox_small.jsonl", 2, lambda row: row.update(ppl_ratio=row["ppl_ratio"] + 0.5))
    found = opened(place.model, place.data)

    messages = [finding.message for finding in check_legacy(found.repositories, found.study)]
    assert any("perplexity ratio" in message for message in messages)


def test_a_study_without_scores_or_sweeps_still_has_cards(place):
    for path in place.data.iterdir():
        if path.name != "contrast_pairs.jsonl":
            path.unlink()
    found = opened(place.model, place.data)

    assert "## Best cells" not in found.model_card
    assert "model-index" not in found.model_card
    assert len(code(found.model_card)) == 2
    assert list(render_model_repo(found.study)) == [CARD]
    loads(place.data, found)


def test_a_model_repo_without_vectors_has_no_code(place):
    shutil.rmtree(place.model / "vectors")
    found = opened(place.model, place.data)

    assert code(found.model_card) == []
    assert "## Vectors" not in found.model_card


def test_without_a_dataset_repo_the_data_is_asked_for(place, tmp_path):
    alone = tmp_path / "alone" / "vectors"
    shutil.copytree(place.model, alone)

    repositories = open_target(str(alone))
    assert isinstance(repositories, Repositories)
    with pytest.raises(SteerEvalError, match="which dataset repo") as caught:
        open_legacy(repositories, Asked())
    assert "--data" in caught.value.fix
