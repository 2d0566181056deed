"""Where the words of a text end in the tokens of a tokenizer.

Invariant: a word is a run of characters without white space, the same for every tokenizer; the token at which it ends
has its last character and nothing of the next word, so that both models have read the same text there. A word without
such a token is not aligned at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from steer_eval.errors import SteerEvalError
from steer_eval.model import LanguageModel

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Passage:
    """A stretch of a document.

    Args:
        text: The words, as they stand.
        document: Index of the document.
    """

    text: str
    document: int


@dataclass(frozen=True)
class Tokens:
    """A passage in the tokens of one tokenizer.

    Args:
        ids: Token ids, the tokenizer's default special tokens among them.
        ends: Index of the token at which a word ends, by the place in the text where the word ends.
    """

    ids: tuple[int, ...]
    ends: dict[int, int]


def passages(documents: Iterable[str], *, words: int, longest: int = 64) -> Iterator[Passage]:
    """Cut documents into passages, from the first words on.

    Args:
        documents: The documents.
        words: Stop once there are so many words.
        longest: Most words of a passage.
    """
    left = words
    for number, document in enumerate(documents):
        found = list(_WORD.finditer(document))[:left]
        left -= len(found)
        for first in range(0, len(found), longest):
            part = found[first : first + longest]
            yield Passage(document[part[0].start() : part[-1].end()], number)
        if left <= 0:
            return


def word_tokens(lm: LanguageModel, text: str) -> Tokens:
    """A text in tokens, and where its words end in them.

    Args:
        lm: The model, for its tokenizer.
        text: The text.

    Raises:
        SteerEvalError: The tokenizer does not say which characters its tokens have.
    """
    if not lm.tokenizer.is_fast:
        raise SteerEvalError(
            f"the tokenizer of {lm.tokenizer.name_or_path} does not say which characters its tokens have",
            "use a model with a tokenizer.json, or rows of whole texts: protocol: sentences",
        )
    encoded = lm.tokenizer(text, return_offsets_mapping=True)
    at: dict[int, int] = {}
    for index, (start, end) in enumerate(encoded["offset_mapping"]):
        # White space that a token takes along is no part of a word. Of several tokens of one character the last counts.
        letters = len(text[start:end].rstrip())
        if letters:
            at[start + letters] = index
    ends = (word.end() for word in _WORD.finditer(text))
    return Tokens(tuple(encoded["input_ids"]), {end: at[end] for end in ends if end in at})
