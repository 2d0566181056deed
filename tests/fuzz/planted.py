"""Readers that do what no reader may do, to see that the fuzzer notices.

Each accepts any file without an exclamation mark, and misbehaves on one that has it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from fuzz.readers import Reader
from steer_eval.errors import FormatError


def _recurse() -> None:
    _recurse()


def _spin() -> None:
    while True:
        pass


def _stuck() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)


def _hidden() -> None:
    with suppress(BaseException):
        os.system("true")  # noqa: S605


def _connect() -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 9))


def _out_of_memory() -> None:
    raise FormatError("x", "", "DefaultCPUAllocator: can't allocate memory")


def _surrogate() -> None:
    raise FormatError("x", "", "\ud800")


def _kilobytes() -> None:
    bytearray(2**10)


DEEDS: dict[str, tuple[str, Callable[[], object]]] = {
    "value_error": ("exception", lambda: int("x")),
    "recursion": ("exception", _recurse),
    "surrogate": ("exception", _surrogate),
    "command": ("audit", lambda: os.system("true")),  # noqa: S605
    "hidden_command": ("audit", _hidden),
    "program": ("audit", lambda: subprocess.run(["true"], check=True)),
    "code": ("audit", lambda: exec("1")),  # noqa: S102
    "module": ("audit", lambda: importlib.import_module("antigravity")),
    "file": ("audit", lambda: Path("written").write_text("x")),
    "connection": ("audit", _connect),
    "much_memory": ("memory", lambda: bytearray(2**31)),
    "more_memory": ("memory", lambda: bytearray(b"x") * (160 * 2**20)),
    "no_memory": ("memory", _out_of_memory),
    "slow": ("time", _spin),
    "stuck": ("time", _stuck),
    "warning": ("warning", lambda: warnings.warn("x", stacklevel=1)),
    "segfault": ("crash", lambda: ctypes.memset(1, 0, 1)),
    "exit": ("crash", lambda: os._exit(0)),
    "abort": ("crash", os.abort),
}
"""What a reader does, and the kind of failure that it is."""

GOOD: dict[str, Callable[[], object]] = {"nothing": lambda: None, "little": _kilobytes}


def _mark(content: bytes, _random: Random, _others: Sequence[bytes]) -> bytes:
    return content + b"!"


def _read(deed: Callable[[], object]) -> Callable[[Path], bool]:
    def read(folder: Path) -> bool:
        if b"!" in (folder / "input").read_bytes():
            deed()
        return True

    return read


def readers() -> tuple[Reader, ...]:
    deeds = {name: deed for name, (_, deed) in DEEDS.items()} | GOOD
    return tuple(Reader(name, _read(deed), (b"good",), (_mark,)) for name, deed in deeds.items())
