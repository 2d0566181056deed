import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TEXT, tiny_language_model

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.corpus import tokenise
from steer_eval.study import PerplexityProtocol

PLAIN = tiny_language_model()
WITH_BOS = tiny_language_model(bos=True)
sentences = st.lists(
    st.text(st.sampled_from("abcdef XYZ,;äß漢"), min_size=1, max_size=20).map(lambda text: text + "."),
    min_size=1,
    max_size=6,
).map(" ".join)


def protocol(window=512, beyond="windows"):
    return PerplexityProtocol("corpus.txt", window=window, beyond=beyond)


def scored_text(lm, corpus, sentence):
    """The text of the scored tokens of one sentence."""
    ids = [
        token
        for window in corpus.windows
        for token, index in zip(window.ids[1:], window.sentences, strict=True)
        if index == sentence
    ]
    return lm.tokenizer.decode(ids)


class TestSentences:
    def test_a_known_text(self):
        corpus = tokenise("The river rose. Was it the rain? No!\nThe dogs were quiet", PLAIN, protocol())
        assert corpus.sentence_count == 4
        # The first token, "The", has no context.
        assert [scored_text(PLAIN, corpus, index).strip() for index in range(4)] == [
            "river rose.",
            "Was it the rain?",
            "No!",
            "The dogs were quiet",
        ]

    def test_a_space_belongs_to_the_sentence_of_the_word_it_is_one_token_with(self):
        corpus = tokenise("He ran. the dog", PLAIN, protocol())
        assert PLAIN.tokenizer.convert_tokens_to_ids("Ġthe") in corpus.windows[0].ids
        # "the" starts a sentence here, because what stands before it ends one.
        assert scored_text(PLAIN, corpus, 1) == " the dog"

    def test_abbreviating_dots_inside_words_end_no_sentence(self):
        assert tokenise("It took 3.5 hours. Then it was over.", PLAIN, protocol()).sentence_count == 2

    def test_white_space_at_the_end_starts_no_sentence(self):
        assert tokenise("One. Two.  \n\n", PLAIN, protocol()).sentence_count == 2

    def test_a_special_token_in_front_belongs_to_the_first_sentence(self):
        plain = tokenise(TEXT, PLAIN, protocol())
        with_bos = tokenise(TEXT, WITH_BOS, protocol())
        assert with_bos.windows[0].ids == (WITH_BOS.tokenizer.bos_token_id, *plain.windows[0].ids)
        # Now the text's first token has a context, too.
        assert list(with_bos.windows[0].sentences) == [0, *plain.windows[0].sentences]
        assert with_bos.scored_tokens == plain.scored_tokens + 1

    @settings(max_examples=40, deadline=None)
    @given(sentences, st.integers(2, 40))
    def test_they_are_in_order_and_none_is_invented(self, text, window):
        corpus = tokenise(text, PLAIN, protocol(window))
        owners = np.concatenate([window.sentences for window in corpus.windows])
        assert len(owners) == corpus.scored_tokens
        assert (np.diff(owners) >= 0).all()
        assert owners.min() >= 0
        assert owners.max() < corpus.sentence_count


class TestWindows:
    @settings(max_examples=40, deadline=None)
    @given(sentences, st.integers(2, 40))
    def test_they_are_disjoint_and_cover_the_text(self, text, size):
        ids = PLAIN.text_ids(text, special_tokens=True)
        corpus = tokenise(text, PLAIN, protocol(size))
        joined = [token for window in corpus.windows for token in window.ids]
        # A last window of one token would have nothing to score.
        left_out = len(ids) - len(joined)
        assert joined == ids[: len(joined)]
        assert left_out == (1 if len(ids) % size == 1 else 0)
        assert all(len(window.ids) == size for window in corpus.windows[:-1])
        assert corpus.scored_tokens == len(joined) - len(corpus.windows)

    @pytest.mark.parametrize("beyond", ["windows", "truncate"])
    def test_a_text_of_one_window_is_one_window(self, beyond):
        corpus = tokenise(TEXT, PLAIN, protocol(512, beyond))
        assert [window.ids for window in corpus.windows] == [tuple(PLAIN.text_ids(TEXT, special_tokens=True))]

    def test_truncation_keeps_the_first_one(self):
        whole = tokenise(TEXT, PLAIN, protocol(16))
        truncated = tokenise(TEXT, PLAIN, protocol(16, "truncate"))
        assert len(whole.windows) > 5
        assert [window.ids for window in truncated.windows] == [whole.windows[0].ids]
        assert list(truncated.windows[0].sentences) == list(whole.windows[0].sentences)

    def test_the_first_token_of_each_is_unscored(self):
        for window in tokenise(TEXT, PLAIN, protocol(16)).windows:
            assert len(window.sentences) == len(window.ids) - 1

    def test_context_comes_before_each_and_scores_nothing(self):
        corpus = tokenise(TEXT, PLAIN, protocol(16))
        with_context = corpus.with_context([7, 8, 9])
        assert with_context.scored_tokens == corpus.scored_tokens
        assert [window.context for window in with_context.windows] == [(7, 8, 9)] * len(corpus.windows)
        assert [window.ids for window in with_context.windows] == [window.ids for window in corpus.windows]
        assert all(window.context == () for window in corpus.windows)

    @pytest.mark.parametrize("text", ["", "."])
    def test_a_text_too_short_to_score_is_refused(self, text):
        with pytest.raises(SteerEvalError, match=f"has {len(text)} tokens"):
            tokenise(text, PLAIN, protocol())


class TestBySentence:
    def test_a_known_sum(self):
        corpus = tokenise("The river rose. No! No!", PLAIN, protocol())
        nll = np.arange(1.0, corpus.scored_tokens + 1)
        sums, counts = corpus.by_sentence(nll)
        owners = corpus.windows[0].sentences
        assert list(counts) == [int((owners == index).sum()) for index in range(3)]
        assert list(sums) == [float(nll[owners == index].sum()) for index in range(3)]

    def test_a_sentence_without_a_scored_token_is_left_out(self):
        corpus = tokenise("a. b c d.", PLAIN, protocol(2, "truncate"))
        assert corpus.sentence_count == 2
        sums, counts = corpus.by_sentence(np.array([2.5]))
        assert list(sums) == [2.5]
        assert list(counts) == [1]

    @settings(max_examples=40, deadline=None)
    @given(sentences, st.integers(2, 40), st.integers(0, 99))
    def test_nothing_is_lost(self, text, window, seed):
        corpus = tokenise(text, PLAIN, protocol(window))
        nll = np.random.default_rng(seed).gamma(2, size=corpus.scored_tokens)
        sums, counts = corpus.by_sentence(nll)
        assert sums.sum() == pytest.approx(nll.sum(), rel=1e-12)
        assert counts.sum() == corpus.scored_tokens
        assert (counts > 0).all()
