from __future__ import annotations

import pytest
from studies import build

from steer_eval.errors import FormatError
from steer_eval.produce import copy_data
from steer_eval.reproduce import default_run_folder

TEXTS = ["contrast_pairs.jsonl", "eval_prompts.jsonl", "perplexity_corpus.txt"]


@pytest.fixture
def place(tmp_path):
    return build(tmp_path / "repos")


def test_the_texts_of_a_study_are_copied(place, tmp_path):
    copy_data(place.study(), place.data, tmp_path / "run", files=())

    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == TEXTS
    for name in TEXTS:
        assert (tmp_path / "run" / name).read_bytes() == (place.data / name).read_bytes()


def test_a_folder_can_be_its_own_run(place):
    before = {name: (place.data / name).read_bytes() for name in TEXTS}
    copy_data(place.study(), place.data, place.data, files=())

    assert {name: (place.data / name).read_bytes() for name in TEXTS} == before


def test_a_link_out_of_the_repo_is_not_copied(place, tmp_path):
    (place.data / "perplexity_corpus.txt").unlink()
    (place.data / "perplexity_corpus.txt").symlink_to("/etc/hostname")
    copy_data(place.study(), place.data, tmp_path / "run", files=())

    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == TEXTS[:2]


def test_nothing_is_written_through_a_link_out_of_the_run(place, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run" / "perplexity_corpus.txt").symlink_to(tmp_path / "precious")

    with pytest.raises(FormatError, match="leaves the repo"):
        copy_data(place.study(), place.data, tmp_path / "run", files=())
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_run_is_not_named_after_what_lies_outside(place, tmp_path):
    corpus = place.data / "perplexity_corpus.txt"
    corpus.unlink()
    absent = default_run_folder(place.repositories(), "sweep")
    (tmp_path / "outside").write_text("secret")
    corpus.symlink_to(tmp_path / "outside")

    assert default_run_folder(place.repositories(), "sweep") == absent
