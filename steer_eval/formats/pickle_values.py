"""What the values of a PyTorch pickle are without being made: stand-ins, and what the allowed calls build of them.

Invariant: a stand-in knows the dtype, shape and bytes of what PyTorch or numpy would make of the same arguments, and
arguments that they would read in another way, or that would make something else than plain numbers, are refused.
Nothing is imported, called or allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**40

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


class RefusedPickleError(ValueError):
    """A pickle that is not read.

    Args:
        message: Why not.
        fix: How to save the file so that it is, where that is known.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


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
class StorageSpec:
    """What tensors are views of: a whole record of the archive, as elements of one type."""

    dtype: str
    item_bytes: int
    record: str
    elements: int


@dataclass(frozen=True)
class Global:
    """A function or class that a pickle names."""

    name: str


@dataclass(frozen=True)
class RawBytes:
    """Bytes: how many, and the first of them as text."""

    length: int
    first: str


@dataclass
class Dtype:
    """A numpy dtype."""

    name: str
    item_bytes: int


@dataclass
class PendingArray:
    """A numpy array, which is made empty and given its content after that."""

    spec: ArraySpec | None = None


class OrderedMapping(dict[Any, Any]):
    """An ordered dict, told apart because only it may be given attributes (a module's `_metadata`)."""


def finished(value: Any) -> Any:
    """A value as it is handed out or put into a container: half-made ones are refused."""
    if isinstance(value, PendingArray):
        if value.spec is None:
            raise RefusedPickleError("a numpy array has no content")
        return value.spec
    if isinstance(value, Global | StorageSpec | Dtype):
        raise RefusedPickleError("a class or storage stands where a value belongs")
    return value


def is_latin1(text: str) -> bool:
    """Whether every character is one byte, as the bytes of arrays are written; a search takes ten times as long."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def storage_of(identity: Any) -> StorageSpec:
    """The storage that a persistent id stands for.

    Raises:
        RefusedPickleError: It is none that `torch.save` writes.
    """
    if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
        raise RefusedPickleError("a persistent id is no storage")
    _, kind, record, location, elements = identity
    if not isinstance(kind, Global) or kind.name not in STORAGES:
        raise RefusedPickleError("a storage has no known type")
    if not (isinstance(record, str) and record.isascii() and record.isdigit() and isinstance(location, str)):
        raise RefusedPickleError("a storage has no number")
    dtype, item_bytes = STORAGES[kind.name]
    return StorageSpec(dtype, item_bytes, f"data/{record}", _count(elements))


def give_state(target: Any, state: Any) -> int:
    """Give an object the state that a pickle has for it.

    Returns:
        How many bytes that would make.

    Raises:
        RefusedPickleError: The object takes no state, or not this one.
    """
    if isinstance(target, OrderedMapping):
        if not isinstance(state, dict) or set(state) != {"_metadata"}:
            raise RefusedPickleError("an ordered dict is given attributes other than a module's metadata")
        return 0
    if isinstance(target, Dtype):
        _check_dtype_state(target, state)
        return 0
    if isinstance(target, PendingArray) and target.spec is None:
        target.spec, length = _array_spec(state)
        return length
    raise RefusedPickleError("something is given a state that takes none")


def _check_dtype_state(dtype: Dtype, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 2 or state[1] != ("|" if dtype.item_bytes == 1 else "<"):
        raise RefusedPickleError("a numpy dtype is not little-endian")
    # Numpy believes the rest: fields, items of another length, even that the bytes are pointers to objects.
    if not _are((state[0], *state[2:]), (3, *_PLAIN_DTYPE)):
        raise RefusedPickleError("a numpy dtype is no plain number type")


def _array_spec(state: Any) -> tuple[ArraySpec, int]:
    """An array and its bytes."""
    if not isinstance(state, tuple) or len(state) != 5 or not _are(state[:1], (1,)) or not isinstance(state[3], bool):
        raise RefusedPickleError("a numpy array is not described as numpy does it")
    _, shape, dtype, _, content = state
    if not isinstance(dtype, Dtype) or not isinstance(content, RawBytes):
        raise RefusedPickleError("a numpy array has no number type or no bytes")
    sizes = _shape(shape)
    if math.prod(sizes) * dtype.item_bytes != content.length:
        raise RefusedPickleError(f"a numpy array of shape {list(sizes)} has {content.length} bytes")
    return ArraySpec(dtype.name, sizes), content.length


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


def _ordered_dict(arguments: tuple[Any, ...]) -> OrderedMapping:
    if arguments:
        raise RefusedPickleError("an ordered dict is not built empty")
    return OrderedMapping()


def _encoded(arguments: tuple[Any, ...]) -> RawBytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] not in ("latin1", "latin-1"):
        raise RefusedPickleError("bytes are not written as latin-1 text")
    if not is_latin1(arguments[0]):
        raise RefusedPickleError("a character is no latin-1, so it is no byte")
    return RawBytes(len(arguments[0]), arguments[0][:1])


def _array(arguments: tuple[Any, ...]) -> PendingArray:
    if arguments != (Global("numpy.ndarray"), (0,), RawBytes(1, "b")) or not _are(arguments[1], (0,)):
        raise RefusedPickleError("a numpy array is not built empty")
    return PendingArray()


def _dtype(arguments: tuple[Any, ...]) -> Dtype:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in NUMPY or not _are(arguments[1:], (False, True), (0, 1)):
        raise RefusedPickleError("a numpy array has no plain number type")
    return Dtype(*NUMPY[code])


def _scalar(arguments: tuple[Any, ...]) -> ArraySpec:
    dtype, content = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(dtype, Dtype) or not isinstance(content, RawBytes) or content.length != dtype.item_bytes:
        raise RefusedPickleError("a numpy scalar is not a number type and its bytes")
    return ArraySpec(dtype.name, ())


def _check_gradient(wanted: Any, dtype: str) -> None:
    if not isinstance(wanted, bool) or (wanted and "float" not in dtype):
        raise RefusedPickleError("a tensor asks for gradients that its type can't have")


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


def _are(values: tuple[Any, ...], *expected: tuple[Any, ...]) -> bool:
    """Whether values are one of some, types included: 0.0 is equal to False, and another thing to numpy."""
    return any(values == each and list(map(type, values)) == list(map(type, each)) for each in expected)


def _no_hooks(value: Any) -> bool:
    return isinstance(value, OrderedMapping) and not value


CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
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
"""Functions that a pickle may call, by the names it has for them, and what they build of their arguments."""

_CLASSES = frozenset({"numpy.ndarray"})
NAMES = frozenset(CALLS) | frozenset(STORAGES) | _CLASSES
"""All that a pickle may name."""
