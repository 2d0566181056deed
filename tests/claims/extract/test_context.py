"""What the words of a text refer to."""

from __future__ import annotations

import pytest
from audited import CONTEXT

from steer_eval.claims.extract.context import cells_in, coefficients_in, layers_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L=14 c=+1", [(14, 1.0)]),
        ("`L=14`, `c=−2`", [(14, -2.0)]),
        ("layer 14, coefficient 1", [(14, 1.0)]),
        ("layer 14 with coefficient 1.5", [(14, 1.5)]),
        ("layers[14]` with coefficient `c=+1.0`", [(14, 1.0)]),
        ("c=+1 at layer 14", [(14, 1.0)]),
        ("coefficient 1 in layer 14 and coefficient 2 in layer 6", [(14, 1.0), (6, 2.0)]),
        ("L=14, α = 2", [(14, 2.0)]),
        ("layer 14 (c = 1)", [(14, 1.0)]),
        ("layer 14", []),
        ("c=1", []),
        ("14, 1", []),
        ("FL=14 c=1", []),
    ],
)
def test_cells(text: str, expected: list[tuple[int, float]]) -> None:
    assert [(cell.layer, cell.coef) for cell in cells_in(text)] == expected


def test_layers_and_coefficients() -> None:
    assert [match["layer"] for match in layers_in("L5, layer 9 and layers[14]")] == ["5", "9", "14"]
    assert [match["coef"] for match in coefficients_in("c=+1, coefficient −2, alpha 0.5")] == ["+1", "−2", "0.5"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Key results (owl-judged)"], "owl"),
        (["as judged by owl"], "owl"),
        (["Owl scores"], "owl"),
        (["fox-judged"], "fox"),
        (["fox is steered"], None),
        (["owl-judged, not fox-judged"], None),
        (["", "owl-judged"], "owl"),
        (["fox-judged", "owl-judged"], "fox"),
        ([], None),
    ],
)
def test_judges(texts: list[str], expected: str | None) -> None:
    assert CONTEXT.judge(*texts) == expected


@pytest.mark.parametrize(
    ("texts", "name", "stranger"),
    [
        (["the 3B model"], "fox_large", ""),
        (["3B and 0.5B", "3B"], None, ""),
        (["words", "0.5B"], "fox_small", ""),
        (["unlike 9B", "3B"], None, "no model of the data is called 9B"),
        (["words"], None, ""),
    ],
)
def test_models(texts: list[str], name: str | None, stranger: str) -> None:
    found = CONTEXT.model(*texts)

    assert (found.name, found.stranger) == (name, stranger)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Ridge**", "ridge"),
        ("Prompt only", "prompt_only"),
        ("prompt-only", "prompt_only"),
        ("other", "other"),
        ("", None),
    ],
)
def test_variants(text: str, expected: str | None) -> None:
    assert CONTEXT.variant(text) == expected
