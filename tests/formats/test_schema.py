"""Every schema has an example that it accepts and counter-examples that it must reject, by name of the field."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import file_schema_examples
import pytest
import schema_examples
from file_schema_examples import SWEEP_ROW
from jsonschema import Draft202012Validator
from schema_examples import ABSENT
from studies import build

from steer_eval.errors import FormatError
from steer_eval.formats import schema
from steer_eval.resources import folder

EXAMPLES = file_schema_examples.EXAMPLES | schema_examples.EXAMPLES
COUNTER_EXAMPLES = file_schema_examples.COUNTER_EXAMPLES | schema_examples.COUNTER_EXAMPLES
NAMES = sorted(path.name.removesuffix(".schema.json") for path in folder("schemas").iterdir())


def changed(value: Any, place: list[Any], new: Any) -> Any:
    value = deepcopy(value)
    inner = value
    for part in place[:-1]:
        inner = inner[part]
    if new is ABSENT:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return value


def test_no_schema_is_without_example_and_counter_example():
    assert NAMES == sorted(EXAMPLES) == sorted(COUNTER_EXAMPLES)
    assert all(COUNTER_EXAMPLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_2020_12_and_named_like_its_file(name):
    content = json.loads((folder("schemas") / f"{name}.schema.json").read_text(encoding="utf-8"))

    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert content["$id"] == name
    assert content["title"]
    Draft202012Validator.check_schema(content)
    assert schema.load_schema(name) == content


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_accepted(name):
    schema.check(EXAMPLES[name], name, file="x")


@pytest.mark.parametrize(
    ("name", "place", "new", "named"),
    [
        pytest.param(name, *case, id=f"{name}-{index}-{case[2]}")
        for name, cases in COUNTER_EXAMPLES.items()
        for index, case in enumerate(cases)
    ],
)
def test_the_counter_example_is_rejected_and_the_field_named(name, place, new, named):
    with pytest.raises(FormatError) as caught:
        schema.check(changed(EXAMPLES[name], place, new), name, file="some/file", where="line 4")

    assert caught.value.file == "some/file"
    assert caught.value.where.startswith("line 4")
    assert named in str(caught.value)
    assert f"schemas/{name}.schema.json" in caught.value.fix


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, [], "text", 3], ids=repr)
def test_what_is_no_object_is_rejected_everywhere(name, value):
    with pytest.raises(FormatError, match="is not of type 'object'"):
        schema.check(value, name, file="x")


@pytest.mark.parametrize("name", NAMES)
def test_every_required_field_is_required(name):
    for field in schema.load_schema(name)["required"]:
        with pytest.raises(FormatError, match=field):
            schema.check(changed(EXAMPLES[name], [field], ABSENT), name, file="x")


def test_messages_stay_short_and_keep_their_end():
    with pytest.raises(FormatError, match="is not of type 'string'") as caught:
        schema.check({"scenario": ["x" * 10_000]}, "eval_prompt", file="x")

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([0.25] * 2048, "a list of 2048 items is not of type 'object'"),
        ({"scenario": {str(key): key for key in range(99)}}, "an object with 99 keys is not of type 'string'"),
        ({"scenario": [1, 2]}, "[1, 2] is not of type 'string'"),
    ],
    ids=["list", "object", "short list"],
)
def test_a_long_value_is_described(value, said):
    with pytest.raises(FormatError) as caught:
        schema.check(value, "eval_prompt", file="x")

    assert caught.value.reason == said


def test_a_table_that_is_wrong_throughout_is_not_gone_through():
    seen = set()

    class Row(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            seen.add(id(self))
            return super().__contains__(key)

    rows = [Row(prompt_idx=-1, prompt="p", gen="g") for _ in range(10_000)]
    with pytest.raises(FormatError, match="prompt_idx"):
        schema.check({**SWEEP_ROW, "generations": rows}, "sweep_row", file="x")

    assert 0 < len(seen) < 100


def test_what_the_package_writes_satisfies_its_schemas(tmp_path):
    place = build(tmp_path)
    for folder_ in (place.model, place.data):
        schema.check(json.loads((folder_ / "manifest.json").read_text()), "manifest", file="manifest.json")
    schema.check(json.loads((place.data / "environment.json").read_text()), "environment", file="environment.json")
    for line in (place.data / "sweep_tiny.jsonl").read_text().splitlines():
        schema.check(json.loads(line), "sweep_row", file="sweep_tiny.jsonl")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("sweep_qwen_*.jsonl", "sweep_row"),
        ("contrast_pairs.jsonl", "contrast_pair"),
        ("eval_prompts.jsonl", "eval_prompt"),
        ("judge_*_large.jsonl", "judge_row"),
        ("judge_*_small.jsonl", "judge_row"),
        ("judge_*transfer.jsonl", "judge_label_row"),
        ("judge_phase_i.jsonl", "judge_label_row"),
        ("transfer_eval.jsonl", "transfer_row"),
        ("patch_eval.jsonl", "phase_i_row"),
        ("sae_steer_eval.jsonl", "phase_i_row"),
        ("multi_layer_eval.jsonl", "phase_i_row"),
        ("anchor_eval.jsonl", "phase_i_row"),
    ],
)
def test_the_published_form_is_extended_never_renamed(upstream, pattern, name):
    files = sorted((upstream / "dataset").glob(pattern))
    assert files
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            schema.check(json.loads(line), name, file=file.name, where=f"line {number}")


@pytest.mark.parametrize("name", ["latent_diff", "size_comparison"])
def test_the_published_documents_satisfy_their_schemas(upstream, name):
    # One of them has NaN, which is no JSON but, once it is null, does not break the form.
    text = (upstream / "dataset" / f"{name}.json").read_text(encoding="utf-8")
    schema.check(json.loads(text, parse_constant=lambda _: None), name, file=name)


def test_a_size_comparison_of_nothing_is_rejected():
    with pytest.raises(FormatError, match="should be non-empty"):
        schema.check({}, "size_comparison", file="x")
