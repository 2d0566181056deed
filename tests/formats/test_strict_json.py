from __future__ import annotations

import json
import math
import tracemalloc
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.atomic import write_text
from steer_eval.formats.strict_json import (
    MAX_VALUES,
    dumps,
    parse,
    read_json,
    read_jsonl,
    scan_json,
    scan_jsonl,
    write_json,
    write_jsonl,
)

GOOD = b'{"scenario": "a"}\n'

BAD_LINES = {
    "nan": (b'{"scenario": "a", "score": NaN}', "NaN is not JSON"),
    "infinity": (b'{"scenario": "a", "score": -Infinity}', "-Infinity is not JSON"),
    "overflow": (b'{"scenario": "a", "score": 1e999}', "1e999 is too large"),
    "long integer": (b'{"scenario": "a", "score": ' + b"9" * 30 + b"}", "integer is too large"),
    "integer beyond Python's limit": (b'{"scenario": "a", "score": ' + b"9" * 5000 + b"}", "integer is too large"),
    "overflow of many digits": (b'{"scenario": "a", "score": ' + b"9" * 5000 + b"e999}", "9 is too large"),
    "duplicate key": (b'{"scenario": "a", "scenario": "b"}', "'scenario' stands twice"),
    "nested duplicate key": (b'{"scenario": "a", "x": {"k": 1, "j": 2, "k": 1}}', "'k' stands twice"),
    "lone surrogate": (b'{"scenario": "\\ud800"}', "lone surrogate"),
    "blank": (b"", "not JSON"),
    "only a carriage return": (b"\r", "not JSON"),
    "torn": (b'{"scenario": "a', "not JSON"),
    "two values": (b'{"scenario": "a"} {"scenario": "b"}', "not JSON"),
    "single quotes": (b"{'scenario': 'a'}", "not JSON"),
    "byte order mark": (b'\xef\xbb\xbf{"scenario": "a"}', "byte order mark"),
    "deep": (b'{"scenario": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "not so deep": (b'{"scenario": ' + b"[" * 60 + b"]" * 60 + b"}", "scenario"),
    "no object": (b"[1]", "not of type 'object'"),
    "schema": (b'{"scenario": 1}', "not of type 'string'"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_does_not_hide_the_others(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_bytes(GOOD + line + b"\n" + GOOD)

    first, bad, last = scan_jsonl(tmp_path / "rows.jsonl", schema="eval_prompt", name="rows.jsonl")

    assert isinstance(bad, FormatError)
    assert bad.file == "rows.jsonl"
    assert bad.where.split(":")[0] == "line 2"
    assert message in str(bad)
    assert len(str(bad)) < 400
    assert (first.line, last.line) == (1, 3)
    with pytest.raises(FormatError, match="line 2"):
        read_jsonl(tmp_path / "rows.jsonl", schema="eval_prompt")


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        (b"", "line 1", "no rows"),
        (b"\n\n", "line 1", "no rows"),
        (GOOD + b'{"scenario": "\xff"}\n', f"byte {len(GOOD) + 14}", "not UTF-8"),
        (b'{"scenario": "a"}\n{"scenario": "b"', "line 2", "not JSON"),
        (GOOD + b"\n", "line 2", "not JSON"),
    ],
    ids=["empty", "blank", "not UTF-8", "torn last line", "blank last line"],
)
def test_a_bad_file_is_named(tmp_path, content, where, message):
    (tmp_path / "rows.jsonl").write_bytes(content)

    with pytest.raises(FormatError, match=message) as caught:
        read_jsonl(tmp_path / "rows.jsonl", schema="eval_prompt", name="data/rows.jsonl")

    assert (caught.value.file, caught.value.where) == ("data/rows.jsonl", where)


@pytest.mark.parametrize(
    ("place", "message"),
    [("absent", "absent"), (".", "can't be read"), ("file/below", "can't be read"), ("x" * 300, "can't be read")],
    ids=["absent", "folder", "below a file", "name too long"],
)
def test_what_is_no_file_is_named(tmp_path, place, message):
    (tmp_path / "file").write_text("{}")

    with pytest.raises(FormatError, match=message) as caught:
        read_json(tmp_path / place, name="x.json")

    assert caught.value.file == "x.json"


def test_windows_line_ends_are_white_space(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"scenario": "a"}\r\n{"scenario": "b\\r\\n"}\r\n')

    values = [row.value["scenario"] for row in read_jsonl(tmp_path / "rows.jsonl", schema="eval_prompt")]

    assert values == ["a", "b\r\n"]


def test_a_last_line_without_its_end_counts_if_it_is_whole(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(GOOD + GOOD.strip())

    assert len(read_jsonl(tmp_path / "rows.jsonl", schema="eval_prompt")) == 2


def test_finding_a_duplicate_takes_linear_time():
    pairs = ",".join(f'"k{index}":1' for index in range(200_000))

    with pytest.raises(FormatError, match="'k7' stands twice"):
        parse(f'{{{pairs},"k7":2}}', "x.json", "")


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
PROMPTS = st.lists(
    st.fixed_dictionaries({"scenario": TEXT.filter(bool)}, optional={"category": TEXT, "score": st.integers(-9, 9)}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(PROMPTS)
@example([{"scenario": "line\u2028separator\u2029\x85\x0b\x0c\x1c\n\r\n"}, {"scenario": "\u2028"}])
def test_rows_are_read_as_they_were_written(prompts):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sub" / "rows.jsonl"
        write_jsonl(path, prompts)
        rows = read_jsonl(path, schema="eval_prompt")

        assert [row.value for row in rows] == prompts
        assert [row.line for row in rows] == list(range(1, len(prompts) + 1))
        assert [list(row.value) for row in rows] == [list(prompt) for prompt in prompts]
        assert path.read_bytes().count(b"\n") == len(prompts)


@settings(max_examples=60, deadline=None)
@given(st.recursive(SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=12))
def test_one_value_survives_and_json_agrees(value):
    text = dumps(value)

    assert "\n" not in text
    assert parse(text, "x", "") == value == json.loads(text)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text('{}[]",:0123456789.eE+-\\ud8NaInfty \n', max_size=60).map(str.encode)
    | TEXT.map(lambda text: json.dumps({"scenario": text}).encode())
)
def test_arbitrary_bytes_are_rows_or_format_errors(content):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(content)
        items = list(scan_jsonl(path, schema="eval_prompt"))

        assert items
        assert all(isinstance(item, FormatError) or item.value["scenario"] for item in items)
        with suppress(FormatError):
            read_json(path)


DOCUMENT = """{
  "NaN": 1, "b": [1, NaN, {"c": -Infinity}],
  "text": "NaN, \\"Infinity\\" and \\ud83d\\ude00",

  "d": {"Infinity": Infinity}, "e": null}
"""


def test_numbers_that_are_none_are_all_named_and_the_rest_is_read(tmp_path):
    (tmp_path / "x.json").write_text(DOCUMENT)
    value, errors = scan_json(tmp_path / "x.json", name="data/x.json")

    assert value == {
        "NaN": 1,
        "b": [1, None, {"c": None}],
        "text": 'NaN, "Infinity" and 😀',
        "d": {"Infinity": None},
        "e": None,
    }
    assert [(error.file, error.where, error.observed) for error in errors] == [
        ("data/x.json", "line 2: b[1]", "NaN"),
        ("data/x.json", "line 2: b[2].c", "-Infinity"),
        ("data/x.json", "line 5: d.Infinity", "Infinity"),
    ]
    assert all(isinstance(error, NotFiniteError) and error.fix.startswith("write null where") for error in errors)


@pytest.mark.parametrize(
    "text",
    [
        f"[{'[],' * MAX_VALUES}[]]",
        f"[{'{},' * (MAX_VALUES // 2)}{'1,' * (MAX_VALUES // 2)}1]",
        f"[{','.join(['1'] * MAX_VALUES)}]",
        "[" * (MAX_VALUES + 1),
    ],
    ids=["lists", "objects", "numbers", "opened only"],
)
def test_too_many_values_are_refused_before_they_are_made(text):
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="more than the 2000000 values"):
            parse(text, "x.json", "")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_of_values_is_read_and_text_counts_once():
    assert len(parse(f"[{','.join(['1'] * (MAX_VALUES - 1))}]", "x.json", "")) == MAX_VALUES - 1
    text = ',[{\\" ' * MAX_VALUES
    assert parse(json.dumps({"scenario": text}), "x.json", "") == {"scenario": text}


@pytest.mark.parametrize("end", ['"', ""], ids=["closed", "open"])
def test_counting_values_takes_linear_time(end):
    with pytest.raises(FormatError, match="not JSON"):
        parse(f'["{chr(92)}",' * MAX_VALUES + end, "x.json", "")


def test_a_byte_order_mark_is_named_with_what_to_do(tmp_path):
    (tmp_path / "x.json").write_text("{}", encoding="utf-8-sig")

    with pytest.raises(FormatError, match="line 1: not JSON: the text begins with a byte order mark") as caught:
        read_json(tmp_path / "x.json", name="x.json")

    assert caught.value.fix == "save it as UTF-8 without a byte order mark"


@pytest.mark.parametrize("text", ["NaN", " -Infinity\n"])
def test_a_document_that_is_no_number_is_null(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    value, [error] = scan_json(tmp_path / "x.json")

    assert value is None
    assert error.observed == text.strip()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b'{"a": NaN', "not JSON"),
        (b'{"a": NaN, "a": 1}', "'a' stands twice"),
        (b'{"a": NaN, "b": 1e999}', "too large"),
        (b'{"a": NaN, "b": "\\ud800"}', "lone surrogate"),
        (b'{"a": NaN, "\\ud800": 1}', "lone surrogate"),
        (b'{"a": +NaN}', "not JSON"),
        (b'{"a": nan}', "not JSON"),
        (b'{"a": NaN, "b": "\xff"}', "not UTF-8"),
        (b"[" * 100_000 + b"NaN" + b"]" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_even_json_with_such_numbers_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)

    with pytest.raises(FormatError, match=f"^data/x.json: .*{message}"):
        scan_json(tmp_path / "x.json", name="data/x.json")


def _places(value: object, where: str = "") -> list[str]:
    """Places of the floats that are no numbers, in the order of the document."""
    if isinstance(value, float) and not math.isfinite(value):
        return [where.lstrip(".")]
    if isinstance(value, dict):
        return [place for key, part in value.items() for place in _places(part, f"{where}.{key}")]
    if isinstance(value, list):
        return [place for index, part in enumerate(value) for place in _places(part, f"{where}[{index}]")]
    return []


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        SCALARS
        | TEXT
        | st.sampled_from([math.nan, math.inf, -math.inf])
        | st.sampled_from(["NaN", '"', "\\", '\\"NaN']),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.just("NaN"), inner, max_size=4),
        max_leaves=12,
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_every_number_that_is_none_is_named_with_its_place(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_bytes(text.encode())
        again, errors = scan_json(path)

    assert [error.where.split(": ", 1)[1] for error in errors] == _places(value)
    for error in errors:
        line = text.split("\n")[int(error.where.split(":")[0].removeprefix("line ")) - 1]
        assert error.observed in line
    assert again == json.loads(text, parse_constant=lambda _: None)


@pytest.mark.parametrize("value", [{"a": math.nan}, {"a": math.inf}, {"a": object()}, {"a": "\ud800"}])
@pytest.mark.parametrize("write", [write_json, lambda path, value: write_jsonl(path, [{"good": 1}, value])])
def test_the_old_file_stays_when_the_new_one_can_not_be_written(tmp_path, value, write):
    path = tmp_path / "table.jsonl"
    write_text(path, "old\n")

    with pytest.raises((ValueError, TypeError)):
        write(path, value)

    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "written", "x\n")

    assert (tmp_path / "written").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_write_that_fails_at_the_end_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()

    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "x\n")

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
