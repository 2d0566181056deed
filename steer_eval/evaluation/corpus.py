"""The perplexity corpus, cut into windows and sentences.

Invariant: windows are disjoint, every token of the corpus is in at most one, and the first token of each is unscored
because it has no context. Each scored token belongs to exactly one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import SteerEvalError
from steer_eval.model import LanguageModel
from steer_eval.study import PerplexityProtocol

_SENTENCE_START = re.compile(r"(?<=[.!?])\s+(?=\S)")


@dataclass(frozen=True, eq=False)
class Window:
    """One stretch of the corpus that is scored in one pass.

    Args:
        context: Tokens before it that are seen and not scored (a system turn), usually none.
        ids: Its tokens; all but the first are scored.
        sentences: For each scored token the index of its sentence, `[len(ids) - 1]`.
    """

    context: tuple[int, ...]
    ids: tuple[int, ...]
    sentences: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenisedCorpus:
    """A corpus in the tokens of one model."""

    windows: tuple[Window, ...]
    sentence_count: int

    def with_context(self, context: Sequence[int]) -> TokenisedCorpus:
        """The same corpus with tokens to be seen before each window."""
        return replace(self, windows=tuple(replace(window, context=tuple(context)) for window in self.windows))

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored."""
        return sum(len(window.ids) - 1 for window in self.windows)

    def by_sentence(self, nll: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sum per-token values over sentences.

        Args:
            nll: Negative log-likelihood in nats of every scored token, windows in order, `[scored_tokens]`.

        Returns:
            Sums `[sentences]` and token counts `[sentences]`; sentences without a scored token are left out.
        """
        sentences = np.concatenate([window.sentences for window in self.windows])
        sums = np.bincount(sentences, weights=nll, minlength=self.sentence_count).astype(np.float64)
        counts = np.bincount(sentences, minlength=self.sentence_count).astype(np.int64)
        return sums[counts > 0], counts[counts > 0]


def tokenise(text: str, lm: LanguageModel, protocol: PerplexityProtocol) -> TokenisedCorpus:
    """Cut a corpus into windows and sentences.

    Args:
        text: The corpus.
        lm: Its tokenizer decides the tokens; its default special tokens are kept.
        protocol: Window length, and whether text beyond the first window is scored.

    Raises:
        SteerEvalError: The text has fewer than two tokens.
    """
    encoded = lm.tokenizer(text, return_offsets_mapping=True)
    ids: list[int] = list(encoded.input_ids)
    starts = [0, *(match.end() for match in _SENTENCE_START.finditer(text))]
    # A token belongs to the sentence that its last character is in: leading spaces are part of tokens.
    ends = np.array([max(end - 1, 0) for _, end in encoded.offset_mapping], dtype=np.int64)
    sentences = np.searchsorted(np.array(starts), ends, side="right") - 1
    cuts = range(0, len(ids), protocol.window) if protocol.beyond == "windows" else range(1)
    windows = tuple(
        Window((), tuple(ids[cut : cut + protocol.window]), sentences[cut + 1 : cut + protocol.window])
        for cut in cuts
        if len(ids) - cut >= 2
    )
    if not windows:
        raise SteerEvalError(
            f"the perplexity corpus has {len(ids)} tokens", "it needs at least two, and better 600 words"
        )
    return TokenisedCorpus(windows, len(starts))
