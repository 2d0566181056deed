"""A name means one model of the study, or none."""

from __future__ import annotations

import pytest
from legacy import build

from steer_eval.claims.names import ModelNames, model_names
from steer_eval.inventory import Root, take_inventory

NAMES = ModelNames(
    {"fox_large": "den/Fox1.5-3B", "fox_small": "den/Fox1.5-0.5B", "owl_large": "nest/Owl-7B-Chat"}, ("hare",)
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("3B", "fox_large"),
        ("**3B**", "fox_large"),
        ("`fox_small`", "fox_small"),
        ("small", "fox_small"),
        ("den/Fox1.5-0.5B", "fox_small"),
        ("fox1.5-3b", "fox_large"),
        ("7B", "owl_large"),
        ("hare", "hare"),
        ("large", None),
        ("5B", None),
        ("9B", None),
        ("", None),
        ("base", None),
    ],
)
def test_what_a_name_means(name: str, expected: str | None) -> None:
    assert NAMES.resolve(name) == expected


@pytest.mark.parametrize(
    ("text", "mentioned", "strangers"),
    [
        ("the 0.5B and the 3B model", ["fox_small", "fox_large"], []),
        ("Fox1.5-3B-Instruct", ["fox_large"], []),
        ("Fox-3B", ["fox_large"], []),
        ("sweeps of fox_small", ["fox_small"], []),
        ("a hare", ["hare"], []),
        ("13B", [], ["13B"]),
        ("Bear-3B", [], ["Bear-3B"]),
        ("the 9B", [], ["9B"]),
        ("3B tokens in 24 MB", [], []),
        ("figure 3b", [], []),
        ("fox_larger", [], []),
    ],
)
def test_what_a_text_mentions(text: str, mentioned: list[str], strangers: list[str]) -> None:
    assert NAMES.mentioned(text) == mentioned
    assert NAMES.strangers(text) == strangers


def test_a_size_that_two_models_have_means_neither() -> None:
    names = ModelNames({"a": "x/Fox-3B", "b": "y/Owl-3B"})

    assert names.resolve("3B") is None
    assert names.mentioned("the 3B model") == []
    assert names.mentioned("Owl-3B") == ["b"]


def test_how_it_was_understood_can_be_said() -> None:
    assert NAMES.how("fox_small") == "fox_small is den/Fox1.5-0.5B"
    assert NAMES.how("hare") == "hare is not known"


def test_names_come_from_the_vectors(tmp_path) -> None:
    place = build(tmp_path)
    names = model_names(take_inventory([Root(place.model, "", "model"), Root(place.data, "", "dataset")]))

    assert names == ModelNames({"fox_large": "den/fox-3B", "fox_small": "den/fox-0.5B"})


def test_models_without_vectors_are_known_by_their_sweeps(tmp_path) -> None:
    names = model_names(take_inventory([Root(build(tmp_path).data, "", "dataset")]))

    assert names == ModelNames({}, ("fox_large", "fox_small"))
