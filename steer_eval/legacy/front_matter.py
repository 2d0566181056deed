"""Front matter of the cards of a study without `study.yaml`.

Invariant: it is built and written by the Hub's own library from values, so that what the Hub reads back is equal to
them; measured numbers in it are those of the best cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from steer_eval.legacy.best import Judgement, Score
from steer_eval.legacy.study import LegacyStudy
from steer_eval.legacy.tables import judge_table, split_name
from steer_eval.table_configs import list_tables, table_config

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "text-generation"
TAGS = ("activation-steering", "steering-vectors", "interpretability")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_KIND_TAGS = (
    (("vector", "vector_pt"), "contrastive-activation-addition"),
    (("sae", "sae_pt", "features"), "sparse-autoencoder"),
)


def model_front_matter(study: LegacyStudy) -> str:
    """YAML at the top of the model card."""
    from huggingface_hub import ModelCardData

    identity = study.identity
    bases = [base for model in study.models if _HUB_ID.fullmatch(base := study.base_model(model))]
    own = [tag for kinds, tag in _KIND_TAGS if any(study.inventory.of(*kinds))]
    results = list(eval_results(study))
    return str(
        ModelCardData(
            language=list(identity.language) or None,
            license=identity.license,
            library_name="steer-eval",
            pipeline_tag=TASK,
            tags=list(dict.fromkeys((*TAGS, *own, *identity.tags))),
            base_model=bases or None,
            base_model_relation="adapter" if bases else None,
            datasets=[identity.data],
            # The Hub groups results under the name of a model; without results there is nothing to name.
            model_name=identity.name if results else None,
            eval_results=results or None,
        ).to_yaml()
    )


def eval_results(study: LegacyStudy) -> Iterator[EvalResult]:
    """Perplexity ratio and margin of each judge's best cell of each model."""
    told: set[tuple[str, tuple[int, float]]] = set()
    for judgement in study.judgements:
        if not judgement.best:
            continue
        best = judgement.best[0]
        if best.ratio is not None and (judgement.model, best.cell) not in told:
            told.add((judgement.model, best.cell))
            yield _result(study, judgement, best, "sweep", "perplexity_ratio", best.ratio)
        yield _result(study, judgement, best, judge_table(judgement.judge), "margin", best.margin)


def _result(
    study: LegacyStudy, judgement: Judgement, best: Score, table: str, measure: str, value: float
) -> EvalResult:
    from huggingface_hub import EvalResult

    tied = len(judgement.best)
    words = "perplexity ratio" if measure == "perplexity_ratio" else f"margin, judged by {judgement.judge}"
    among = f", one of {tied} tied cells" if tied > 1 and measure == "margin" else ""
    return EvalResult(
        task_type=TASK,
        dataset_type=study.identity.data,
        dataset_name=f"{study.identity.data_name}: {study.base_model(judgement.model)}",
        dataset_config=table,
        dataset_split=split_name(judgement.model),
        metric_type=measure,
        metric_name=f"{words} at L={best.layer} c={best.coef:+g}{among}",
        metric_value=value,
        metric_args={
            "model": study.base_model(judgement.model),
            **({"judge": judgement.judge} if measure == "margin" else {}),
            "layer": best.layer,
            "coef": best.coef,
        },
    )


def dataset_front_matter(study: LegacyStudy) -> str:
    """YAML at the top of the dataset card, with a configuration for each table."""
    from huggingface_hub import DatasetCardData

    identity = study.identity
    data = DatasetCardData(
        language=list(identity.language) or None,
        license=identity.data_license,
        pretty_name=identity.data_name,
        tags=list(dict.fromkeys((*TAGS, *identity.data_tags))),
    )
    list_tables(data, map(table_config, study.tables))
    return str(data.to_yaml())
