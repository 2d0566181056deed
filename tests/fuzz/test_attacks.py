"""Files that somebody would write on purpose, tried by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fuzz import assemble as a
from steer_eval.errors import FormatError
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.pickle_program import RefusedPickleError, interpret
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import scan_json, scan_jsonl
from steer_eval.formats.strict_yaml import parse as parse_yaml
from steer_eval.formats.torch_file import read_header, read_torch
from steer_eval.formats.transfer import read_transferred_pt

FOUR = np.arange(4, dtype=np.float32).tobytes()
FIELDS = {
    "vector": a.floats("0", 4),
    "norm": a.real(3.7),
    "layer": a.integer(3),
    "model": a.text("lab/tiny"),
    "n_pairs": a.integer(4),
}


def caa(**changes: bytes) -> bytes:
    return a.torch_file(a.mapping({**FIELDS, **changes}), {"0": FOUR})


def refused(tmp_path: Path, content: bytes, *messages: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    for read in (read_header, read_torch, read_caa_pt):
        with pytest.raises(FormatError, match="|".join(messages) or None):
            read(path, name="x.pt")


def test_the_file_that_the_bad_ones_are_made_of_is_good(tmp_path):
    (tmp_path / "x.pt").write_bytes(caa())

    assert read_caa_pt(tmp_path / "x.pt").values.tolist() == [0, 1, 2, 3]
    assert torch.load(tmp_path / "x.pt", weights_only=True)["vector"].tolist() == [0, 1, 2, 3]


# One storage under two types: PyTorch gives both tensors the type that it met first.
TWICE = a.mapping({"a": a.floats("0", 4), "b": a.tensor(a.storage("DoubleStorage", "0", 2), [2])})

PICKLES = {
    "one storage, two types": (TWICE, "two types"),
    "negative bit": (
        a.mapping(
            {**FIELDS, "vector": a.tensor(a.storage("FloatStorage", "0", 4), [4], more=[a.mapping({"neg": a.TRUE})])}
        ),
        "more than dtype, shape and values|gradients",
    ),
    "hooks": (
        a.mapping(
            {**FIELDS, "vector": a.tensor(a.storage("FloatStorage", "0", 4), [4], hooks=a.mapping({"x": a.NONE}))}
        ),
        "more than dtype, shape and values|gradients",
    ),
    "gradient of whole numbers": (
        a.mapping({"v": a.tensor(a.storage("IntStorage", "0", 4), [4], grad=a.TRUE)}),
        "more than dtype, shape and values|gradients",
    ),
    "no element, huge sides": (
        a.mapping({"v": a.tensor(a.storage("FloatStorage", "0", 4), [0, 2**61], [1, 1])}),
        "too long",
    ),
    "no element, sides whose product overflows": (
        a.mapping({"v": a.tensor(a.storage("FloatStorage", "0", 4), [2**40, 2**40, 0], [1, 1, 1])}),
        "too long",
    ),
    "no element, offset beyond the storage": (
        a.mapping({"v": a.tensor(a.storage("FloatStorage", "0", 4), [0], offset=2**60)}),
        "does not fit",
    ),
    "one element, huge stride": (
        a.mapping({"v": a.tensor(a.storage("FloatStorage", "0", 4), [1, 4], [2**61, 1])}),
        "too long",
    ),
    "key twice": (b"}(" + (a.text("v") + a.floats("0", 4)) * 2 + b"u", "twice"),
    "tensor that is not in the value, of an absent record": (
        # A module's metadata may hold anything; what is built there is built all the same.
        a.mapping({"v": a.floats("0", 4)}, new=a.ORDERED_DICT) + a.mapping({"_metadata": a.floats("7", 2**40)}) + b"b",
        "needs a record data/7",
    ),
    "attribute of an ordered dict": (a.ORDERED_DICT + a.mapping({"pop": a.NONE}) + b"b", "attributes"),
    "lone surrogate": (a.mapping({**FIELDS, "model": a.text("\ud800")}), "surrogate"),
    "lone surrogate as a key": (a.mapping({**FIELDS, "\udfff": a.NONE}), "surrogate"),
    "integer of 2000 bits": (a.mapping({**FIELDS, "norm": a.integer(2**2000)}), "integer"),
    "bytes beyond latin-1": (
        a.mapping({"v": a.array(a.dtype("i1"), [1], a.encoded("\u20ac"))}),
        "latin-1",
    ),
    "dtype with fields": (
        a.mapping(
            {
                "v": a.array(
                    a.dtype(
                        "f8",
                        state=a.several(
                            a.integer(3),
                            a.text("<"),
                            a.NONE,
                            a.several(a.text("x")),
                            a.mapping({}),
                            a.integer(-1),
                            a.integer(-1),
                            a.integer(0),
                        ),
                    ),
                    [1],
                    a.encoded("\0" * 8),
                )
            }
        ),
        "dtype",
    ),
    "dtype whose flags say that its items are objects": (
        a.mapping(
            {
                "v": a.array(
                    a.dtype(
                        "i8",
                        state=a.several(
                            a.integer(3),
                            a.text("<"),
                            a.NONE,
                            a.NONE,
                            a.NONE,
                            a.integer(-1),
                            a.integer(-1),
                            a.integer(63),
                        ),
                    ),
                    [1],
                    a.encoded("\x41" * 8),
                )
            }
        ),
        "dtype",
    ),
    "array state of another version": (
        a.mapping({"v": a.array(a.dtype("f8"), [1], a.encoded("\0" * 8), version=2**40)}),
        "as numpy does it",
    ),
    "list in itself": (b"]" + b"q\0" + b"h\0" + b"a", "nested too deeply"),
    "bytes made many times": (
        a.put(a.name_of("_codecs", "encode"), 0)
        + a.put(a.text("x" * 50_000), 1)
        + a.put(a.text("latin1"), 2)
        + a.several(*[a.get(0) + a.several(a.get(1), a.get(2)) + b"R" for _ in range(50)]),
        "more bytes",
    ),
    "arrays of the same bytes": (
        b"]"
        + a.put(a.encoded("x" * 50_000), 1)[0:0]
        + b"("
        + a.array(a.dtype("i1"), [50_000], a.put(a.encoded("x" * 50_000), 1))
        + a.array(a.dtype("i1"), [50_000], a.get(1)) * 30
        + b"e",
        "more bytes",
    ),
    "text that is repeated": (
        a.mapping({**FIELDS, "model": b"](" + a.put(a.text("x" * 100_000), 9) + a.get(9) * 9000 + b"e"}),
        "text",
    ),
    "keys that are repeated": (
        a.mapping(
            {
                **FIELDS,
                "model": b"]("
                + b"}"
                + a.put(a.text("x" * 100_000), 9)
                + b"Ns"
                + (b"}" + a.get(9) + b"Ns") * 4000
                + b"e",
            }
        ),
        "text",
    ),
}


@pytest.mark.parametrize(("value", "message"), PICKLES.values(), ids=PICKLES)
def test_a_pickle_that_is_no_plain_value_is_refused(tmp_path, value, message):
    refused(tmp_path, a.torch_file(value, {"0": FOUR}), message)


def test_a_tuple_of_arrays_is_read(tmp_path):
    arrays = (np.arange(3.0), np.ones((2, 2), np.float32))
    torch.save({"pair": arrays}, tmp_path / "x.pt")

    file = read_torch(tmp_path / "x.pt")

    assert file.header == {"pair": [{"dtype": "float64", "shape": [3]}, {"dtype": "float32", "shape": [2, 2]}]}
    assert all((one == two).all() for one, two in zip(file.content["pair"], arrays, strict=True))


def two_directories() -> bytes:
    """Python's `zipfile` reads the directory that ends where the end begins, PyTorch the one at the named offset."""
    shown = a.archive(a.members(a.program(a.mapping(FIELDS)), {"0": FOUR}), zip64=False)
    hidden = a.archive(a.members(a.program(a.mapping({**FIELDS, "layer": a.integer(9)})), {"0": FOUR}), zip64=False)
    start = struct.unpack("<I", hidden[-6:-2])[0]
    return hidden[: len(hidden) - 22] + shown[:-22] + hidden[-22 - 0 :] if start else b""


def two_locators() -> bytes:
    """Python's `zipfile` reads the zip64 end right before its locator, PyTorch the one that the locator names."""
    good = a.archive(a.members(a.program(a.mapping(FIELDS)), {"0": FOUR}))
    evil = a.archive(a.members(a.program(a.mapping({**FIELDS, "layer": a.integer(9)})), {"0": FOUR}))
    joined = evil[:-42] + good
    locator = b"PK\6\7" + struct.pack("<IQI", 0, len(evil) - 98, 1)
    return joined[:-42] + locator + joined[-22:]


def replaced(index: int, **changes: object) -> list[a.Member]:
    from dataclasses import replace

    parts = a.members(a.program(a.mapping(FIELDS)), {"0": FOUR})
    parts[index] = replace(parts[index], **changes)
    return parts


def with_attributes(attributes: int) -> bytes:
    """The good file, with attributes of its pickle as a file system has them."""
    content = bytearray(caa())
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 38, attributes)
    return bytes(content)


DEFLATED = zlib.compressobj(9, zlib.DEFLATED, -15)
# Without padding, the numbers follow the names; one byte more or less puts them at an odd address.
UNALIGNED = next(
    content
    for content in (a.archive(replaced(2, extra=b"FB\1\0Z"[:length])) for length in (0, 5))
    if content.index(FOUR) % 2
)
BOMB = DEFLATED.compress(b"\0" * 10**6) + DEFLATED.flush()
GOOD = caa()
ARCHIVES = {
    "two directories": two_directories(),
    "two zip64 ends": two_locators(),
    "bytes before": b"\0" * 64 + GOOD,
    "bytes behind": GOOD + b"\0" * 64,
    "comment": a.archive(a.members(a.program(a.mapping(FIELDS)), {"0": FOUR}), comment=b"hello"),
    "compressed": a.archive(replaced(0, content=BOMB, method=8, size=10**6)),
    "compressed, it says": a.archive(replaced(2, method=8)),
    "larger than its bytes": a.archive(replaced(2, size=2**31)),
    "encrypted": a.archive(replaced(0, flags=1)),
    "two names": a.archive(replaced(2, local_name=b"a/data/1")),
    "same name twice": a.archive([*replaced(0), replaced(0)[0]]),
    "same bytes twice": a.archive([*replaced(0), a.Member(b"a/data/1", b"", offset=0)]),
    "name with a zero byte": a.archive(replaced(2, name=b"a/data/0\0x")),
    "names that differ in their case": a.archive([*replaced(0), a.Member(b"A/data.pkl", a.program(a.mapping({})))]),
    "name outside": a.archive([*replaced(0), a.Member(b"../data/1", b"")]),
    "script": a.archive([*replaced(0), a.Member(b"a/code/x.py", b"")]),
    "script's constants": a.archive([*replaced(0), a.Member(b"a/constants.pkl", a.program(b")"))]),
    "numbers that are not aligned": UNALIGNED,
    "folder that has bytes": with_attributes(0x10),
    "big-endian": a.archive(replaced(1, content=b"big")),
    "long version": a.archive(replaced(3, content=b"9" * 5000)),
    "no version": a.archive(replaced(0)[:3]),
    "no numbers": a.archive(replaced(0)[:2]),
    "directory cut": GOOD[:-100] + GOOD[-98:],
    "bare pickle": a.program(a.mapping(FIELDS)),
    "empty": b"",
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_two_programs_could_read_in_two_ways_is_refused(tmp_path, content):
    refused(tmp_path, content, "")


def test_the_archive_of_an_older_pytorch_is_read(tmp_path):
    (tmp_path / "x.pt").write_bytes(a.archive(replaced(0), zip64=False))

    assert read_caa_pt(tmp_path / "x.pt").layer == 3


def test_a_long_integer_where_a_number_belongs_is_refused(tmp_path):
    names = ("v_ridge", "v_procrustes", "v_random", "v_small_native", "v_large_source")
    value = {name: a.floats("0", 4) for name in names}
    value.update(L_small=a.integer(1), c_small=a.integer(2**1999))
    (tmp_path / "x.pt").write_bytes(a.torch_file(a.mapping(value), {"0": FOUR}))

    with pytest.raises(FormatError, match="integer"):
        read_transferred_pt(tmp_path / "x.pt")


def test_deep_json_does_not_overflow_a_message(tmp_path):
    # Just shallow enough to be parsed: putting it into a message must not run out of stack.
    for depth in range(60, 1000, 47):
        (tmp_path / "x").write_bytes(b'{"scenario": ' + b"[" * depth + b"]" * depth + b"}\n")
        [error] = scan_jsonl(tmp_path / "x", schema="eval_prompt")
        assert isinstance(error, FormatError)
        with pytest.raises(FormatError):
            check(parse_yaml('{"a": ' + "[" * depth + "]" * depth + "}", "x"), "study", file="x")


def test_many_numbers_that_are_none_take_linear_time_and_bounded_memory(tmp_path):
    (tmp_path / "x").write_text("[" + ",\n".join(["NaN"] * 200_000) + "]")

    with pytest.raises(FormatError, match="more than 1000 numbers"):
        scan_json(tmp_path / "x")


def test_many_bad_rows_are_not_all_kept(tmp_path):
    (tmp_path / "x").write_text('{"scenario": "a"}\n' + "x\n" * 200_000)

    rows = list(scan_jsonl(tmp_path / "x", schema="eval_prompt"))

    assert len(rows) < 2000
    assert "not read" in str(rows[-1])


YAML = {
    "a number of many parts": "a: " + ":".join(["1"] * 200_000),
    "a decimal of many parts": "a: " + ":".join(["1"] * 400) + ".0",
    "a lone surrogate": 'a: "\\ud800"',
    "a lone surrogate as a key": '"\\udc00": 1',
    "bytes": "a: !!binary aGVsbG8=",
    "a set": "a: !!set {b, c}",
    "pairs": "a: !!pairs [b: 1]",
    "an ordered map": "a: !!omap [b: 1]",
    "no date that is tagged as one": "a: !!timestamp yesterday",
    "a mapping as a key": "? !!str {a: b}\n: 1",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_yaml_that_says_more_than_json_could_is_refused(text):
    with pytest.raises(FormatError):
        parse_yaml(text, "x.yaml")


def test_a_date_in_yaml_is_its_text():
    assert parse_yaml("a: 2024-01-01\nb: !!timestamp 2024-01-02", "x.yaml") == {"a": "2024-01-01", "b": "2024-01-02"}


@pytest.mark.parametrize("value", [b"K\1", b"(K\1", b"K\1K\2", b"h\7", b"(t" * 2, b"(l", b"0", b"cos\nsystem\n)R"])
def test_what_is_left_over_or_missing_is_refused(value):
    with pytest.raises(RefusedPickleError):
        interpret(a.program(value)[:-1] + (b"" if value == b"K\1" else b"."))
