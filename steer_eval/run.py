"""The crash-safe run directory.

Invariant: a run directory is a dataset repo on disk. Every finished measurement is in its journal, synced to disk,
before it counts as done; a kill at any moment loses only what was in flight, and what the journal holds is never
measured again. One process at a time works in a run directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.atomic import write_text
from steer_eval.formats.containment import inside, is_inside
from steer_eval.formats.strict_json import dumps
from steer_eval.formats.strict_json import parse as parse_json
from steer_eval.study import Study

JOURNAL = "journal.jsonl"
LOCK = ".lock"


class Journal:
    """An append-only file of finished measurements, by content key.

    Args:
        path: The file; it is created when the first measurement is added.

    Attributes:
        added: How many measurements were new to the journal since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.added = 0
        self._records: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._records[key]

    def records(self) -> list[dict[str, Any]]:
        """All measurements, in the order in which their keys were first added."""
        return list(self._records.values())

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Record a finished measurement; it is on disk when this returns."""
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="\n")
        self._file.write(dumps({"key": key, **record}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.added += key not in self._records
        self._records[key] = record

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        # A kill can tear the last line, and only the last: cut it off, so that the next line starts on its own.
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        try:
            text = content[:whole].decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(
                str(self.path), f"byte {error.start}", "the journal is not UTF-8", fix="use another --run directory"
            ) from None
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            record = parse_json(line, str(self.path), f"line {number}")
            try:
                self._records[record.pop("key")] = record
            except (KeyError, AttributeError, TypeError):
                raise FormatError(
                    str(self.path), f"line {number}", "the line is no journal record", fix="use another --run directory"
                ) from None


@contextmanager
def opened_run(folder: Path, study_text: str) -> Iterator[Journal]:
    """Work in a run directory, alone.

    Args:
        folder: The run directory; it is created if need be.
        study_text: What `study.yaml` says; the run keeps a copy.

    Yields:
        The run's journal.

    Raises:
        SteerEvalError: Another process works there, the folder holds something else, or it can't be written.
    """
    with alone_in_run(folder):
        write_text(folder / "study.yaml", study_text)
        with opened_journal(folder / JOURNAL) as journal:
            yield journal


@contextmanager
def alone_in_run(folder: Path) -> Iterator[None]:
    """Let no other process work in a run directory meanwhile.

    Args:
        folder: The run directory; it is created if need be.

    Raises:
        SteerEvalError: Another process works there, the folder holds something else, or it can't be written.
    """
    try:
        foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK).exists()
    except OSError as error:
        raise SteerEvalError(f"{folder} can't be read: {error}", "give another folder with --run") from None
    if foreign:
        raise SteerEvalError(f"{folder} is not empty and no run directory", "give a new or an empty folder with --run")
    with alone_in(folder, LOCK, option="--run"):
        yield


@contextmanager
def alone_in(folder: Path, lock_file: str, *, option: str) -> Iterator[None]:
    """Let no other process work in a folder meanwhile.

    Args:
        folder: The folder; it is created if need be.
        lock_file: Name of the lock in it.
        option: Option that names another folder, for messages.

    Raises:
        SteerEvalError: Another process works there, or it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / lock_file, timeout=0)
        lock.acquire()
    except Timeout:
        raise SteerEvalError(
            f"another process works in {folder}", f"wait for it, or give another folder with {option}"
        ) from None
    except OSError as error:
        raise SteerEvalError(f"{folder} can't be written: {error}", f"give another folder with {option}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def opened_journal(path: Path) -> Iterator[Journal]:
    """A journal that is closed at the end.

    Raises:
        FormatError: It is damaged.
    """
    journal = Journal(path)
    try:
        yield journal
    finally:
        journal.close()


def copy_data(study: Study, source: Path, target: Path, *, files: Iterable[str]) -> None:
    """Copy files of a dataset repo, so that a run directory is a whole one.

    A file that is absent or lies outside the repo is left out.

    Args:
        study: The study.
        source: The dataset repo.
        target: The run directory.
        files: Paths of further files, beside the texts that the study measures on.

    Raises:
        FormatError: A place in the target leads out of it.
    """
    for file in (study.extraction.pairs, study.sweep.prompts, study.perplexity.corpus, *files):
        present = is_inside(source, file) and (source / file).is_file()
        if present and (source / file).resolve() != (target / file).resolve():
            place = inside(target, file)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, place)
