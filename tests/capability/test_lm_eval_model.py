"""Our model type of lm-eval against lm-eval's own ones, which share nothing with it but the model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from edits_by_hand import adding
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.models.huggingface import HFLM
from tiny_models import BLOCKS, FREQUENT_EOS, add, fingerprint, random_vector, tiny_language_model

from steer_eval.capability.lm_eval_model import MODEL_TYPE, SteeredLM, register
from steer_eval.capability.token_perplexity import sentence_documents
from steer_eval.capability.tokens import Tokens
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.perplexity import perplexity
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.study import PerplexityProtocol

TEXTS = [("The river rose", " in the night."), ("The river rose", " slowly"), ("Nobody", " had slept, and the dogs")]
SENTENCES = "The water had reached the second step. They counted the sheep twice! Nobody spoke; one was gone."
CORPUS = " ".join([SENTENCES] * 6)


def asked(kind: str, *arguments) -> list[Instance]:
    return [Instance(kind, {}, each, 0) for each in arguments]


def theirs(lm, kind=HFLM, **others):
    tokenizer = copy.deepcopy(lm.tokenizer)
    # lm-eval can't generate without one.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(min(lm.eos_ids, default=tokenizer.pad_token_id))
    return kind(pretrained=lm.module, tokenizer=tokenizer, batch_size=2, **others)


@pytest.mark.parametrize("cell", [(), (add(1, 0.0),)], ids=["unsteered", "zero"])
def test_without_steering_it_is_lm_evals_own_model(tiny, cell) -> None:
    ours = SteeredLM(lm=tiny, intervention=cell, batch_size=2)
    plain = theirs(tiny)
    prompts = [(text, {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}) for text, _ in TEXTS]

    assert ours.loglikelihood(asked("loglikelihood", *TEXTS)) == plain.loglikelihood(asked("loglikelihood", *TEXTS))
    rolling = asked("loglikelihood_rolling", (CORPUS[:200],))
    assert ours.loglikelihood_rolling(rolling) == plain.loglikelihood_rolling(rolling)
    generate = asked("generate_until", *prompts)
    assert ours.generate_until(generate) == plain.generate_until(generate)


@pytest.mark.parametrize("coefs", [{1: 1.5}, {0: -1.0, 2: 0.5}], ids=str)
def test_steered_it_is_lm_evals_steered_model(tmp_path, coefs) -> None:
    lm = tiny_language_model("llama", eos_ids=FREQUENT_EOS)
    before = fingerprint(lm)
    vectors = {layer: random_vector(layer) for layer in coefs}
    torch.save(
        {
            f"layers.{layer}": {"steering_vector": vectors[layer], "steering_coefficient": c, "action": "add"}
            for layer, c in coefs.items()
        },
        tmp_path / "steered.pt",
    )
    other = theirs(lm, SteeredModel, steer_path=str(tmp_path / "steered.pt"))
    from steer_eval.steering.interventions import Add

    base = SteeredLM(lm=lm, batch_size=2)
    ours = base.steered(tuple(Add(layer, vectors[layer], c) for layer, c in coefs.items()))
    requests = asked("loglikelihood", *TEXTS)
    generate = asked("generate_until", *((text, {"until": [], "max_gen_toks": 6}) for text, _ in TEXTS))

    found = ours.loglikelihood(requests)
    assert found == other.loglikelihood(requests)
    assert ours.generate_until(generate) == other.generate_until(generate)
    # One load, two views: the steered one changes nothing of the other.
    assert ours.model is base.model
    assert base.loglikelihood(requests) == theirs(lm).loglikelihood(requests) != found
    assert fingerprint(lm) == before


def test_texts_are_those_of_the_serial_path(tiny) -> None:
    cell = (add(2, 1.0),)
    prompt = "She put on her coat"
    [text] = SteeredLM(lm=tiny, intervention=cell).generate_until(
        asked("generate_until", (prompt, {"until": [], "max_gen_toks": 8, "do_sample": False}))
    )
    ids = tuple(tiny.text_ids(prompt, special_tokens=True))
    assert text == tiny.decode(generate_serial(tiny, Request(ids, cell), max_new_tokens=8).ids)


@pytest.mark.parametrize(("beyond", "bos"), [("windows", False), ("windows", True), ("truncate", False)])
@pytest.mark.parametrize("cell", [(), (add(1, 1.0), add(2, -0.5))], ids=["unsteered", "steered"])
def test_sentences_sum_to_the_perplexity_of_a_sweep(beyond, bos, cell, monkeypatch) -> None:
    monkeypatch.setattr("steer_eval.capability.lm_eval_model._LOGIT_ROWS", 20)
    lm = tiny_language_model("llama", bos=bos)
    protocol = PerplexityProtocol("", window=64, beyond=beyond)
    corpus = tokenise(CORPUS, lm, protocol)
    documents = sentence_documents(CORPUS, lm, protocol, reads_ids=True)
    model = SteeredLM(lm=lm, intervention=cell)
    passes: list[int] = []
    scored: list[int] = []
    lm.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    lm.module.lm_head.register_forward_hook(lambda _module, _inputs, logits: scored.append(logits.shape[1]))
    pairs = [
        (Tokens(doc["context"], doc["context_ids"]), Tokens(doc["continuation"], doc["continuation_ids"]))
        for doc in documents
    ]
    answers = model.loglikelihood(asked("loglikelihood", *pairs))
    windows, most = len(passes), max(scored)

    nll = perplexity_serial(lm, corpus, cell)
    sums, counts = corpus.by_sentence(nll)
    assert perplexity(-np.array([score for score, _ in answers]), counts) == pytest.approx(
        perplexity(sums, counts), rel=1e-6
    )
    # All sentences of a window are scored in one pass, and its logits never stand there at once.
    assert windows == len(corpus.windows)
    assert most == 20
    assert len(documents) > len(corpus.windows)


def test_a_model_that_reads_texts_gets_the_same_number_or_a_refusal() -> None:
    lm = tiny_language_model("llama")
    protocol = PerplexityProtocol("", window=400, beyond="truncate")
    documents = sentence_documents(SENTENCES, lm, protocol, reads_ids=False)
    answers = theirs(lm).loglikelihood(asked("loglikelihood", *((d["context"], d["continuation"]) for d in documents)))
    nll = perplexity_serial(lm, tokenise(SENTENCES, lm, protocol), ())
    assert -sum(score for score, _ in answers) == pytest.approx(nll.sum(), rel=1e-5)

    # Its second window begins with a special token that this text does not have.
    with pytest.raises(SteerEvalError, match="other tokens"):
        sentence_documents(
            CORPUS, tiny_language_model("llama", bos=True), PerplexityProtocol("", window=64), reads_ids=False
        )


def test_it_is_registered_and_asks_for_a_target() -> None:
    register()
    register()
    assert get_model(MODEL_TYPE) is SteeredLM
    with pytest.raises(SteerEvalError, match="needs a target"):
        get_model(MODEL_TYPE).create_from_arg_obj({}, {"batch_size": 1})


@pytest.mark.parametrize("cell", [(add(BLOCKS, 1.0),), (add(1, 1e39),)], ids=["no such layer", "too large"])
def test_an_intervention_that_does_not_fit_is_refused(cell) -> None:
    with pytest.raises(SteerEvalError, match=r"no layer|too large"):
        SteeredLM(lm=tiny_language_model("llama"), intervention=cell)


@pytest.mark.parametrize("positions", ["prompt", "generated"])
def test_an_edit_of_some_positions_is_refused(positions) -> None:
    """Which tokens are of the prompt is not known here, so that the edit would be lost or everywhere."""
    with pytest.raises(SteerEvalError, match=f"layer 1 is for {positions} positions only"):
        SteeredLM(lm=tiny_language_model("llama"), intervention=(adding(1, 1.0, positions),))


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ 'a' * 2000000 }}"])
def test_a_template_that_fails_is_an_error_with_a_fix(template):
    lm = tiny_language_model()
    lm.tokenizer.chat_template = template

    with pytest.raises(SteerEvalError, match="chat template") as caught:
        SteeredLM(lm=lm).apply_chat_template([{"role": "user", "content": "Why?"}])

    assert "study.yaml" in caught.value.fix
