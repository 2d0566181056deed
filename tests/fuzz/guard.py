"""Calls one reader on one file, and catches whatever it should not do.

Invariant: a reader either returns or raises one of its refusals; it runs no code of the input, writes no file, opens no
connection, imports nothing new, warns of nothing, and stays within bounds of time and memory. All else is `Caught`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fuzz.readers import Reader

GROWTH_BYTES = 96 * 2**20
"""By how much one call may raise the process's peak memory; inputs have at most `mutations.MAX_BYTES`."""
LIMIT_BYTES = 512 * 2**20
"""Memory that a process may take on top of what the libraries took."""

_FORBIDDEN = (
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "tempfile.",
    "ctypes.",
    "pty.",
    "urllib.",
    "pickle.find_class",
    "exec",
    "compile",
    "import",
    "code.",
    "marshal.",
    "syslog.",
    "sqlite3.",
    "webbrowser.",
    "gc.",
)
_HARMLESS = {"os.listdir", "os.scandir", "os.putenv", "os.fwalk", "os.walk"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Caught(BaseException):
    """Something that a reader must not do."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Guard:
    """Calls readers, and turns everything they must not do into `Caught`.

    An audit hook can't be taken away, so there is one guard per process.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.armed = False
        self.events: list[str] = []
        self.peak = peak_bytes()
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, _too_slow)

    def call(self, reader: Reader, folder: Path) -> bool:
        """Whether the reader accepts the file in its folder.

        Raises:
            Caught: It did something else than to accept or refuse it.
        """
        self.events.clear()
        self.peak = peak_bytes()
        accepted = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                signal.setitimer(signal.ITIMER_REAL, self.seconds)
                self.armed = True
                try:
                    accepted = reader.read(folder)
                finally:
                    self.armed = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except reader.refusals as error:
            # Some libraries report that they ran out of memory by an error of their own.
            if "allocate memory" in str(error):
                raise Caught("memory", str(error)[:300]) from None
            _check_message(error)
        except Caught as caught:
            # Taking memory takes time: on a busy machine the alarm rings first, and memory is what is wrong.
            if caught.kind != "audit" and self._growth() <= GROWTH_BYTES:
                raise
        except MemoryError:
            raise Caught("memory", _where(sys.exc_info()[1])) from None
        except Warning as warning:
            raise Caught("warning", _where(warning)) from None
        except BaseException as error:
            raise Caught("exception", _where(error)) from None
        if self.events:
            raise Caught("audit", self.events[0])
        if self._growth() > GROWTH_BYTES:
            raise Caught("memory", f"the process grew by {self._growth() >> 20} MiB")
        return accepted

    def _growth(self) -> int:
        """Bytes by which the reader has raised the process's peak memory."""
        return peak_bytes() - self.peak

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed or not event.startswith(("open", *_FORBIDDEN)) or event in _HARMLESS:
            return
        if event == "open":
            _, mode, flags = arguments
            by_mode = isinstance(mode, str) and set(mode) & set("wax+")
            if not by_mode and not (isinstance(flags, int) and flags & _WRITING):
                return
        self.armed = False
        self.events.append(f"{event} {str(arguments)[:200]}")
        raise Caught("audit", self.events[-1])


def _check_message(error: BaseException) -> None:
    """A refusal is shown to people: its message must be short enough for that, and encodable."""
    message = str(error)
    try:
        message.encode("utf-8")
    except UnicodeEncodeError:
        raise Caught("exception", f"a message with a lone surrogate: {message[:100]!a}") from None


def _too_slow(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Caught("time", "too slow")


def _where(error: BaseException | None) -> str:
    """An exception, with the innermost places it passed."""
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:200]!a} at {places}"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """Bound what the process may allocate from now on."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024 + LIMIT_BYTES, resource.RLIM_INFINITY))
