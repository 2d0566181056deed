from __future__ import annotations

import pickle
import sys
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pt_files import (
    call,
    dict_of,
    floats,
    latin,
    mapping,
    named,
    number,
    numpy_array,
    numpy_dtype,
    program,
    row,
    sizes,
    storage,
    tensor,
    text,
)

from steer_eval.formats.pickle_program import MAX_INSTRUCTIONS, ArraySpec, RefusedPickleError, TensorSpec, interpret

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | TEXT
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(TEXT | st.integers(-9, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_plain_values_are_what_pickle_makes_of_them(value):
    assert interpret(pickle.dumps(value, protocol=2)) == value


def test_a_value_that_stands_twice_is_read_twice():
    shared = [1, 2]

    assert interpret(pickle.dumps({"a": shared, "b": (shared, shared)}, protocol=2)) == {
        "a": [1, 2],
        "b": ([1, 2], [1, 2]),
    }


def test_an_ordered_dict_is_a_dict():
    assert interpret(pickle.dumps({"a": OrderedDict(x=1, y=2)}, protocol=2)) == {"a": {"x": 1, "y": 2}}


def test_a_tensor_is_its_dtype_shape_and_place():
    value = interpret(
        dict_of(tensor([2, 3], [3, 1], elements=10, offset=4, kind="torch.HalfStorage", record=text("7")))
    )

    assert value == {"value": TensorSpec("float16", (2, 3), "data/7", 20)}


def test_an_array_is_its_dtype_and_shape():
    array = numpy_array([2, 1], floats(1, 2))
    value = interpret(program(mapping(a=array, b=array + b"\x85", c=b"](" + array + array + b"e")))

    described = ArraySpec("float32", (2, 1))
    assert value == {"a": described, "b": (described,), "c": [described, described]}


def test_no_module_is_imported_for_what_a_pickle_names():
    for name in ("antigravity", "this", "idlelib"):
        assert name not in sys.modules
        with pytest.raises(RefusedPickleError, match=f"names {name}.anything"):
            interpret(program(call(f"{name}.anything")))
        assert name not in sys.modules


NAMES = (
    *("os.system", "posix.system", "nt.system", "subprocess.Popen", "runpy._run_code", "webbrowser.open"),
    *(
        "builtins.eval",
        "builtins.exec",
        "builtins.getattr",
        "__builtin__.eval",
        "__builtin__.set",
        "builtins.bytearray",
    ),
    *("torch.load", "torch.device", "torch.Size", "torch.hub.load", "torch.storage._load_from_bytes"),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v3", "torch._tensor._rebuild_from_type_v2"),
    *("torch.storage.UntypedStorage", "torch.ComplexFloatStorage", "torch.jit._pickle.restore_type_tag"),
    *("numpy.load", "numpy.memmap", "numpy.core.multiarray.fromfile", "numpy._core.numeric._frombuffer"),
    *("numpy.matrix", "numpy.dtypes.ObjectDType", "collections.defaultdict", "codecs.encode", "_codecs.decode"),
    *("collections.OrderedDict.fromkeys", "numpy.ndarray.dump", "torch._utils", "OrderedDict"),
)


@pytest.mark.parametrize("name", NAMES)
def test_every_other_global_is_refused_by_name(name):
    with pytest.raises(RefusedPickleError, match=f"names .*{name.rpartition('.')[2]}"):
        interpret(program(named(name)))


def metadata_of_a_module(**items: bytes) -> bytes:
    return named("collections.OrderedDict") + b")R" + mapping(**items) + b"b"


def reconstructed(*arguments: bytes) -> bytes:
    return call("numpy._core.multiarray._reconstruct", *arguments)


NDARRAY = named("numpy.ndarray")
ORDERED_DICT = named("collections.OrderedDict")
MINUS_ONE = number(-1)

REFUSED = {
    # Damage
    "empty": (b"", "damaged"),
    "no end": (b"\x80\x02}", "damaged"),
    "end without a value": (b"\x80\x02.", "takes more"),
    "a value left over": (program(b"NN"), "left over"),
    "a mark left over": (program(b"N("), "takes more"),
    "no such instruction": (program(b"\xff"), "damaged"),
    "torn text": (b"\x80\x02X\xff\xff\xff\x7fabc", "damaged"),
    "text of no UTF-8": (program(b"X\x01\0\0\0\xff"), "damaged"),
    "text with half a character": (program(text("a\ud800")), "lone surrogate"),
    "half a character as key": (program(b"}" + text("\udfff") + b"Ns"), "lone surrogate"),
    "mark taken twice": (program(b"(tt"), "mark that is not there"),
    "takes from before a mark": (program(b"N(\x85"), "takes more"),
    "unknown memo": (program(b"h\x07"), "not made"),
    "unknown long memo": (program(b"j\xff\xff\xff\xff"), "not made"),
    "memo of nothing": (program(b"q\0"), "takes more"),
    "items without their last value": (program(b"}(" + text("a") + b"u"), "no dict"),
    # Other instructions
    "protocol 0": (b"(dp0\n.", "instruction DICT"),
    "protocol 3": (b"\x80\x03}.", "protocol 3"),
    "protocol 4": (pickle.dumps({"a": 1}, protocol=4), "protocol 4"),
    "protocol 5 inside": (program(b"\x96\x01\0\0\0\0\0\0\0a"), "BYTEARRAY8"),
    "old global call": (program(b"(" + text("true") + b"ios\nsystem\n"), "instruction INST"),
    "object call": (program(b"(" + ORDERED_DICT + b"o"), "instruction OBJ"),
    "new object": (program(ORDERED_DICT + b")\x81"), "instruction NEWOBJ"),
    "stack global": (program(text("os") + text("system") + b"\x93"), "instruction STACK_GLOBAL"),
    "extension": (program(b"\x82\x01"), "instruction EXT1"),
    "text persistent id": (program(b"Pxyz\n"), "instruction PERSID"),
    "number as text": (program(b"I99\n"), "instruction INT"),
    "set": (program(b"\x8f"), "instruction EMPTY_SET"),
    "pop": (program(b"NN0"), "instruction POP"),
    "too many instructions": (program(b"N" * (MAX_INSTRUCTIONS + 1)), "more than 1000000 instructions"),
    # What stands where
    "class as value": (dict_of(ORDERED_DICT), "class or storage"),
    "class as the whole": (program(NDARRAY), "class or storage"),
    "storage as value": (dict_of(storage(1)), "class or storage"),
    "dtype as value": (dict_of(numpy_dtype()), "class or storage"),
    "array without content": (dict_of(reconstructed(NDARRAY, sizes([0]), latin(b"b"))), "no content"),
    "tuple as key": (program(b"}" + sizes([1]) + b"Ns"), "neither text nor number"),
    "key twice": (program(b"}(" + (text("a") + b"N") * 2 + b"u"), "twice"),
    "list as key": (program(b"}]Ns"), "neither text nor number"),
    "float as key": (program(b"}" + number(1.5) + b"Ns"), "neither text nor number"),
    "item of a list": (program(b"]" + text("a") + b"Ns"), "no dict"),
    "appended to a dict": (program(b"}Na"), "no list"),
    "appended to a tensor": (program(tensor([1], [1]) + b"Na"), "no list"),
    "item of a tensor": (program(tensor([1], [1]) + text("a") + b"Ns"), "no dict"),
    "integer of 64 bits": (program(number(2**63)), "63 bits"),
    "negative integer of 64 bits": (program(number(-(2**63))), "63 bits"),
    "integer of 2000 bits": (program(number(2**2000)), "63 bits"),
    # Calls
    "call of a value": (program(b"N)R"), "no allowed function"),
    "call of a class": (program(NDARRAY + b")R"), "no allowed function"),
    "call of a storage type": (program(named("torch.FloatStorage") + b")R"), "no allowed function"),
    "call with a list": (program(ORDERED_DICT + b"]R"), "no allowed function"),
    "ordered dict of items": (program(call("collections.OrderedDict", b"]")), "not built empty"),
    "state of a list": (program(b"]}b"), "takes none"),
    "state of a tensor": (program(tensor([1], [1]) + mapping(requires_grad=b"\x88") + b"b"), "takes none"),
    "attribute of an ordered dict": (program(metadata_of_a_module(keys=b"N")), "other than a module's metadata"),
    "attribute beside metadata": (program(metadata_of_a_module(_metadata=b"}", keys=b"N")), "other than"),
    "metadata that is no dict": (program(ORDERED_DICT + b")RNb"), "other than"),
    # Tensors
    "persistent id of text": (program(text("storage") + b"Q"), "no storage"),
    "persistent id of another kind": (program(row(text("module"), b"NNNN") + b"Q"), "no storage"),
    "storage of another type": (program(storage(1, kind="numpy.ndarray")), "no known type"),
    "record is no number": (program(storage(1, record=text("../0"))), "no number"),
    "record is a number in another script": (program(storage(1, record=text("٣"))), "no number"),
    "record is no text": (program(storage(1, record=number(0))), "no number"),
    "negative storage": (program(storage(-1)), "no natural number"),
    "tensor of no storage": (dict_of(call("torch._utils._rebuild_tensor_v2", b"NNNNNN")), "more than"),
    "tensor with few arguments": (dict_of(call("torch._utils._rebuild_tensor_v2", storage(1))), "more than"),
    "tensor marked as negated": (dict_of(tensor([1], [1], more=mapping(neg=b"\x88"))), "more than"),
    "tensor with hooks": (dict_of(tensor([1], [1]).replace(ORDERED_DICT + b")R", mapping(a=number(3)))), "more than"),
    "shape is a list": (dict_of(tensor([1], [1]).replace(sizes([1]), b"]", 1)), "no tuple"),
    "shape of a boolean": (dict_of(tensor([1], [1]).replace(sizes([1]), b"\x88\x85", 1)), "natural number"),
    "negative size": (dict_of(tensor([-1], [1], elements=1)), "natural number"),
    "negative stride": (dict_of(tensor([2], [-1])), "natural number"),
    "negative offset": (dict_of(tensor([1], [1], offset=-1)), "natural number"),
    "nine dimensions": (dict_of(tensor([1] * 9, [1] * 9)), "at most 8"),
    "stride of another length": (dict_of(tensor([1], [1, 1])), "differ in length"),
    "expanded": (dict_of(tensor([2**40], [0], elements=1)), "does not fit its storage of 1 elements"),
    "expanded within its storage": (dict_of(tensor([3, 3], [0, 1], elements=8)), "does not fit"),
    "beyond its storage": (dict_of(tensor([2], [4], elements=4)), "does not fit"),
    "offset beyond its storage": (dict_of(tensor([2], [1], elements=4, offset=3)), "does not fit"),
    "more elements than there are numbers": (dict_of(tensor([2**30] * 8, [1] * 8, elements=1)), "too long"),
    "no elements, but a long side": (dict_of(tensor([0, 2**61], [1, 1], elements=0)), "too long"),
    "long stride": (dict_of(tensor([1], [2**61], elements=1)), "too long"),
    "one record as two types": (
        program(b"](" + tensor([1], [1]) + tensor([2], [1], kind="torch.HalfStorage") + b"e"),
        "two types or sizes",
    ),
    "one record in two sizes": (program(b"](" + tensor([1], [1]) + tensor([2], [1]) + b"e"), "two types or sizes"),
    "gradient of integers": (
        dict_of(tensor([1], [1], kind="torch.LongStorage").replace(b"\x89", b"\x88", 1)),
        "gradients",
    ),
    "gradient that is no boolean": (dict_of(tensor([1], [1]).replace(b"\x89", number(1), 1)), "gradients"),
    "parameter of no tensor": (dict_of(call("torch._utils._rebuild_parameter", b"N\x88N")), "no tensor"),
    "parameter of nothing": (dict_of(call("torch._utils._rebuild_parameter")), "no tensor"),
    # Arrays
    "array of another class": (dict_of(reconstructed(ORDERED_DICT, sizes([0]), latin(b"b"))), "not built empty"),
    "array built large": (dict_of(reconstructed(NDARRAY, sizes([2**40]), latin(b"b"))), "not built empty"),
    "array built of large items": (
        dict_of(numpy_array([1], floats(1), kind=text("V2147483647"))),
        "not built empty",
    ),
    "array given content twice": (
        dict_of(
            numpy_array([1], floats(1)) + row(number(1), sizes([1]), numpy_dtype(), b"\x89", latin(floats(1))) + b"b"
        ),
        "takes none",
    ),
    "array of fewer parts": (
        dict_of(reconstructed(NDARRAY, sizes([0]), latin(b"b")) + row(number(1), sizes([1]), numpy_dtype()) + b"b"),
        "not described as numpy does it",
    ),
    "array whose order is no truth": (
        dict_of(
            numpy_array([1], floats(1)).replace(b"b\x89" + named("_codecs.encode"), b"bN" + named("_codecs.encode"))
        ),
        "not described as numpy does it",
    ),
    "array of no bytes": (
        dict_of(
            reconstructed(NDARRAY, sizes([0]), latin(b"b"))
            + row(number(1), sizes([1]), numpy_dtype(), b"\x89", text("abcd"))
            + b"b"
        ),
        "no number type or no bytes",
    ),
    "array of another length": (dict_of(numpy_array([3], floats(1, 2))), "shape \\[3\\] has 8 bytes"),
    "array of objects": (dict_of(numpy_array([1], b"\0" * 8, dtype=numpy_dtype("O8", order="|"))), "plain number type"),
    "array of text": (dict_of(numpy_array([1], b"\0" * 4, dtype=numpy_dtype("U1"))), "plain number type"),
    "array of raw bytes": (dict_of(numpy_array([1], b"\0" * 4, dtype=numpy_dtype("V4"))), "plain number type"),
    "array of no dtype": (dict_of(numpy_array([1], floats(1), dtype=text("f4"))), "no number type"),
    "dtype with its byte order in the name": (
        dict_of(numpy_array([1], floats(1), dtype=numpy_dtype(">f4"))),
        "plain number type",
    ),
    "big-endian array": (dict_of(numpy_array([1], floats(1), dtype=numpy_dtype(order=">"))), "not little-endian"),
    "dtype whose items are pointers": (
        dict_of(numpy_array([1], floats(1), dtype=numpy_dtype(rest=b"NNN" + MINUS_ONE * 2 + number(0x3F)))),
        "no plain number type",
    ),
    "dtype with a subarray": (
        dict_of(
            numpy_array(
                [1],
                floats(1),
                dtype=numpy_dtype(rest=row(numpy_dtype(), sizes([9])) + b"NN" + MINUS_ONE * 2 + number(0)),
            )
        ),
        "no plain number type",
    ),
    "dtype with fields": (
        dict_of(
            numpy_array(
                [1], floats(1), dtype=numpy_dtype(rest=b"N" + row(text("x")) + b"}" + MINUS_ONE * 2 + number(0))
            )
        ),
        "no plain number type",
    ),
    "dtype of a long item": (
        dict_of(numpy_array([1], floats(1), dtype=numpy_dtype(rest=b"NNN" + number(1000) + number(8) + number(0)))),
        "no plain number type",
    ),
    "dtype cut short": (dict_of(numpy_array([1], floats(1), dtype=numpy_dtype(rest=b""))), "no plain number type"),
    "scalar of another length": (
        dict_of(call("numpy._core.multiarray.scalar", numpy_dtype(), latin(b"\0" * 5))),
        "number type and its bytes",
    ),
    "scalar of an object": (dict_of(call("numpy._core.multiarray.scalar", numpy_dtype(), b"N")), "its bytes"),
    "scalar of nothing": (dict_of(call("numpy._core.multiarray.scalar")), "its bytes"),
    "dtype that is not copied": (
        dict_of(numpy_array([1], floats(1), dtype=numpy_dtype().replace(b"\x89\x88", b"\x89\x89", 1))),
        "plain number type",
    ),
    "bytes of a character that is none": (
        dict_of(call("_codecs.encode", text("\u0141"), text("latin1"))),
        "no latin-1",
    ),
    "bytes made again and again": (
        program(
            text("x" * 1000) + b"q\0" + row(b"h\0", text("latin1")) + b"q\1",
            (named("_codecs.encode") + b"h\1R") * 9,
        ),
        "more bytes than it has",
    ),
    "bytes in another encoding": (dict_of(call("_codecs.encode", text("abc"), text("rot13"))), "latin-1"),
    "bytes of no text": (dict_of(call("_codecs.encode", b"N", text("latin1"))), "latin-1"),
}


@pytest.mark.parametrize(("pickled", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_file_of_tensors_needs_is_refused(pickled, message):
    with pytest.raises(RefusedPickleError, match=message):
        interpret(pickled)


def test_what_the_refused_ones_are_made_of_is_good():
    parts = mapping(a=tensor([1], [1]), b=numpy_array([1], floats(1)), c=number(2**63 - 1), d=metadata_of_a_module())
    pickled = program(parts.replace(mapping() + b"b", mapping(_metadata=b"}") + b"b"))

    assert interpret(pickled) == {
        "a": TensorSpec("float32", (1,), "data/0", 4),
        "b": ArraySpec("float32", (1,)),
        "c": 2**63 - 1,
        "d": {},
    }


GOOD = program(
    mapping(
        a=tensor([2, 2], [2, 1], elements=6, offset=1),
        b=numpy_array([2], floats(1, 2)),
        c=call("numpy._core.multiarray.scalar", numpy_dtype(), latin(floats(3))),
        d=b"](" + number(1) + number(2.5) + text("x") + b"e",
    )
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.integers(0, len(GOOD)).map(lambda end: GOOD[:end])
    | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=3)).map(
        lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + len(change[1]) :]
    )
    | st.lists(st.sampled_from([bytes([code]) for code in b"()}]NQRbtuaseq\x85\x86\x88."]), max_size=30).map(b"".join)
)
def test_any_bytes_are_plain_values_or_a_refusal(pickled):
    try:
        value = interpret(pickled)
    except RefusedPickleError:
        return
    assert value is None or isinstance(value, dict | list | tuple | str | int | float | TensorSpec | ArraySpec)
