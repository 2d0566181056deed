from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TEXT, tiny_language_model, tiny_tokenizer
from tokenizers import Tokenizer, models
from transfer_models import UNKNOWN, metaspace_tokenizer
from transformers import PreTrainedTokenizerFast

from steer_eval.errors import SteerEvalError
from steer_eval.model import LanguageModel
from steer_eval.transfer import neutral
from steer_eval.transfer.words import Passage, passages, word_tokens


class OnlyTokenizer:
    """What `word_tokens` needs of a model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer


BYTES, SPACES = OnlyTokenizer(tiny_tokenizer(bos=True)), OnlyTokenizer(metaspace_tokenizer())
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=40) | st.lists(
    st.sampled_from([*TEXT.split(), "naïve", "\n", "  ", "日本", "🙂", "don't"]), max_size=12
).map(" ".join)


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_up_to_the_end_of_a_word_the_tokens_are_the_text_up_to_there(text):
    tokens = word_tokens(BYTES, text)

    for end, index in tokens.ends.items():
        read = BYTES.tokenizer.decode(tokens.ids[: index + 1], skip_special_tokens=True)
        assert read.rstrip() == text[:end].rstrip()
        assert not text[end : end + 1].strip()


@pytest.mark.parametrize("side", [BYTES, SPACES], ids=["bytes", "spaces"])
def test_every_word_of_a_plain_text_has_an_end(side):
    for sentence in neutral.sentences():
        tokens = word_tokens(side, sentence)

        assert len(tokens.ends) == len(sentence.split())
        for word, end in zip(sentence.split(), sorted(tokens.ends), strict=True):
            assert sentence[:end].endswith(word)
            index = tokens.ends[end]
            assert sentence[end - 1] in side.tokenizer.decode([tokens.ids[index]])


def test_a_word_that_a_token_joins_with_the_next_is_not_aligned():
    vocabulary = {UNKNOWN: 0, "a b": 1, "c": 2, " ": 3}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN)))
    tokenizer.add_tokens(["a b"])

    assert word_tokens(OnlyTokenizer(tokenizer), "a b c").ends == {3: 0, 5: 2}


def test_a_tokenizer_without_places_is_refused():
    class Slow:
        is_fast = False
        name_or_path = "lab/slow"

    with pytest.raises(SteerEvalError, match="lab/slow does not say which characters"):
        word_tokens(LanguageModel(None, Slow()), "a text")


def test_passages_are_runs_of_words_of_one_document():
    found = list(passages(["one two\nthree  four five", "", "six seven eight"], words=7, longest=3))

    assert found == [
        Passage("one two\nthree", 0),
        Passage("four five", 0),
        Passage("six seven", 2),
    ]


def test_the_neutral_sentences_are_sixty_different_ones():
    sentences = list(neutral.sentences())

    assert len(set(sentences)) == len(sentences) == 60
    assert all(sentence[0].isupper() and sentence.endswith(".") and "!" not in sentence for sentence in sentences)


def test_the_model_itself_serves():
    assert word_tokens(tiny_language_model(), "The river rose.").ends.keys() == {3, 9, 15}
