"""The log of calls: every request and every reply, found again by the content of the request.

Invariant: a call whose reply is in the log is never made again; a reply is on disk before it is used, so that a kill
loses only calls in flight. The log holds no key and nothing else that is secret, so that it can be published for others
to replay.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steer_eval.digest import sha256_value
from steer_eval.errors import SteerEvalError
from steer_eval.run import Journal, alone_in, opened_journal

FILE = "judging_calls.jsonl"
LOCK = ".judging.lock"
PROTOCOL = "steer-eval/judge-call/1"


def call_key(request: dict[str, Any], *, repeat: str, attempt: int) -> str:
    """Content key of a call.

    Args:
        request: Everything that decides the reply: endpoint, model, messages and parameters.
        repeat: Which of several equal questions this is.
        attempt: Which try, from 0; a try that gave nothing usable is followed by another.
    """
    return sha256_value({"protocol": PROTOCOL, "request": request, "repeat": repeat, "attempt": attempt})


class CallLog:
    """Calls that were made, in a folder.

    Args:
        journal: The file.
        replayed: Calls of somebody else's run that stand in for new ones; with these, no call is ever made.
    """

    def __init__(self, journal: Journal, replayed: Journal | None = None) -> None:
        self._journal = journal
        self._replayed = replayed
        self.hits = 0

    @property
    def is_replay(self) -> bool:
        """Whether only replayed calls count."""
        return self._replayed is not None

    @property
    def added(self) -> int:
        """Calls that were made."""
        return self._journal.added

    def find(self, key: str) -> dict[str, Any] | None:
        """The record of a call, if it was made before."""
        record = self.peek(key)
        self.hits += record is not None
        return record

    def peek(self, key: str) -> dict[str, Any] | None:
        """The record of a call, without counting it as used."""
        journals = (self._journal, self._replayed)
        return next((journal[key] for journal in journals if journal is not None and key in journal), None)

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep a call; it is on disk when this returns."""
        self._journal.add(key, record)

    def endpoints(self) -> list[dict[str, Any]]:
        """What was found out about endpoints."""
        journals = [journal for journal in (self._replayed, self._journal) if journal is not None]
        return [record for journal in journals for record in journal.records() if record.get("kind") == "endpoint"]


@contextmanager
def opened_log(folder: Path, replay: Path | None = None) -> Iterator[CallLog]:
    """Work with the log of a folder, alone.

    Args:
        folder: Where judgements are written.
        replay: A folder whose calls are replayed.

    Raises:
        SteerEvalError: Another process judges there, the folder can't be written, or there is nothing to replay.
        FormatError: A log is damaged.
    """
    if replay is not None and not (replay / FILE).is_file():
        raise SteerEvalError(f"{replay} has no {FILE}", "give the folder that a judging run wrote")
    with (
        alone_in(folder, LOCK, option="--out"),
        opened_journal(folder / FILE) as journal,
        _replayed(replay, folder, journal) as replayed,
    ):
        yield CallLog(journal, replayed)


@contextmanager
def _replayed(replay: Path | None, folder: Path, journal: Journal) -> Iterator[Journal | None]:
    """The log to replay; a foreign one from a copy, because opening a journal mends its end."""
    if replay is None:
        yield None
    elif replay.resolve() == folder.resolve():
        yield journal
    else:
        with tempfile.TemporaryDirectory(prefix="steer-eval-replay-") as copy:
            shutil.copyfile(replay / FILE, Path(copy) / FILE)
            yield Journal(Path(copy) / FILE)
