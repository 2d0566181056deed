"""lm-eval's task `steer_eval_token_perplexity`: perplexity per token, as a study defines it.

Invariant: documents are the sentences of the corpus. A document's continuation is its scored tokens and its context all
tokens of the window before them, so that the sums are those of `evaluation/` and so is the perplexity. lm-eval's own
perplexity counts words or bytes and scores the first token too; a study's guard on the ratio does not hold for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import weighted_perplexity
from lm_eval.api.task import ConfigurableTask

from steer_eval.capability.tokens import Tokens
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.corpus import Window, tokenise
from steer_eval.formats.text import read_text
from steer_eval.model import LanguageModel
from steer_eval.study import PerplexityProtocol

TASK = "steer_eval_token_perplexity"
METRIC = "token_perplexity"
_MAX_BYTES = 64 * 2**20
_FIX = (
    'give --metadata \'{"corpus": "FILE.txt", "tokenizer": "FOLDER OR REPO"}\', or run `steer-eval capability` on a '
    "study with a corpus"
)


class TokenPerplexity(ConfigurableTask):  # type: ignore[misc]
    """Perplexity per token of a corpus that stands in a file.

    Its `metadata` says what is scored: `corpus` (a text file), `tokenizer` or `pretrained` (a folder or repo), `window`
    (512), `beyond` (`windows` or `truncate`), and `token_ids` if the model reads ids, as the type `steer-eval` does.

    Args:
        config: lm-eval's configuration of the task.

    Raises:
        SteerEvalError: The metadata names no corpus or tokenizer, or a model that reads texts would see other tokens.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(
            config={key: value for key, value in config.items() if key != "class"}
            | {
                "custom_dataset": _dataset,
                "test_split": "test",
                "output_type": "loglikelihood",
                "doc_to_text": "{{context}}",
                "doc_to_target": "{{continuation}}",
                "target_delimiter": "",
                "num_fewshot": 0,
                "process_results": _process_results,
                "metric_list": [{"metric": METRIC, "aggregation": weighted_perplexity, "higher_is_better": False}],
            }
        )

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:  # noqa: ARG002
        """The request for one sentence, with its tokens."""
        pair = (Tokens(doc["context"], doc["context_ids"]), Tokens(doc["continuation"], doc["continuation_ids"]))
        return Instance(
            request_type="loglikelihood", doc=doc, arguments=pair, idx=0, metadata=kwargs.get("metadata", (None,) * 3)
        )


def _process_results(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, tuple[float, int]]:
    return {METRIC: (results[0][0], len(doc["continuation_ids"]))}


def _dataset(**metadata: Any) -> dict[str, datasets.Dataset]:
    """The documents that a task's metadata asks for."""
    from transformers import AutoTokenizer

    corpus, tokenizer = metadata.get("corpus"), metadata.get("tokenizer", metadata.get("pretrained"))
    if not corpus or not tokenizer:
        raise SteerEvalError(f"the task {TASK} needs a corpus and a tokenizer", _FIX)
    text = read_text(Path(corpus), str(corpus), limit=_MAX_BYTES)
    # As a study's corpus is read: a line end at the end of the file is no part of the text.
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    protocol = PerplexityProtocol(
        str(corpus), int(metadata.get("window", 512)), beyond=metadata.get("beyond", "windows")
    )
    lm = LanguageModel(None, AutoTokenizer.from_pretrained(str(tokenizer)))
    documents = sentence_documents(text, lm, protocol, reads_ids=bool(metadata.get("token_ids")))
    return {"test": datasets.Dataset.from_list(documents)}


def sentence_documents(
    text: str, lm: LanguageModel, protocol: PerplexityProtocol, *, reads_ids: bool
) -> list[dict[str, Any]]:
    """The sentences of a corpus, each with what stands before it in its window.

    Args:
        text: The corpus.
        lm: Its tokenizer decides the tokens.
        protocol: How the corpus is cut.
        reads_ids: Whether the model will read token ids. For one that reads texts, a sentence is joined to the one
            before it where the texts alone would give other tokens.

    Raises:
        SteerEvalError: The corpus has fewer than two tokens; or texts alone can't give a window's tokens.
    """
    documents = []
    for number, window in enumerate(tokenise(text, lm, protocol).windows):
        made = list(_documents(window, lm, reads_ids=reads_ids))
        if sum(len(document["continuation_ids"]) for document in made) < len(window.ids) - 1:
            raise SteerEvalError(
                f"window {number} of the corpus has other tokens when its text is tokenised by itself",
                'use the model type steer-eval with "token_ids": true in the metadata, or "beyond": "truncate"',
            )
        documents += made
    return documents


def _documents(window: Window, lm: LanguageModel, *, reads_ids: bool) -> Iterator[dict[str, Any]]:
    ends = [*(np.flatnonzero(np.diff(window.sentences)) + 2), len(window.ids)]
    start = 1
    for end in ends:
        pair = window.ids[:start], window.ids[start:end]
        context, continuation = (_text(lm, ids) for ids in pair)
        # What is cut here must be readable as the next sentence's context too.
        last = end == len(window.ids)
        if reads_ids or (_is_read_back(lm, context, continuation, pair) and (last or _ends_well(lm, window.ids[:end]))):
            yield {
                "context": context,
                "continuation": continuation,
                "context_ids": list(pair[0]),
                "continuation_ids": list(pair[1]),
            }
            start = end


def _text(lm: LanguageModel, ids: Sequence[int]) -> str:
    return str(lm.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _is_read_back(
    lm: LanguageModel, context: str, continuation: str, pair: tuple[tuple[int, ...], tuple[int, ...]]
) -> bool:
    """Whether lm-eval, which tokenises the context and the whole, gets these tokens from their texts."""
    stripped = context.rstrip()
    texts = [(stripped, pair[0]), (context + continuation, pair[0] + pair[1])]
    # A special token that the tokenizer adds by itself stands in the decoded text already.
    return bool(stripped) and all(
        tuple(lm.text_ids(text, special_tokens=not _starts_special(lm, ids))) == ids for text, ids in texts
    )


def _ends_well(lm: LanguageModel, ids: Sequence[int]) -> bool:
    """Whether a context does not end in the spaces that lm-eval gives to the continuation."""
    text = _text(lm, ids)
    return text == text.rstrip()


def _starts_special(lm: LanguageModel, ids: Sequence[int]) -> bool:
    return ids[0] in lm.tokenizer.all_special_ids
