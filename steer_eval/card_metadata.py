"""Front matter of the cards of a study.

Invariant: it is built and written by the Hub's own library from values, so that what the Hub reads back is equal to
them. Measured numbers in it are looked up in the results, as everywhere in a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from steer_eval import markdown
from steer_eval.claims.claim import Claim
from steer_eval.claims.measures import REGISTRY, Case, NotCheckable
from steer_eval.results import Results
from steer_eval.study import Study
from steer_eval.table_configs import TableConfig, list_tables

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "text-generation"
RESULTS = frozenset({"perplexity", "perplexity_ratio", "largest_coefficient_without_collapse", "margin"})
"""Measures of claims that are results of the steered models; the others describe the vectors and the data."""


def model_front_matter(study: Study, results: Results) -> str:
    """YAML at the top of the model card."""
    from huggingface_hub import ModelCardData

    measured = list(eval_results(study, results))
    return str(
        ModelCardData(
            language=study.language,
            license=study.license,
            library_name="steer-eval",
            pipeline_tag=TASK,
            tags=["activation-steering", "steering-vectors", "contrastive-activation-addition", "interpretability"],
            base_model=[model.base_model for model in study.models.values()],
            base_model_relation="adapter",
            datasets=[study.data],
            # The Hub groups results under the name of a model; without results there is nothing to name.
            model_name=study.name if measured else None,
            eval_results=measured or None,
        ).to_yaml()
    )


def eval_results(study: Study, results: Results) -> Iterator[EvalResult]:
    """What the data gives for the claims that are about results, for `model-index`; each once."""
    told = set()
    for claim in study.claims:
        if claim.measure in RESULTS and (claim.measure, claim.select) not in told:
            told.add((claim.measure, claim.select))
            yield from _result(study, results, claim)


def _result(study: Study, results: Results, claim: Claim) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    case = Case(study, claim.select, results)
    try:
        observation, model = REGISTRY[claim.measure].observe(case), case.model
    except NotCheckable:
        return
    base, select = study.models[model].base_model, claim.select
    words = claim.measure.replace("_", " ")
    # The model stands in the arguments, under the name that base models have on the Hub.
    place = " ".join(
        part
        for part in (
            select.variant,
            select.label if select.label != "steered" else None,
            None if select.layer is None else f"L={select.layer}",
            None if select.coef is None else f"c={select.coef:+g}",
        )
        if part
    )
    table = "sweep" if select.variant is None else "comparison"
    judged = f"judge_{select.judge}" if table == "sweep" else f"judge_{select.judge}_{table}"
    # By a method's name go the method and its control.
    label = select.label or ("steered" if select.variant else None)
    arguments = {
        "model": base,
        "variant": select.variant,
        "label": label,
        "judge": select.judge,
        "layer": select.layer,
        "coef": select.coef,
    }
    yield EvalResult(
        task_type=TASK,
        dataset_type=study.data,
        dataset_name=f"{study.data.rsplit('/', 1)[-1]}: {base}",
        dataset_config=judged if select.judge else table,
        dataset_split=model,
        metric_type=claim.measure,
        metric_name=f"{words} at {place}" if place else words,
        metric_value=observation.value,
        metric_args={key: value for key, value in arguments.items() if value is not None},
    )


def dataset_front_matter(study: Study, results: Results) -> str:
    """YAML at the top of the dataset card, with a configuration for each table."""
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        language=study.language,
        license=study.license,
        pretty_name=markdown.line(study.title),
        tags=["activation-steering", "steering-vectors", "interpretability"],
    )
    list_tables(data, results.tables or _named(study))
    return str(data.to_yaml())


def _named(study: Study) -> tuple[TableConfig, ...]:
    """The texts that every study names, where no table could be read."""
    return (
        TableConfig("contrast_pairs", {"train": study.extraction.pairs}),
        TableConfig("eval_prompts", {"train": study.sweep.prompts}),
    )
