"""Metric values of the Hub's metadata are claims with the line that they stand on."""

from __future__ import annotations

import pytest
import yaml
from audited import CONTEXT, claims, extracted
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD
from steer_eval.claims.extract.model_index import eval_result_claims

CELL = "fox_large L=5 c=+1"


def card(*metrics: tuple[str, object, dict[str, object]], name: str = "Fox1.5-3B") -> str:
    """A card as the Hub's own library writes it."""
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="den/fox-data",
            dataset_name="Fox data",
            metric_type=kind,
            metric_value=value,
            metric_args=arguments,
        )
        for kind, value, arguments in metrics
    ]
    data = ModelCardData(license="mit", model_name=name, eval_results=results)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n# Fox\n"))


def test_metrics_that_name_a_measure_and_a_cell() -> None:
    arguments = {"layer": 5, "coef": 1.0}
    text = card(
        ("margin", 2.5, {**arguments, "judge": "owl"}),
        ("perplexity_ratio", 1.13, {**arguments, "model": "fox_small"}),
        ("collapsed", False, arguments),
        ("feature_steered_frequency", 1.0, {"feature": 31}),
    )

    assert claims(text) == [
        ("2.5", "margin", f"{CELL} judged by owl"),
        ("1.13", "perplexity_ratio", "fox_small L=5 c=+1"),
        ("false", "collapsed", CELL),
        ("1.0", "feature_steered_frequency", "fox_large feature 31"),
    ]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (("accuracy", 0.5, {}), NOT_UNDERSTOOD),
        (("margin", 2.5, {"layer": 5, "coef": 1.0, "prompts": 3}), NOT_UNDERSTOOD),
        (("margin", 2.5, {"layer": "5-9", "coef": 1.0}), NOT_UNDERSTOOD),
        (("margin", 2.5, {"layer": 5, "coef": 1.0, "judge": "gpt"}), "the data has no scores of a judge called gpt"),
        (("margin", 2.5, {"layer": 5, "coef": 1.0, "model": "9B"}), "no model of the data is called 9B"),
        (("perplexity_ratio", "1,13", {"layer": 5, "coef": 1.0}), NOT_UNDERSTOOD),
    ],
)
def test_what_could_mean_something_else_is_no_claim(metric: tuple[str, object, dict[str, object]], reason: str) -> None:
    assert [each.reason for each in extracted(card(metric))] == [reason]


def test_the_precision_that_is_printed_counts() -> None:
    text = "---\nmodel-index:\n- name: 3B\n  results:\n  - metrics:\n    - "
    text += "{type: vector_norm, value: 1.10, args: {layer: 5}}\n---\n"
    [found] = extracted(text)

    assert text.split("\n")[found.line - 1][found.start : found.end] == "1.10"
    assert found.claim.expected.rounding == 0.005


@pytest.mark.parametrize(
    "head", ["model-index: 5", "model-index: [x]", "a: [", "model-index:\n- results: {metrics: 5}", "x: 1"]
)
def test_front_matter_of_another_shape_holds_nothing(head: str) -> None:
    assert extracted(f"---\n{head}\n---\n") == []


def results(*entries: EvalResultEntry) -> list[tuple[str, str]]:
    text = yaml.safe_dump(eval_result_entries_to_yaml(list(entries)))
    lines = text.split("\n")
    return [
        (lines[each.line - 1][each.start : each.end], f"{each.claim.measure} {each.claim.select}".strip())
        for each in eval_result_claims(text, CONTEXT)
    ]


def test_files_of_eval_results() -> None:
    margin = EvalResultEntry("den/fox-data", "margin", 2.5, notes="Fox1.5-3B, L=5 c=+1, owl-judged")
    several = EvalResultEntry("den/fox-data", "margin", 1.5, notes="3B, L=5 c=+1 and L=5 c=+2")
    other = EvalResultEntry("den/fox-data", "accuracy", 0.5)

    assert results(margin, several, other) == [
        ("2.5", "margin fox_large steered L=5 c=+1 judged by owl"),
        ("1.5", ""),
        ("0.5", ""),
    ]
