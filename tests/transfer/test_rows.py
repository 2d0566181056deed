from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import fingerprint, tiny_language_model
from transfer_models import ROTATION, metaspace_tokenizer, rotated_language_model

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.extract import extract_caa
from steer_eval.model import LanguageModel
from steer_eval.transfer import neutral
from steer_eval.transfer.heldout import held_out_r2
from steer_eval.transfer.maps import procrustes_from
from steer_eval.transfer.rows import Side, paired_rows, residuals
from steer_eval.transfer.words import Passage, passages, word_tokens

TEXTS = list(passages(neutral.sentences(), words=10**4))
PAIRS = [
    ContrastPair("The river rose.", "I am done waiting.", "I see. It rose."),
    ContrastPair("Nobody in the valley had slept.", "Third night. No more.", "That is how it was, I think."),
    ContrastPair("She took the lamp.", "She always does!", "She did."),
]


def test_batches_read_what_one_text_at_a_time_reads(tiny):
    """Also in a hybrid with recurrent layers, which padding would leak into."""
    ids = [tiny.text_ids(passage.text, special_tokens=True) for passage in TEXTS[:9]] + [[]]
    before = fingerprint(tiny)

    read = residuals(tiny, ids, [0, 2])

    for number, one in enumerate(ids[:-1]):
        with torch.no_grad():
            states = tiny.module(input_ids=torch.tensor([one]), output_hidden_states=True).hidden_states
        for layer in (0, 2):
            assert torch.allclose(read[layer][number], states[layer + 1][0], atol=1e-4)
    assert read[0][-1].shape == (0, tiny.hidden_size)
    assert fingerprint(tiny) == before


def test_word_rows_stand_at_the_same_words_whatever_the_tokenizers():
    source = tiny_language_model()
    target = LanguageModel(tiny_language_model("gemma3", seed=1, vocabulary=420).module, metaspace_tokenizer())
    some = TEXTS[:8]

    rows = paired_rows(Side(source, 2), Side(target, 1), some, "words")

    assert len(rows.texts) == sum(len(passage.text.split()) for passage in some)
    assert sorted(set(rows.texts.tolist())) == list(range(8))
    second = [some[1]]
    for lm, layer, side in ((source, 2, rows.source), (target, 1, rows.target)):
        tokens = word_tokens(lm, second[0].text)
        [read] = residuals(lm, [tokens.ids], [layer])[layer]
        expected = read[[tokens.ends[end] for end in sorted(tokens.ends)]]
        assert np.allclose(side[rows.texts == 1], expected.double().numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["texts", "chats"])
def test_a_text_is_one_row_its_mean(kind):
    lm = tiny_language_model()

    rows = paired_rows(Side(lm, 0), Side(lm, 3), TEXTS[:12], kind)

    text = TEXTS[4].text
    ids = lm.chat_ids(text) if kind == "chats" else lm.text_ids(text, special_tokens=True)
    [read] = residuals(lm, [ids], [3])[3]
    assert rows.texts.tolist() == list(range(12))
    assert np.allclose(rows.target[4], read.double().mean(dim=0).numpy(), atol=1e-4)


def test_sinks_of_either_side_are_dropped():
    lm = tiny_language_model(bos=True)
    word = lm.text_ids("The", special_tokens=False)[0]
    with torch.no_grad():
        # Token `The` becomes a sink: block after block passes its huge embedding on.
        lm.module.get_input_embeddings().weight[word] *= 1e4
    some = TEXTS[:20]
    starting = sum(passage.text.startswith("The ") for passage in some)

    rows = paired_rows(Side(lm, 0), Side(lm, 2), some, "words")

    assert starting
    assert np.linalg.norm(rows.source, axis=1).max() < 10 * np.median(np.linalg.norm(rows.source, axis=1))
    assert len(rows.texts) < sum(len(passage.text.split()) for passage in some)
    assert np.linalg.norm(paired_rows(Side(lm, 0), Side(lm, 2), some, "chats").source, axis=1).max() > 100


@pytest.mark.parametrize("architecture", ["llama", "qwen3_5"])
def test_a_planted_rotation_between_two_models_is_recovered(architecture):
    source, target = tiny_language_model(architecture), rotated_language_model(architecture)

    rows = paired_rows(Side(source, 2), Side(target, 2), TEXTS, "words")
    fitted = procrustes_from(rows.source)(rows.target)

    assert np.abs(fitted.matrix - ROTATION).max() < 1e-3
    assert fitted.settings["scale"] == pytest.approx(1.0, abs=1e-4)
    assert held_out_r2(rows, procrustes_from, seed=0) > 1 - 1e-6
    directions = [extract_caa(lm, PAIRS, [2])[2].double().numpy() for lm in (source, target)]
    assert np.allclose(fitted.direction(directions[0]), directions[1], atol=1e-3)


def test_too_little_text_is_refused():
    lm = tiny_language_model()

    with pytest.raises(SteerEvalError, match="24 rows of 2 documents"):
        paired_rows(Side(lm, 0), Side(lm, 1), [Passage("a b c d e f g h i j k l", 0), Passage("m " * 12, 1)], "words")


def test_texts_that_are_all_alike_are_refused():
    lm = tiny_language_model()

    with pytest.raises(SteerEvalError, match="the 12 rows that the source makes of the text are all alike"):
        paired_rows(Side(lm, 1), Side(lm, 2), [Passage("She said so.", number) for number in range(12)], "chats")


def test_little_memory_makes_smaller_batches_and_the_same_rows():
    lm = tiny_language_model("qwen3_5")
    ids = [lm.text_ids(passage.text, special_tokens=True) for passage in TEXTS[:12]]
    together: list[int] = []
    alone: list[int] = []

    whole = residuals(lm, ids, [1], on_texts=together.append)[1]
    one = residuals(lm, ids, [1], memory=1, on_texts=alone.append)[1]

    assert max(together) > 1
    assert alone == [1] * 12
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, one, strict=True))
