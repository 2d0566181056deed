from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.errors import FormatError
from steer_eval.formats.strict_yaml import parse

BAD_YAML = {
    "bad indentation": ("a:\n   b: x\n  c: y\n", "line 3", "not YAML"),
    "unclosed": ("schema: [1,\n", "line 2", "not YAML"),
    "duplicate key": ("name: x\nother: y\nname: z\n", "line 3", "'name' stands twice"),
    "nested duplicate key": ("models:\n  a: 1\n  b: 2\n  a: 3\n", "line 4", "'a' stands twice"),
    "key that is no string": ("models:\n  1: x\n", "line 2", "no string"),
    "alias": ("a: &a [1, 2]\nb: *a\n", "line 2", "alias"),
    "merge": ("a: {b: 1}\nc:\n  <<: {b: 2}\n", "line 3", "no string"),
    "object": ("a: !!python/object/apply:os.system [true]\n", "line 1", "not YAML"),
    "not finite": ("a:\n - .nan\n", "line 2", "not finite"),
    "infinite": ("a: -.inf\n", "line 1", "not finite"),
    "too large": ("a: 0x" + "f" * 9000, "line 1", "too large"),
    "more digits than Python reads": ("a: " + "9" * 9000, "", "not YAML"),
    "impossible date": ("a: 2024-99-99\n", "", "not YAML"),
    "impossible tags": ("a: !!int x\n", "", "not YAML"),
    "deep": ("[" * 5000, "", "not YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2", "not YAML"),
    "control character": ("a: \x07\n", "", "not YAML"),
}


@pytest.mark.parametrize(("text", "where", "message"), BAD_YAML.values(), ids=BAD_YAML)
def test_bad_yaml_is_named_with_its_line(text, where, message):
    with pytest.raises(FormatError) as caught:
        parse(text, "repo/study.yaml")

    assert caught.value.file == "repo/study.yaml"
    assert caught.value.where.startswith(where)
    assert message in str(caught.value)


def test_aliases_can_not_blow_up_a_message():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]

    with pytest.raises(FormatError, match="alias") as caught:
        parse("\n".join(lines), "study.yaml")

    assert len(str(caught.value)) < 200


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text("abc\u00e9 ", max_size=4), parts, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON)
def test_what_json_can_say_is_read_as_it_was_written(value):
    written = yaml.safe_dump(value, allow_unicode=True)
    # An object that stands in two places is written as an alias; a round trip through JSON makes two of it.
    assert parse(yaml.safe_dump(json.loads(json.dumps(value))), "x") == value
    assert parse(written, "x") == value


@settings(deadline=None)
@given(st.text("-:?!&*[]{}#'\"|>%@`ab01.~<=\n ", max_size=60))
def test_arbitrary_text_is_strict_yaml_or_a_format_error(text):
    try:
        value = parse(text, "x")
    except FormatError:
        return
    json.dumps(value, allow_nan=False, default=str)
