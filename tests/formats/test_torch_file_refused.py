"""Good archives whose content is refused: what would run, what no study needs, what is no number."""

from __future__ import annotations

import math
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from pt_files import (
    caa,
    call,
    described,
    mapping,
    number,
    numpy_dtype,
    program,
    row,
    saved,
    text,
    write_archive,
)

from steer_eval.errors import FormatError, NotFiniteError, SteerEvalError
from steer_eval.formats.torch_file import (
    MAX_DEPTH,
    MAX_TENSORS,
    MAX_TEXT,
    MAX_VALUES,
    read_header,
    read_torch,
)

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


def test_an_error_is_one_that_the_user_can_mend(tmp_path):
    with pytest.raises(SteerEvalError) as caught:
        read_torch(saved(tmp_path / "x.pt", {"x": {1}}))

    assert str(tmp_path / "x.pt") in caught.value.message
    assert caught.value.fix
