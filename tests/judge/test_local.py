"""A local judge's score is the expectation of its own probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judge.cases import RUBRIC, subjects
from tiny_models import tiny_language_model

from steer_eval.errors import SteerEvalError
from steer_eval.judge import local
from steer_eval.judge.cache import CallLog, opened_log
from steer_eval.judge.local import LocalJudge
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Ask, Judgement
from steer_eval.model import LanguageModel


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    model = tiny_language_model()
    # The prompt of a rubric is longer than what other tests show this model.
    model.module.config.max_position_embeddings = 8192
    return model


def judge_of(lm: LanguageModel, log: CallLog, **texts: str) -> LocalJudge:
    return LocalJudge(lm, model="tiny", revision="1", weights_sha256="0" * 64, texts=texts, name="tiny", log=log)


def judged(lm: LanguageModel, folder: Path, ask: Ask, **texts: str) -> Judgement:
    with opened_log(folder) as log:
        judge = judge_of(lm, log, **texts)
        [judgement] = judge.judge([ask], RUBRIC, "sample", lambda _: None)
    return judgement


def ask_of(axis: str = "coherence") -> Ask:
    [subject] = subjects(1, 1)
    return Ask(subject.cell, subject.samples, (axis,))


def test_labels_of_little_mass_are_no_answer(lm: LanguageModel, tmp_path: Path) -> None:
    judgement = judged(lm, tmp_path, ask_of())

    assert judgement.reason == "low-mass"
    assert judgement.extra["coherence"]["mass"] < local.MIN_MASS
    assert not judgement.scores


def test_the_score_is_the_expectation_over_the_labels(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model never answers with a label; the bound is what tells that from an answer.
    monkeypatch.setattr(local, "MIN_MASS", 0.0)
    judgement = judged(lm, tmp_path, ask_of())
    with opened_log(tmp_path) as log:
        [record] = [log.find(key) for key in judgement.calls]
    assert record is not None
    # The same by the model's own forward pass, with nothing of ours between prompt and logits.
    text = lm.tokenizer.apply_chat_template(
        [
            {"role": "system", "content": record["request"]["system"]},
            {"role": "user", "content": record["request"]["user"]},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = lm.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        probabilities = lm.module(input_ids=ids).logits[0, -1].softmax(-1)
    labels = [lm.tokenizer(str(n), add_special_tokens=False).input_ids[0] for n in range(1, 10)]
    picked = probabilities[labels] / probabilities[labels].sum()
    expected = sum(float(p) * level for p, level in zip(picked, RUBRIC.levels, strict=True))

    assert judgement.scores["coherence"] == pytest.approx(expected, abs=1e-4)
    assert judgement.extra["coherence"]["mass"] == pytest.approx(float(probabilities[labels].sum()), abs=1e-5)


def test_asked_again_it_reads_the_log(lm: LanguageModel, tmp_path: Path) -> None:
    passes: list[object] = []
    hook = lm.blocks[0].register_forward_hook(lambda *_: passes.append(None))
    try:
        first = judged(lm, tmp_path, ask_of())
        computed = len(passes)
        assert judged(lm, tmp_path, ask_of()) == first
    finally:
        hook.remove()

    assert len(passes) == computed > 0


def test_replies_under_another_template_are_other_replies(lm: LanguageModel, tmp_path: Path) -> None:
    own = judged(lm, tmp_path, ask_of())
    other = judged(lm, tmp_path, ask_of(), chat_template_sha256="1" * 64)

    assert not set(own.calls) & set(other.calls)


@pytest.mark.slow
def test_a_small_model_that_does_not_answer_with_a_label_is_no_judge(
    smollm2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = judged(smollm2, tmp_path, ask_of())
    monkeypatch.setattr(local, "MIN_MASS", 0.0)
    made_to_speak = judged(smollm2, tmp_path, ask_of())

    # Its most likely label is the lowest, and still most of what it would say is none.
    assert (silent.reason, silent.scores) == ("low-mass", {})
    assert 0.05 < silent.extra["coherence"]["mass"] < 0.5
    assert made_to_speak.calls == silent.calls
    assert RUBRIC.levels[0] < made_to_speak.scores["coherence"] < RUBRIC.levels[-1]


def test_a_scale_with_more_levels_than_labels_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    from dataclasses import replace

    fine: Rubric = replace(RUBRIC, step=0.25)
    with opened_log(tmp_path) as log, pytest.raises(SteerEvalError, match="17 levels"):
        judge_of(lm, log).judge([ask_of()], fine, "sample", lambda _: None)
