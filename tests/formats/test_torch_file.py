from __future__ import annotations

import math
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pt_files import (
    FOLDER,
    bits,
    caa,
    call,
    described,
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
    sae,
    saved,
    tensor,
    text,
    transfer_map,
    transferred,
    with_directory,
    with_member_inside,
    with_pickle,
    write_archive,
    write_zip,
)

from steer_eval.errors import FormatError, NotFiniteError, SteerEvalError
from steer_eval.formats.torch_file import (
    MAX_DEPTH,
    MAX_FILE_BYTES,
    MAX_PICKLE_BYTES,
    MAX_TENSORS,
    MAX_TEXT,
    MAX_VALUES,
    read_header,
    read_torch,
)
from steer_eval.formats.zip_records import MAX_MEMBERS

TENSOR_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
ARRAY_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def same(first: object, second: object) -> bool:
    """Whether two values are equal, to the bit."""
    if isinstance(first, torch.Tensor | np.ndarray | np.generic):
        return described(first) == described(second) and bits(first) == bits(second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


def assert_read(path: Path, value: object) -> None:
    """Check a file against what was saved, and against `torch.load` without any restriction."""
    trusted = torch.load(path, weights_only=False)
    assert same(trusted, value)
    file = read_torch(path)
    assert same(file.content, value)
    assert file.header == described(trusted)
    assert read_header(path) == described(value)


SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TENSORS = st.builds(
    lambda dtype, shape, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(
        getattr(torch, dtype)
    ),
    st.sampled_from(TENSOR_DTYPES),
    SHAPES,
    st.integers(0, 99),
)
# numpy writes an array without elements through a function that no array with elements needs.
ARRAYS = st.builds(
    lambda dtype, shape, order: np.arange(math.prod(shape)).reshape(shape).astype(dtype, order=order),
    st.sampled_from(ARRAY_DTYPES),
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    st.sampled_from("CF"),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
VALUES = st.recursive(
    SCALARS | TENSORS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4))
def test_what_torch_saves_is_read_as_torch_loads_it(value):
    with TemporaryDirectory() as folder:
        assert_read(saved(Path(folder) / "x.pt", value), value)


@pytest.mark.parametrize("dtype", TENSOR_DTYPES)
def test_every_bit_of_a_tensor_survives(tmp_path, dtype):
    # 0, 1, 0, 1, ...: all that a bool may hold; else any bytes.
    content = torch.arange(1024).remainder(2 if dtype == "bool" else 251).to(torch.uint8)
    value = {"x": content.view(getattr(torch, dtype)).reshape(2, -1)}

    assert_read(saved(tmp_path / "x.pt", value), value)


@pytest.mark.parametrize("dtype", ARRAY_DTYPES)
def test_every_bit_of_an_array_survives(tmp_path, dtype):
    content = (np.arange(1024) % (2 if dtype == "bool" else 251)).astype(np.uint8)
    value = {"x": content.view(dtype).reshape(2, -1), "one": content.view(dtype)[:1].reshape(())}

    assert_read(saved(tmp_path / "x.pt", value), value)


WIDE = torch.arange(24.0).reshape(4, 6)
ACCEPTED = {
    "vector": caa(),
    "half precision": caa(dtype=torch.float16),
    "bfloat16": caa(dtype=torch.bfloat16),
    "transferred": transferred(),
    "transfer map": transfer_map(),
    "sae": sae(),
    "nothing": {},
    "transposed": {"x": WIDE.T},
    "view into a larger storage": {"x": WIDE[1:3, ::2]},
    "two views of one storage": {"x": WIDE[0], "y": WIDE[:, 0]},
    "no elements": {"x": torch.zeros(0, 3)},
    "no dimensions": {"x": torch.tensor(1.5)},
    "number as key": {14: torch.ones(2), "15": 1},
    "Fortran order": {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
    "settings with a dtype": {"config": {"dtype": "float32", "shape": "wide"}, "other": {"shape": [3], "dtype": None}},
    "arrays in tuples": {"x": (np.ones(2), [np.zeros(1)], ((np.ones(1),),))},
}


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_what_studies_need_is_read(tmp_path, value):
    assert_read(saved(tmp_path / "x.pt", value), value)


def test_the_state_of_a_module_is_read_with_its_metadata(tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    assert state._metadata
    path = saved(tmp_path / "x.pt", {"state_dict": state})

    assert read_header(path) == {"state_dict": described(state)}
    assert same(dict(read_torch(path).content["state_dict"]), dict(state))


def test_parameters_are_tensors(tmp_path):
    values = torch.nn.Parameter(torch.arange(4.0))
    path = saved(tmp_path / "x.pt", {"x": values, "y": torch.ones(2, requires_grad=True)})

    assert read_header(path) == {"x": described(values), "y": {"dtype": "float32", "shape": [2]}}
    assert bits(read_torch(path).content["x"]) == bits(values)


@pytest.mark.parametrize("value", [torch.arange(3.0), [1, torch.ones(2)], "text", None, 3], ids=repr)
def test_what_is_no_dict_stands_under_the_empty_key(tmp_path, value):
    path = saved(tmp_path / "x.pt", value)

    assert read_header(path) == {"": described(value)}
    assert same(read_torch(path).content, {"": value})


@pytest.mark.parametrize("key", ["collections", "ordered"])
def test_an_ordered_dict_is_a_dict(tmp_path, key):
    value = OrderedDict({key: 1, "x": torch.ones(2)})

    assert read_header(saved(tmp_path / "x.pt", value)) == described(value)


def test_numpy_1_names_are_read_as_those_of_numpy_2(tmp_path):
    value = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "alpha": np.float64(2.5)}
    path = with_pickle(saved(tmp_path / "x.pt", value), b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path) as archive:
        assert b"numpy._core" not in archive.read("x/data.pkl")

    file = read_torch(path)
    assert same(file.content, value)
    assert file.header == {"W": {"dtype": "float32", "shape": [2, 3]}, "alpha": 2.5}


@pytest.mark.parametrize("scalar", [np.float32(0.1), np.float64(0.1), np.float16(0.5), np.int64(-3), np.bool_(True)])
def test_a_numpy_scalar_is_a_plain_number_in_the_header(tmp_path, scalar):
    header = read_torch(saved(tmp_path / "x.pt", {"x": scalar})).header

    assert header == {"x": scalar.item()}
    assert type(header["x"]) is type(scalar.item())


def test_a_header_is_read_without_torch_and_numpy(tmp_path):
    saved(tmp_path / "x.pt", {**transfer_map(), "vector": torch.ones(3)})
    code = (
        "import sys; from pathlib import Path; from steer_eval.formats.torch_file import read_header;"
        f"print(read_header(Path({str(tmp_path / 'x.pt')!r}))['vector']);"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "{'dtype': 'float32', 'shape': [3]}", done.stderr
    assert done.returncode == 0, done.stderr


def test_the_published_files_are_read(upstream):
    files = sorted((upstream / "model" / "vectors").glob("*.pt"))
    assert len(files) == 14
    for file in files:
        assert_read(file, torch.load(file, weights_only=False))


# Pickles that run something where they are unpickled; each makes the file `marker`.
RUNS = {
    "os.system": lambda marker: call("os.system", text(f"touch {marker}")),
    "posix.system": lambda marker: call("posix.system", text(f"touch {marker}")),
    "eval": lambda marker: call("builtins.eval", text(f"open({marker!r}, 'w')")),
    "eval of Python 2": lambda marker: call("__builtin__.eval", text(f"open({marker!r}, 'w')")),
    "exec": lambda marker: call("builtins.exec", text(f"open({marker!r}, 'w')")),
    "open": lambda marker: call("io.open", text(marker), text("w")),
    "Popen": lambda marker: call("subprocess.check_call", row(text("touch"), text(marker))),
    "object": lambda marker: b"(" + text(f"touch {marker}") + b"ios\nsystem\n",
    "stack": lambda marker: text("os") + text("system") + b"\x93" + row(text(f"touch {marker}")) + b"R",
    "as state": lambda marker: numpy_dtype(rest=b"N" * 4 + call("io.open", text(marker), text("w")) + number(0)),
    "as key": lambda marker: b"}" + call("io.open", text(marker), text("w")) + b"Ns",
    "after a good dict": lambda marker: call("io.open", text(marker), text("w")) + b"0" + mapping(),
}


@pytest.mark.parametrize("instructions", RUNS.values(), ids=RUNS)
def test_a_refused_pickle_never_runs(tmp_path, instructions):
    marker = tmp_path / "marker"
    pickled = program(b"}" + text("value") + instructions(str(marker)) + b"s")
    path = write_archive(tmp_path / "x.pt", pickled)

    for read in (read_header, read_torch):
        with pytest.raises(FormatError, match="refused"):
            read(path)
        assert not marker.exists()

    # What is refused does run where pickles are trusted.
    with suppress(TypeError, ValueError):
        pickle.loads(pickled)  # noqa: S301
    assert marker.exists()


class _Reduced:
    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> object:
        return self.reduced


class _Tensor(torch.Tensor):
    pass


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else 1


def _own_child() -> dict[str, object]:
    value: dict[str, object] = {}
    value["value"] = value
    return value


def _conjugated() -> torch.Tensor:
    return torch.view_as_complex(torch.ones(4, 2)).conj().imag


NOT_SAVED = {
    "reduced": (lambda: _Reduced(eval, "1 + 1"), "builtin__.eval"),
    "set": (lambda: {1, 2}, "set"),
    "bytes": (lambda: b"abc", "bytes"),
    "complex number": (lambda: 1j, "complex"),
    "device": (lambda: torch.device("cpu"), "torch.device"),
    "dtype": (lambda: torch.float32, "torch.float32"),
    "size": (lambda: torch.ones(2).size(), "torch.Size"),
    "numpy dtype": (lambda: np.dtype("f4"), "class or storage"),
    "path": (lambda: Path("x"), "pathlib"),
    "module": (lambda: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "subclass": (lambda: torch.ones(2).as_subclass(_Tensor), "_rebuild_from_type_v2"),
    "complex tensor": (lambda: torch.ones(2, dtype=torch.complex64), "ComplexFloatStorage"),
    "eight bits": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "_rebuild_tensor_v3"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
    "meta": (lambda: torch.ones(2, device="meta"), "_rebuild_meta_tensor_no_storage"),
    "negated view": (_conjugated, "more than dtype, shape and values"),
    "expanded": (lambda: torch.ones(1).expand(1000), "shape \\[1000\\] does not fit its storage of 1 elements"),
    "expanded rows": (lambda: torch.ones(3).expand(5, 3), "does not fit"),
    "nine dimensions": (lambda: torch.ones([1] * 9), "at most 8"),
    "object array": (lambda: np.array([1, None]), "plain number type"),
    "text array": (lambda: np.array(["a"]), "plain number type"),
    "date array": (lambda: np.array(["2026-01-01"], dtype="M8[D]"), "plain number type"),
    "complex array": (lambda: np.ones(2, np.complex64), "plain number type"),
    "structured array": (lambda: np.zeros(2, [("a", "f4")]), "plain number type"),
    "masked array": (lambda: np.ma.ones(2), "numpy.ma"),
    "big-endian array": (lambda: np.arange(4, dtype=">f4"), "not little-endian"),
    "integer of 64 bits": (lambda: 2**63, "63 bits"),
    "half a character": (lambda: "\ud800", "surrogate"),
    "its own child": (_own_child, "nested too deeply"),
    "too deep": (lambda: nested(MAX_DEPTH), "nested too deeply"),
    "too many values": (lambda: list(range(MAX_VALUES)), "too many"),
    "too many by repetition": (lambda: [[[[0] * 12] * 12] * 12] * 12, "too many"),
    "too many tensors": (lambda: [torch.ones(1)] * (MAX_TENSORS + 1), "more than 1024 tensors"),
    "description of a tensor": (lambda: {"dtype": "float32", "shape": [3]}, "would pass for a tensor"),
    "description with more": (lambda: [{"dtype": "float32", "shape": (3,), "x": 1}], "would pass for a tensor"),
    "too much text": (lambda: "x" * (MAX_TEXT + 1), "more than 1048576 characters"),
    "too much text by repetition": (lambda: {"x" * 1000: ["x" * 1000] * 1050}, "more than 1048576 characters"),
    "number and its text as keys": (lambda: {1: "a", "1": "b"}, "number and its text"),
}


@pytest.mark.parametrize(("make", "message"), NOT_SAVED.values(), ids=NOT_SAVED)
def test_what_torch_saves_and_no_study_needs_is_refused(tmp_path, make, message):
    path = saved(tmp_path / "x.pt", {"value": make()})

    for read in (read_header, read_torch):
        with pytest.raises(FormatError, match=f"model/x.pt: data.pkl: the file is refused: .*{message}") as caught:
            read(path, name="model/x.pt")
        assert "safetensors" in caught.value.fix


def test_the_limits_themselves_are_read(tmp_path):
    value = {
        "deep": nested(MAX_DEPTH - 1),
        "tensors": [torch.ones(1)] * MAX_TENSORS,
        "values": list(range(MAX_VALUES - MAX_TENSORS - MAX_DEPTH - 4)),
    }

    assert read_header(saved(tmp_path / "x.pt", value)) == described(value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_another_pickle_protocol_is_refused(tmp_path, protocol):
    path = saved(tmp_path / "x.pt", caa(), pickle_protocol=protocol)

    with pytest.raises(FormatError, match=f"protocol {protocol}") as caught:
        read_header(path)

    assert caught.value.fix == "save it again with today's torch.save and its default protocol"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_from_before_the_archives_is_told_how_to_become_one(tmp_path, protocol):
    options = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
    path = saved(tmp_path / "x.pt", caa(), **options)

    with pytest.raises(FormatError, match=r"saved by an old torch\.save, not as a zip archive") as caught:
        read_header(path)

    assert caught.value.fix == "save it again with today's torch.save and its default protocol"


NAN, INFINITY = math.nan, math.inf
NOT_FINITE = {
    "norm": ({"norm": NAN}, "norm", "nan"),
    "nested": ({"a": {"b": [1.0, (2.0, -INFINITY)]}}, "a.b[1][1]", "-inf"),
    "number as key": ({14: {"norm": INFINITY}}, "14.norm", "inf"),
    "numpy scalar": ({"x": 1, "alpha": np.float64(NAN)}, "alpha", "nan"),
    "short numpy scalar": ({"x": 1, "alpha": np.float16(-INFINITY)}, "alpha", "-inf"),
}


@pytest.mark.parametrize(("value", "where", "observed"), NOT_FINITE.values(), ids=NOT_FINITE)
def test_a_number_that_is_none_is_named_with_its_key(tmp_path, value, where, observed):
    with pytest.raises(NotFiniteError) as caught:
        read_torch(saved(tmp_path / "x.pt", value), name="model/x.pt")

    assert (caught.value.file, caught.value.where, caught.value.observed) == ("model/x.pt", where, observed)
    assert "save it finite" in caught.value.fix


ONE = dict_of(tensor([2], [1]))
RECORD = floats(1, 2)


def damaged(change):
    """A maker of files: a good archive, and a change to its bytes."""

    def make(path: Path) -> None:
        write_archive(path, ONE, RECORD)
        path.write_bytes(change(path.read_bytes()))

    return make


def archive(*records: bytes, pickled: bytes = ONE, **options):
    return lambda path: write_archive(path, pickled, *records, **options)


def junk(name: str):
    return archive(RECORD, more=[(name, b"x")])


def directory(name: str, **fields: int):
    return lambda path: with_directory(write_archive(path, ONE, RECORD), name, **fields)


def many_members(path: Path) -> None:
    write_archive(path, ONE, *[RECORD] * (MAX_MEMBERS - 2))


def large_pickle(path: Path) -> None:
    """An archive with a pickle beyond the limit, as a hole in the file."""
    size = MAX_PICKLE_BYTES + 1
    write_zip(path, [(f"{FOLDER}/version", b"3\n"), (f"{FOLDER}/data.pkl", b"")])
    content = with_directory(path, "data.pkl", size=size, compressed=size).read_bytes()
    start = content.index(b"PK\1\2")
    with path.open("wb") as file:
        file.write(content[:start])
        file.seek(start + size)
        file.write(content[start:-6] + struct.pack("<IH", start + size, 0))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


BAD_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "not a PyTorch file"),
    "text": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "not a PyTorch file"),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps({}, protocol=2)), "bare pickle"),
    "bare pickle of protocol 5": (lambda path: path.write_bytes(pickle.dumps({}, protocol=5)), "bare pickle"),
    "before the archives": (
        lambda path: saved(path, {"x": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "saved by an old torch.save",
    ),
    "TorchScript": (
        lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
        "code/__torch__.* is compressed",
    ),
    "no members": (lambda path: write_zip(path, []), "0 members"),
    "too many members": (many_members, f"{MAX_MEMBERS + 1} members"),
    "version of the future": (archive(RECORD, version=b"9999"), "the file is refused: "),
    "pickle too large": (large_pickle, "data.pkl: the pickle has more than"),
    "too large": (sparse, "4294967297 bytes, more than"),
    "no pickle": (lambda path: write_zip(path, [(f"{FOLDER}/version", b"3\n")]), "no data.pkl"),
    "no version": (archive(RECORD, version=None), "no version"),
    "version that is no number": (archive(RECORD, version=b"three"), "version is no number"),
    "comment": (archive(RECORD, comment=b"hello"), "not a PyTorch file"),
    "something before": (damaged(lambda content: b"\x7fELF" + content), "not where its end says"),
    "something behind": (damaged(lambda content: content + b"more"), "not a PyTorch file"),
    "compressed": (archive(RECORD, deflate=True), "compressed"),
    "encrypted": (directory("data/0", flags=1), "compressed or encrypted"),
    "big-endian": (archive(RECORD, byteorder=b"big"), "byteorder: the tensors are not little-endian"),
    "byte order with more": (archive(RECORD, byteorder=b"littlebig"), "not little-endian"),
    "two folders": (junk("other/data/1"), "no part of a tensor file"),
    "no folder": (junk("data.pkl"), "no part of a tensor file"),
    "code": (junk(f"{FOLDER}/code/__torch__.py"), "code/__torch__.py.* no part of a tensor file"),
    "constants": (junk(f"{FOLDER}/constants.pkl"), "no part of a tensor file"),
    "path out of the archive": (junk(f"{FOLDER}/data/../../x"), "no part of a tensor file"),
    "absolute path": (junk("/data/1"), "no part of a tensor file"),
    "record that is no number": (junk(f"{FOLDER}/data/x"), "no part of a tensor file"),
    "member twice": (junk(f"{FOLDER}/data/0"), "overlap, stand twice"),
    "member in another": (with_member_inside, "overlap, stand twice"),
    "two members at one place": (directory("data/0", offset=0), "not the one in the directory"),
    "member beyond the file": (directory("data/0", size=2**31, compressed=2**31), "beyond the file"),
    "member shorter than it is": (directory("data/0", size=4, compressed=4), "of 8 bytes, which is 4"),
    "other local name": (
        damaged(lambda content: content.replace(b"archive/data/0", b"archive/data/9", 1)),
        "not the one in the directory",
    ),
    "no local header": (damaged(lambda content: b"PK\3\5" + content[4:]), "not the one in the directory"),
    "cut short": (damaged(lambda content: content[:-30]), "not a PyTorch file"),
    "cut to its end": (damaged(lambda content: content[-22:]), "not where its end says"),
    "not aligned": (archive(RECORD, align=1), "not aligned"),
    "record absent": (archive(), "x.pt: value: the tensor needs a record data/0 of 8 bytes, which is absent"),
    "record of metadata absent": (
        archive(
            pickled=program(
                named("collections.OrderedDict") + b")R" + mapping(_metadata=mapping(x=tensor([2], [1]))) + b"b"
            )
        ),
        "x.pt: data.pkl: a tensor needs a record data/0 of 8 bytes, which is absent",
    ),
    "record too short": (archive(RECORD[:-1]), "which is 7 bytes long"),
    "record too long": (archive(RECORD + b"\0"), "which is 9 bytes long"),
    "record of another number": (
        archive(RECORD, pickled=dict_of(tensor([2], [1], record=text("00")))),
        "data/00 of 8 bytes, which is absent",
    ),
    "storage of exabytes": (
        archive(RECORD, pickled=dict_of(tensor([2], [1], elements=2**61))),
        "which is 8 bytes long",
    ),
    "folder": (Path.mkdir, "can't be read"),
    "absent": (Path.exists, "the file is absent"),
}


@pytest.mark.parametrize(("make", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(tmp_path, make, message):
    make(tmp_path / "x.pt")

    with pytest.raises(FormatError, match=message) as caught:
        read_torch(tmp_path / "x.pt", name="model/x.pt")

    assert caught.value.file == "model/x.pt"
    assert str(caught.value).startswith("model/x.pt: ")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("byteorder", [b"little", None], ids=repr)
def test_the_archive_that_the_bad_ones_are_made_of_is_good(tmp_path, byteorder):
    path = write_archive(tmp_path / "x.pt", ONE, RECORD, byteorder=byteorder)

    assert same(read_torch(path).content, {"value": torch.tensor([1.0, 2.0])})


@pytest.mark.parametrize("location", ["cuda:0", "mps", "meta", "nowhere"])
def test_tensors_of_any_device_come_to_the_cpu(tmp_path, location):
    path = write_archive(tmp_path / "x.pt", dict_of(tensor([2], [1], location=location)), RECORD)

    assert same(read_torch(path).content, {"value": torch.tensor([1.0, 2.0])})


MIXED = program(
    mapping(
        a=tensor([2, 2], [2, 1], elements=6, offset=1),
        b=numpy_array([2], floats(1, 2)),
        c=call("numpy._core.multiarray.scalar", numpy_dtype(), latin(floats(3))),
        d=call("torch._utils._rebuild_parameter", tensor([6], [1]), b"\x88", named("collections.OrderedDict") + b")R"),
        e=b"](" + number(1) + number(2.5) + text("x") + b"e",
    )
)


def changed(content: bytes):
    """Content with a few bytes replaced, or cut off."""
    return st.integers(0, len(content)).map(lambda end: content[:end]) | st.tuples(
        st.integers(0, len(content) - 1), st.binary(min_size=1, max_size=3)
    ).map(lambda change: content[: change[0]] + change[1] + content[change[0] + len(change[1]) :])


def assert_read_or_refused(path: Path) -> None:
    try:
        file = read_torch(path)
    except FormatError:
        return
    # Numbers of numpy are plain ones in the header, and keys texts.
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.content.items()}
    assert file.header == described(plain)


@settings(max_examples=200, deadline=None)
@given(changed(MIXED))
def test_a_damaged_pickle_is_read_as_torch_reads_it_or_refused(pickled):
    with TemporaryDirectory() as folder:
        assert_read_or_refused(write_archive(Path(folder) / "x.pt", pickled, floats(*range(6))))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_read_as_torch_reads_it_or_refused(data):
    with TemporaryDirectory() as folder:
        path = write_archive(Path(folder) / "x.pt", MIXED, floats(*range(6)))
        path.write_bytes(data.draw(changed(path.read_bytes())))
        assert_read_or_refused(path)


def test_an_error_is_one_that_the_user_can_mend(tmp_path):
    with pytest.raises(SteerEvalError) as caught:
        read_torch(saved(tmp_path / "x.pt", {"x": {1}}))

    assert str(tmp_path / "x.pt") in caught.value.message
    assert caught.value.fix
