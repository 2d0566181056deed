"""What a PyTorch pickle would build, worked out without building it.

Invariant: nothing that a pickle names is imported, called or allocated here. A pickle is a program; this module is the
machine that runs it, on the inert stand-ins of `pickle_values.py` (a tensor is its dtype, shape and place in the
archive). It refuses every global and instruction that a file of tensors, numpy arrays and plain values does not need,
and so knows all sizes before anything is loaded.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from steer_eval.formats.pickle_values import (
    CALLS,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    NAMES,
    NUMPY,
    STORAGES,
    ArraySpec,
    Global,
    PendingArray,
    RawBytes,
    RefusedPickleError,
    StorageSpec,
    TensorSpec,
    finished,
    give_state,
    is_latin1,
    storage_of,
)

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_ELEMENTS",
    "MAX_INSTRUCTIONS",
    "MAX_INTEGER",
    "NUMPY",
    "STORAGES",
    "ArraySpec",
    "Program",
    "RefusedPickleError",
    "StorageSpec",
    "TensorSpec",
    "interpret",
    "run",
]

MAX_INSTRUCTIONS = 1_000_000
MAX_INTEGER = 2**63

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Program:
    """What a pickle would build, and what it would open for that, whether or not the value holds it.

    Args:
        value: Dicts, lists, tuples and scalars, with a `TensorSpec` or `ArraySpec` for each tensor or array. Tuples are
            also arguments, so one can still hold what is no value, of a private type.
        storages: The storages, each once.
    """

    value: Any
    storages: tuple[StorageSpec, ...]


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, StorageSpec] = field(default_factory=dict)
    bytes_left: int = 0

    def spend(self, length: int) -> None:
        """Count bytes that would be made: each is written in the pickle once, but could be made many times."""
        self.bytes_left -= length
        if self.bytes_left < 0:
            raise RefusedPickleError("it makes more bytes than it has")

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise RefusedPickleError("an instruction asks for a mark that is not there")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise RefusedPickleError("an instruction takes more than there is")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise RefusedPickleError("an instruction takes more than there is")
        return self.stack[-1]


def interpret(program: bytes) -> Any:
    """The value of a pickle, as `run` works it out.

    Raises:
        RefusedPickleError: It does anything that a file of tensors and plain values does not need, or is damaged.
    """
    return run(program).value


def run(program: bytes) -> Program:
    """Run a pickle on stand-ins.

    Args:
        program: The pickle, protocol 2 as `torch.save` writes it.

    Raises:
        RefusedPickleError: It does anything that a file of tensors and plain values does not need, or is damaged.
    """
    # Once as bytes, once as an array of them.
    machine = _Machine(bytes_left=2 * len(program))
    try:
        for count, (opcode, argument) in enumerate(_instructions(program)):
            if count >= MAX_INSTRUCTIONS:
                raise RefusedPickleError(f"the pickle has more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                value = finished(machine.pop())
                if machine.stack or machine.marks:
                    raise RefusedPickleError("values are left over at its end")
                return Program(value, tuple(machine.storages.values()))
            _STEPS[opcode.name](machine, argument)
    except RefusedPickleError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise RefusedPickleError(f"the pickle is damaged: {error}") from None
    raise RefusedPickleError("the pickle is damaged: it has no end")


def _instructions(program: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Each instruction with its argument; one that is refused is so before its argument is looked at."""
    file = io.BytesIO(program)
    while code := file.read(1):
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise RefusedPickleError(f"the pickle is damaged: there is no instruction {code!r}")
        if opcode.name != "STOP" and opcode.name not in _STEPS:
            raise RefusedPickleError(f"the pickle instruction {opcode.name} (protocol {opcode.proto}) is not read")
        if opcode.name == "GLOBAL":
            # As written: the library's reader takes backslashes in a name for escapes, and PyTorch does not.
            yield opcode, f"{_line(file)}.{_line(file)}"
        else:
            yield opcode, None if opcode.arg is None else opcode.arg.reader(file)


def _line(file: io.BytesIO) -> str:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise RefusedPickleError("the pickle is damaged: it ends in a name")
    return line[:-1].decode("ascii")


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _push_integer(machine: _Machine, value: Any) -> None:
    if abs(value) >= MAX_INTEGER:
        raise RefusedPickleError("an integer has more than 63 bits")
    machine.stack.append(value)


def _push_text(machine: _Machine, value: Any) -> None:
    if not is_latin1(value) and _SURROGATE.search(value):
        raise RefusedPickleError("a lone surrogate is no text")
    machine.stack.append(value)


def _global(machine: _Machine, name: Any) -> None:
    if name not in NAMES:
        raise RefusedPickleError(f"the pickle names {name}, which no file of tensors needs")
    machine.stack.append(Global(name))


def _persistent(machine: _Machine, _argument: Any) -> None:
    storage = storage_of(machine.pop())
    # PyTorch opens a record once: tensors of a second type would silently be of the first.
    if machine.storages.setdefault(storage.record, storage) != storage:
        raise RefusedPickleError(f"the record {storage.record} is used as storages of two types or sizes")
    machine.stack.append(storage)


def _build(machine: _Machine, _argument: Any) -> None:
    state = machine.pop()
    machine.spend(give_state(machine.top(), state))


def _reduce(machine: _Machine, _argument: Any) -> None:
    arguments = machine.pop()
    called = machine.pop()
    if not isinstance(called, Global) or called.name not in CALLS or not isinstance(arguments, tuple):
        raise RefusedPickleError("something is called that is no allowed function")
    made = CALLS[called.name](arguments)
    if isinstance(made, RawBytes):
        machine.spend(made.length)
    machine.stack.append(made)


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, list):
        raise RefusedPickleError("something that is no list is appended to")
    target.extend(finished(value) for value in values)


def _set_items(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, dict) or len(values) % 2:
        raise RefusedPickleError("items are set on something that is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str | int):
            raise RefusedPickleError("a key is neither text nor number")
        if key in target:
            raise RefusedPickleError("a key stands twice in one dict")
        target[key] = finished(value)


def _set_item(machine: _Machine, _argument: Any) -> None:
    value = machine.pop()
    key = machine.pop()
    _set_items(machine, [key, value])


def _push_tuple(machine: _Machine, values: list[Any]) -> None:
    # Tuples are also arguments, so they may hold what is no value; an array in one is still a value.
    machine.stack.append(tuple(value.spec or value if isinstance(value, PendingArray) else value for value in values))


def _tuple(length: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _argument: Any) -> None:
        _push_tuple(machine, [machine.pop() for _ in range(length)][::-1])

    return step


def _put(machine: _Machine, argument: Any) -> None:
    machine.memo[int(argument)] = machine.top()


def _get(machine: _Machine, argument: Any) -> None:
    if int(argument) not in machine.memo:
        raise RefusedPickleError("the pickle refers to a value that it has not made")
    machine.stack.append(machine.memo[int(argument)])


def _protocol(_machine: _Machine, argument: Any) -> None:
    if argument != 2:
        message = f"the pickle has protocol {argument}; only 2, which torch.save writes, is read"
        raise RefusedPickleError(message, "save it again with today's torch.save and its default protocol")


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _protocol,
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "EMPTY_TUPLE": lambda machine, _: _push(machine, ()),
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT"), _push),
    "LONG1": _push_integer,
    "BINUNICODE": _push_text,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, _: _push_tuple(machine, machine.since_mark()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.since_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: _set_items(machine, machine.since_mark()),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "BINPERSID": _persistent,
    "REDUCE": _reduce,
    "BUILD": _build,
}
