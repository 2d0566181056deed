"""Answers of a model that are kept, so that an interrupted evaluation goes on where it was.

Invariant: an answer is kept under everything that decides it (weights, machine class, edits, batch size, lm-eval's
version, the request), and is on disk before it counts. The journal is JSON, unlike lm-eval's own cache of pickles: one
that comes from somebody else can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM, CachingLM

from steer_eval.cells import Conditions
from steer_eval.digest import sha256_value
from steer_eval.run import JOURNAL, Journal, alone_in_run, opened_journal


class RememberingLM(CachingLM):  # type: ignore[misc]
    """A model of lm-eval that is asked only what a journal does not know.

    Args:
        lm: The model.
        journal: Where answers are kept.
        key: What all answers of this model have in common.
    """

    def __init__(self, lm: LM, journal: Journal, key: str) -> None:
        # Not lm-eval's own constructor, which opens a database of pickles.
        self.lm = lm
        self.cache_db = str(journal.path)
        self.dbdict = _Answers(journal, key)
        lm.set_cache_hook(self.get_cache_hook())

    @property
    def recalled(self) -> int:
        """How many answers were known."""
        return self.dbdict.recalled


class _Answers:
    """What lm-eval takes for its cache: answers by the checksum of their request."""

    def __init__(self, journal: Journal, key: str) -> None:
        self._journal = journal
        self._key = key
        self.recalled = 0

    def __contains__(self, request: str) -> bool:
        return self._full(request) in self._journal

    def __getitem__(self, request: str) -> Any:
        self.recalled += 1
        value = json.loads(self._journal[self._full(request)]["answer"])
        return tuple(value) if isinstance(value, list) else value

    def __setitem__(self, request: str, answer: Any) -> None:
        if request not in self:
            # As a text, because a likelihood can be infinite, which JSON has no number for.
            self._journal.add(self._full(request), {"kind": "lm-eval", "answer": json.dumps(answer)})

    def commit(self) -> None:
        """Nothing: each answer is on disk already."""

    def _full(self, request: str) -> str:
        return sha256_value(["lm-eval", self._key, request])


def condition_key(conditions: Conditions, edits: tuple[tuple[int, float, str], ...], batch_size: int) -> str:
    """What the answers of one condition have in common.

    Args:
        conditions: Weights and circumstances.
        edits: `(layer, coefficient, SHA-256 of the vector)` of each edit.
        batch_size: Rows of one batch, which decide the padding.
    """
    return sha256_value(
        {
            "weights": conditions.weights_sha256,
            "machine": conditions.circumstances,
            "edits": [list(edit) for edit in edits],
            "batch_size": batch_size,
            "lm_eval": metadata.version("lm_eval"),
        }
    )


@contextmanager
def opened_answers(folder: Path) -> Iterator[Journal]:
    """Work with the answers of a folder, alone.

    Args:
        folder: A run directory, or where results are written; it is created if need be.

    Raises:
        SteerEvalError: Another process works there, the folder holds something else, or it can't be written.
        FormatError: The journal is damaged.
    """
    with alone_in_run(folder), opened_journal(folder / JOURNAL) as journal:
        yield journal
