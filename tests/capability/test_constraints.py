from __future__ import annotations

import pytest

from steer_eval.capability.constraints import KINDS, passes
from steer_eval.capability.documents import INSTRUCTIONS, instruction_results
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.resources import folder

CASES = {
    "max_words": (3, "It's my well-known", "one two three four"),
    "min_words": (3, "one two three", "one, two"),
    "exact_words": (1, "Cold.", "It is"),
    "sentences": (2, 'He said "no!" Then he left', "One. Two. Three."),
    "lines": (2, "first\n\n second ", "first second"),
    "bullets": (2, "Here:\n- a\n* b", "- a\n-b"),
    "numbered": (2, "1. a\nmore\n2) b", "1. a\n3. b"),
    "contains": (["ship", "storm"], "Ship and STORM", "shipping storm"),
    "excludes": (["cold"], "a scolding", "so Cold!"),
    "at_least": ({"garden": 2}, "Garden, garden", "garden gardens"),
    "starts_with": ("Therefore", " Therefore yes", "therefore"),
    "ends_with": ("?", "Why? ", "Why?!"),
    "without": ("e,", "A cat", "A cat, Eve"),
    "with": (",", "a, b", "a b"),
    "uppercase": (True, "HELLO 2!", "HELLo"),
    "lowercase": (True, "hello 2!", "1, 2"),
    "quoted": (True, '"Good luck"', '"Good" luck'),
    "json_keys": (["a", "b"], '```json\n{"b": 1, "a": []}\n```', '{"a": 1}'),
    "one_of": (["yes", "no"], " Yes.", "yes it is"),
}


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(KINDS)


@pytest.mark.parametrize("kind", CASES)
def test_a_check_tells_replies_apart(kind: str) -> None:
    value, good, bad = CASES[kind]
    assert passes({"kind": kind, "value": value}, good)
    assert not passes({"kind": kind, "value": value}, bad)
    assert not passes({"kind": kind, "value": value}, " \n")


def test_the_instructions_can_be_followed_and_not_by_one_reply() -> None:
    rows = [row.value for row in read_jsonl(folder("tasks") / INSTRUCTIONS, schema="task_instruction")]
    assert len(rows) == len({row["id"] for row in rows}) == len({row["instruction"] for row in rows}) == 40
    assert {check["kind"] for row in rows for check in row["checks"]} == set(KINDS)
    for reply in ("", "I am sorry, I can't help with that.", "yes", "word " * 60):
        assert sum(all(passes(check, reply) for check in row["checks"]) for row in rows) <= 10


def test_a_reply_has_a_share_of_its_constraints() -> None:
    import json

    checks = [json.dumps({"kind": "lines", "value": 1}), json.dumps({"kind": "uppercase", "value": True})]
    assert instruction_results({"checks": checks}, ["hello"]) == {"followed": 0.0, "constraints_kept": 0.5}
    assert instruction_results({"checks": checks}, ["HELLO"]) == {"followed": 1.0, "constraints_kept": 1.0}
