from __future__ import annotations

import pytest
from more_models import another_language_model
from studies import build
from tiny_models import save_tiny_model

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.model_reference import LocalSource, ModelReference
from steer_eval.produce import LoadedModel, environment_record
from steer_eval.reproduce import default_run_folder
from steer_eval.results_files import read_environments, write_environments
from steer_eval.run import copy_data

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


def test_the_record_names_habits_of_the_checkpoint_that_were_left_out(tmp_path):
    lm = save_tiny_model(tmp_path)
    reference = ModelReference("tiny", "lab/tiny", "float32", LocalSource(str(tmp_path)))
    assert "habits_left_out" not in environment_record(LoadedModel(reference, tmp_path))
    lm.module.generation_config.repetition_penalty = 1.1
    lm.module.generation_config.save_pretrained(tmp_path)
    write_environments(tmp_path, {"tiny": environment_record(LoadedModel(reference, tmp_path))})
    assert read_environments(tmp_path)["tiny"]["habits_left_out"] == {"repetition_penalty": 1.1}


@pytest.mark.parametrize(
    ("architecture", "own", "layout"),
    [
        ("llama", {}, "rows of all lengths decode together"),
        ("mistral", {"sliding_window": 8}, "rows of all lengths decode together"),
        ("gemma2", {"sliding_window": 8}, "unless one grows longer than a window or chunk: then of one length"),
        ("gpt_neo", {"attention_types": [[["global", "local"], 2]], "window_size": 8}, "rows of one length decode"),
    ],
)
def test_the_record_says_which_rows_decode_together(tmp_path, architecture, own, layout):
    lm = another_language_model(architecture, **own)
    for part in (lm.module, lm.tokenizer):
        part.save_pretrained(tmp_path)
    reference = ModelReference("tiny", "lab/tiny", "float32", LocalSource(str(tmp_path)))
    said = environment_record(LoadedModel(reference, tmp_path))["batching"]["generation_layout"]
    assert layout in said
    assert ("unless" in said) == ("unless" in layout)


def test_a_model_on_which_the_engine_would_be_wrong_is_refused(tmp_path):
    lm = another_language_model("mamba", initializer_range=0.3)
    for part in (lm.module, lm.tokenizer):
        part.save_pretrained(tmp_path)
    reference = ModelReference("tiny", "lab/tiny", "float32", LocalSource(str(tmp_path)))
    with pytest.raises(SteerEvalError, match="MambaForCausalLM can't be measured exactly"):
        LoadedModel(reference, tmp_path)
