from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.errors import FormatError
from steer_eval.formats import strict_yaml
from steer_eval.publish.study_names import renamed

NAMES = {"repo": "new/model", "data": "new/model-data", "name": "study.yaml"}


def test_only_the_two_names_change():
    text = "# What it claims\nname: x   # a name\nrepo: old/model # here\n\ndata: 'old/data'\nlist: [1,  2]\n"

    assert renamed(text, **NAMES) == (
        "# What it claims\nname: x   # a name\nrepo: new/model # here\n\ndata: new/model-data\nlist: [1,  2]\n"
    )


def test_names_that_are_right_already_stay_as_they_are_written():
    text = "repo: 'new/model'\ndata: \"new/model-data\"\n"

    assert renamed(text, **NAMES) == text


@pytest.mark.parametrize(
    "text",
    [
        "data: old/data\n",
        "name: x\ndata: |-\n  old/data\nrest: 1\n",
        "data: >-\n  old/data\n",
        "{name: x, data: old/data}\n",
        '{"data": "old/data", "name": "x"}',
        "data: old/data",
        "data:\n  old/data\nrepo:\n  old/model\nname: x\n",
        "name: x\nnested: {data: keep/this, repo: keep/this}\ndata: old/data\n",
    ],
)
def test_whatever_the_style_nothing_else_changes_its_value(text):
    before = strict_yaml.parse(text, "study.yaml")

    after = renamed(text, **NAMES)

    assert strict_yaml.parse(after, "study.yaml") == {**before, "repo": "new/model", "data": "new/model-data"}
    assert renamed(after, **NAMES) == after


WORDS = st.text(st.characters(exclude_categories=["C"], exclude_characters="\x85\xa0\u2028\u2029\ufeff"), max_size=30)


@given(comment=WORDS, description=WORDS, name=st.from_regex(r"[a-z0-9]{1,8}/[a-z0-9._-]{1,8}[a-z0-9]", fullmatch=True))
def test_comments_and_other_values_are_kept_to_the_character(comment, description, name):
    title = json.dumps(description, ensure_ascii=False)
    text = f"# {comment}\ntitle: {title} # {comment}\ndata: old/data # {comment}\n# {comment}\n"

    after = renamed(text, repo=name, data=f"{name}-data", name="study.yaml")

    lines = text.splitlines(keepends=True)
    others = [line for line in after.splitlines(keepends=True) if not line.startswith(("repo:", "data:"))]
    assert others == [line for line in lines if not line.startswith("data:")]


@pytest.mark.parametrize("text", ["- a\n", "data: [", "data: {a: 1, a: 2}\n"])
def test_what_is_no_study_is_refused(text):
    with pytest.raises(FormatError):
        renamed(text, **NAMES)
