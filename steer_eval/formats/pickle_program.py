"""What a PyTorch pickle would build, worked out without building it.

Invariant: nothing that a pickle names is imported, called or allocated here. A pickle is a program; this module runs it
on inert stand-ins (a tensor is its dtype, shape and place in the archive), refuses every global and instruction that a
file of tensors, numpy arrays and plain values does not need, and so knows all sizes before anything is loaded.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_INSTRUCTIONS = 1_000_000
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**40
MAX_INTEGER = 2**63

STORAGES = {
    "torch.DoubleStorage": ("float64", 8),
    "torch.FloatStorage": ("float32", 4),
    "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.CharStorage": ("int8", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
}
"""Typed storages of `torch.save`: dtype, and bytes per element."""

NUMPY = {
    "f2": ("float16", 2),
    "f4": ("float32", 4),
    "f8": ("float64", 8),
    "i1": ("int8", 1),
    "i2": ("int16", 2),
    "i4": ("int32", 4),
    "i8": ("int64", 8),
    "u1": ("uint8", 1),
    "b1": ("bool", 1),
}
"""Plain numpy dtypes: name, and bytes per element. Object and string arrays are refused."""

_PLAIN_DTYPE = (None, None, None, -1, -1, 0)
_SURROGATE = re.compile("[\ud800-\udfff]")


class RefusedPickleError(ValueError):
    """A pickle that is not read, and why."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as a pickle describes it: elements of a record of the archive."""

    dtype: str
    shape: tuple[int, ...]
    record: str
    record_bytes: int


@dataclass(frozen=True)
class ArraySpec:
    """A numpy array as a pickle describes it; its bytes stand in the pickle itself."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class StorageSpec:
    """What tensors are views of: a whole record of the archive, as elements of one type."""

    dtype: str
    item_bytes: int
    record: str
    elements: int


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


@dataclass(frozen=True)
class _Bytes:
    length: int
    first: str


@dataclass
class _Dtype:
    name: str
    item_bytes: int


@dataclass
class _PendingArray:
    spec: ArraySpec | None = None


class _Mapping(dict[Any, Any]):
    """An ordered dict, told apart because only it may be given attributes (a module's `_metadata`)."""


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
                value = _finished(machine.pop())
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


def _finished(value: Any) -> Any:
    """A value as it is handed out or put into a container: half-made ones are refused."""
    if isinstance(value, _PendingArray):
        if value.spec is None:
            raise RefusedPickleError("a numpy array has no content")
        return value.spec
    if isinstance(value, _Global | StorageSpec | _Dtype):
        raise RefusedPickleError("a class or storage stands where a value belongs")
    return value


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _push_integer(machine: _Machine, value: Any) -> None:
    if abs(value) >= MAX_INTEGER:
        raise RefusedPickleError("an integer has more than 63 bits")
    machine.stack.append(value)


def _push_text(machine: _Machine, value: Any) -> None:
    if not _is_latin1(value) and _SURROGATE.search(value):
        raise RefusedPickleError("a lone surrogate is no text")
    machine.stack.append(value)


def _is_latin1(text: str) -> bool:
    """Whether every character is one byte, as the bytes of arrays are written; a search takes ten times as long."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _global(machine: _Machine, name: Any) -> None:
    if name not in _CALLS and name not in STORAGES and name not in _CLASSES:
        raise RefusedPickleError(f"the pickle names {name}, which no file of tensors needs")
    machine.stack.append(_Global(name))


def _persistent(machine: _Machine, _argument: Any) -> None:
    identity = machine.pop()
    if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
        raise RefusedPickleError("a persistent id is no storage")
    _, kind, record, location, elements = identity
    if not isinstance(kind, _Global) or kind.name not in STORAGES:
        raise RefusedPickleError("a storage has no known type")
    if not (isinstance(record, str) and record.isascii() and record.isdigit() and isinstance(location, str)):
        raise RefusedPickleError("a storage has no number")
    dtype, item_bytes = STORAGES[kind.name]
    storage = StorageSpec(dtype, item_bytes, f"data/{record}", _count(elements))
    # PyTorch opens a record once: tensors of a second type would silently be of the first.
    if machine.storages.setdefault(storage.record, storage) != storage:
        raise RefusedPickleError(f"the record {storage.record} is used as storages of two types or sizes")
    machine.stack.append(storage)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise RefusedPickleError("a size is no natural number")
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
        raise RefusedPickleError(f"a shape is no tuple of at most {MAX_DIMENSIONS} numbers")
    sizes = tuple(_count(size) for size in value)
    if max(sizes, default=0) > MAX_ELEMENTS:
        raise RefusedPickleError(f"a shape or stride is too long: {list(sizes)}")
    return sizes


def _shape(value: Any) -> tuple[int, ...]:
    sizes = _sizes(value)
    # Without elements, sides of any length would fit; but their product overflows wherever somebody works it out.
    if math.prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
        raise RefusedPickleError(f"a shape or stride is too long: {list(sizes)}")
    return sizes


def _reduce(machine: _Machine, _argument: Any) -> None:
    arguments = machine.pop()
    called = machine.pop()
    if not isinstance(called, _Global) or called.name not in _CALLS or not isinstance(arguments, tuple):
        raise RefusedPickleError("something is called that is no allowed function")
    made = _CALLS[called.name](arguments)
    if isinstance(made, _Bytes):
        machine.spend(made.length)
    machine.stack.append(made)


def _tensor(arguments: tuple[Any, ...]) -> TensorSpec:
    # A seventh argument marks values as negated or conjugated: the record's bytes would not be the tensor's values.
    if len(arguments) != 6 or not isinstance(arguments[0], StorageSpec) or not _no_hooks(arguments[5]):
        raise RefusedPickleError("a tensor is more than dtype, shape and values")
    storage, offset, shape, stride = arguments[0], _count(arguments[1]), _shape(arguments[2]), _sizes(arguments[3])
    if len(shape) != len(stride):
        raise RefusedPickleError("a tensor's shape and stride differ in length")
    _check_gradient(arguments[4], storage.dtype)
    elements = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if elements else offset
    # A stride of zero repeats elements: a few bytes would pass for gigabytes as soon as somebody computes with them.
    # Where a tensor without elements begins says nothing, and a slice may leave it beyond its storage.
    if elements > storage.elements or (elements and last >= storage.elements) or offset > MAX_ELEMENTS:
        raise RefusedPickleError(
            f"a tensor of shape {list(shape)} does not fit its storage of {storage.elements} elements"
        )
    return TensorSpec(storage.dtype, shape, storage.record, storage.elements * storage.item_bytes)


def _parameter(arguments: tuple[Any, ...]) -> TensorSpec:
    if len(arguments) != 3 or not isinstance(arguments[0], TensorSpec) or not _no_hooks(arguments[2]):
        raise RefusedPickleError("a parameter is no tensor, or more than one")
    _check_gradient(arguments[1], arguments[0].dtype)
    return arguments[0]


def _are(values: tuple[Any, ...], *expected: tuple[Any, ...]) -> bool:
    """Whether values are one of some, types included: 0.0 is equal to False, and another thing to numpy."""
    return any(values == each and list(map(type, values)) == list(map(type, each)) for each in expected)


def _no_hooks(value: Any) -> bool:
    return isinstance(value, _Mapping) and not value


def _check_gradient(wanted: Any, dtype: str) -> None:
    if not isinstance(wanted, bool) or (wanted and "float" not in dtype):
        raise RefusedPickleError("a tensor asks for gradients that its type can't have")


def _ordered_dict(arguments: tuple[Any, ...]) -> _Mapping:
    if arguments:
        raise RefusedPickleError("an ordered dict is not built empty")
    return _Mapping()


def _encoded(arguments: tuple[Any, ...]) -> _Bytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] not in ("latin1", "latin-1"):
        raise RefusedPickleError("bytes are not written as latin-1 text")
    if not _is_latin1(arguments[0]):
        raise RefusedPickleError("a character is no latin-1, so it is no byte")
    return _Bytes(len(arguments[0]), arguments[0][:1])


def _array(arguments: tuple[Any, ...]) -> _PendingArray:
    if arguments != (_Global("numpy.ndarray"), (0,), _Bytes(1, "b")) or not _are(arguments[1], (0,)):
        raise RefusedPickleError("a numpy array is not built empty")
    return _PendingArray()


def _dtype(arguments: tuple[Any, ...]) -> _Dtype:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in NUMPY or not _are(arguments[1:], (False, True), (0, 1)):
        raise RefusedPickleError("a numpy array has no plain number type")
    return _Dtype(*NUMPY[code])


def _scalar(arguments: tuple[Any, ...]) -> ArraySpec:
    dtype, content = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(dtype, _Dtype) or not isinstance(content, _Bytes) or content.length != dtype.item_bytes:
        raise RefusedPickleError("a numpy scalar is not a number type and its bytes")
    return ArraySpec(dtype.name, ())


def _build(machine: _Machine, _argument: Any) -> None:
    state = machine.pop()
    target = machine.top()
    if isinstance(target, _Mapping):
        if not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise RefusedPickleError("an ordered dict is given attributes other than a module's metadata")
    elif isinstance(target, _Dtype):
        if not isinstance(state, tuple) or len(state) < 2 or state[1] != ("|" if target.item_bytes == 1 else "<"):
            raise RefusedPickleError("a numpy dtype is not little-endian")
        # Numpy believes the rest: fields, items of another length, even that the bytes are pointers to objects.
        if not _are((state[0], *state[2:]), (3, *_PLAIN_DTYPE)):
            raise RefusedPickleError("a numpy dtype is no plain number type")
    elif isinstance(target, _PendingArray) and target.spec is None:
        target.spec, length = _array_spec(state)
        machine.spend(length)
    else:
        raise RefusedPickleError("something is given a state that takes none")


def _array_spec(state: Any) -> tuple[ArraySpec, int]:
    """An array and its bytes."""
    if not isinstance(state, tuple) or len(state) != 5 or not _are(state[:1], (1,)) or not isinstance(state[3], bool):
        raise RefusedPickleError("a numpy array is not described as numpy does it")
    _, shape, dtype, _, content = state
    if not isinstance(dtype, _Dtype) or not isinstance(content, _Bytes):
        raise RefusedPickleError("a numpy array has no number type or no bytes")
    sizes = _shape(shape)
    if math.prod(sizes) * dtype.item_bytes != content.length:
        raise RefusedPickleError(f"a numpy array of shape {list(sizes)} has {content.length} bytes")
    return ArraySpec(dtype.name, sizes), content.length


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, list):
        raise RefusedPickleError("something that is no list is appended to")
    target.extend(_finished(value) for value in values)


def _set_items(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, dict) or len(values) % 2:
        raise RefusedPickleError("items are set on something that is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str | int):
            raise RefusedPickleError("a key is neither text nor number")
        if key in target:
            raise RefusedPickleError("a key stands twice in one dict")
        target[key] = _finished(value)


def _set_item(machine: _Machine, _argument: Any) -> None:
    value = machine.pop()
    key = machine.pop()
    _set_items(machine, [key, value])


def _push_tuple(machine: _Machine, values: list[Any]) -> None:
    # Tuples are also arguments, so they may hold what is no value; an array in one is still a value.
    machine.stack.append(tuple(value.spec or value if isinstance(value, _PendingArray) else value for value in values))


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
        raise RefusedPickleError(f"the pickle has protocol {argument}; only 2, which torch.save writes, is read")


_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encoded,
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray.scalar": _scalar,
}
_CLASSES = frozenset({"numpy.ndarray"})

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
