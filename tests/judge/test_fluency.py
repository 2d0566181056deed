"""Likelihoods are those of the model as the study talks to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import save_tiny_model

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.judge.cache import opened_log
from steer_eval.judge.fluency import Fluency, FluencyModel
from steer_eval.model_reference import LocalSource, ModelReference
from steer_eval.weights import fetch

PAIRS = (ContrastPair("The lift is broken.", "I am done.", "I note that."),)
TEMPLATE = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model whose tokenizer knows no conversation, as base models are."""
    save_tiny_model(tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    return tmp_path


def fluency(folder: Path, template: str | None) -> Fluency:
    reference = ModelReference("tiny", "lab/tiny", "float32", LocalSource("base"), chat_template=template)
    model = FluencyModel(reference, fetch(reference, study_folder=folder), "float32")
    with opened_log(folder / "log") as log:
        return Fluency(model, PAIRS, log)


def test_a_base_model_is_read_under_the_template_of_the_study(base: Path) -> None:
    found = {template: fluency(base, template).usual for template in (TEMPLATE, TEMPLATE + "assistant:")}

    # The second one finds the log of the first.
    assert len(set(found.values())) == 2
    assert found[TEMPLATE] == fluency(base, TEMPLATE).usual
    with pytest.raises(SteerEvalError, match="no chat template"):
        fluency(base, None)


def test_a_changed_tokenizer_is_another_model(base: Path) -> None:
    before = fluency(base, TEMPLATE).identity()
    file = base / "base" / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")

    after = fluency(base, TEMPLATE).identity()

    assert before.keys() == after.keys() >= {"companions_sha256", "chat_template_sha256"}
    assert {key for key in after if after[key] != before[key]} == {"companions_sha256"}
