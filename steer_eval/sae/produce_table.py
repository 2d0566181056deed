"""Producing a study's feature tables from its published texts.

Invariant: no text is generated: the sweep's texts are read again, with and without the edit. A table is a function of
the SAE, the vector, these texts and the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steer_eval.cells import Cell, random_direction
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import CONFIG, folder_name
from steer_eval.formats.strict_json import write_json
from steer_eval.produce import LoadedModel
from steer_eval.progress import progress_bar
from steer_eval.results import Results
from steer_eval.sae.activations import Activations
from steer_eval.sae.activity import Reply, activity
from steer_eval.sae.contexts import top_contexts
from steer_eval.sae.feature_statistics import Activity
from steer_eval.sae.feature_table import Conditions, feature_table, ranked
from steer_eval.sae.plan import FeaturePlan, SaePlan
from steer_eval.sae.produce import held_out_text
from steer_eval.sae.results import features_file
from steer_eval.sae.stored import SINK_KEY, sink_threshold, study_sae
from steer_eval.steering.interventions import Add
from steer_eval.study import Study

CONTEXTS = 5


def produce_feature_table(
    study: Study, plan: SaePlan, model: LoadedModel, published: Results, *, data_folder: Path, repo: Path
) -> dict[str, Any]:
    """Make the feature table of a cell from the published texts, and write it.

    Args:
        study: The study.
        plan: The plan, with a table.
        model: The model, loaded.
        published: The study's results: the sweep's texts and the vectors.
        data_folder: The dataset repo.
        repo: The model repo, with the SAE.

    Raises:
        FormatError: The SAE, the vector or a cell's texts are absent or bad, or the SAE is of another model or layer.
        SteerEvalError: All tokens of a condition are attention sinks.
    """
    sae = study_sae(repo, model.reference, plan.layer, width=model.lm.hidden_size).read()
    replies = table_replies(study, plan, model, published)
    # Contexts come from the tenth of the text that is held out, so that a table needs no capture of the rest.
    held_out, _ = held_out_text(plan, model, data_folder)
    table = measured_table(study, plan, model, published, sae, replies, held_out)
    write_json(inside(repo, features_file(plan.model, plan.layer)), table)
    return table


@dataclass(frozen=True)
class Replies:
    """The published texts that a feature table is made from, in tokens.

    Args:
        prompts: Indices of the prompts that count, which the first two have.
        base: Unsteered texts.
        steered: Texts of the cell.
        random: Those of the random direction at the same coefficient.
        pushed: Which of the prompts have one of these: places in `prompts`. Texts may be empty, and controls often are
            not generated at all.
    """

    prompts: tuple[int, ...]
    base: tuple[Reply, ...]
    steered: tuple[Reply, ...]
    random: tuple[Reply, ...]
    pushed: tuple[int, ...]


def table_replies(study: Study, plan: SaePlan, model: LoadedModel, published: Results) -> Replies:
    """The published texts that a plan's feature table is made from.

    Args:
        study: The study.
        plan: The plan, with a table.
        model: The model, loaded, for its tokenizer.
        published: The study's results, for the sweep's texts.

    Raises:
        SteerEvalError: The study plans no table.
        FormatError: The cell's texts or the unsteered ones are absent.
    """
    coefficient = _table(plan).coefficient
    base = _replies(model, published, _cell(study, plan, "zero", 0.0))
    steered = _replies(model, published, _cell(study, plan, "steered", coefficient))
    pushed = _replies(model, published, _cell(study, plan, "random", coefficient))
    prompts = tuple(sorted(base.keys() & steered.keys()))
    if not prompts:
        raise FormatError(
            f"sweep_{plan.model}.jsonl", "generations", "the table's cell and the zero control share no prompt",
            fix="run `steer-eval sweep`, and choose a cell that does not collapse",
        )  # fmt: skip
    return Replies(
        prompts,
        tuple(base[index] for index in prompts),
        tuple(steered[index] for index in prompts),
        tuple(pushed[index] for index in prompts if index in pushed),
        tuple(place for place, index in enumerate(prompts) if index in pushed),
    )


def measured_table(
    study: Study,
    plan: SaePlan,
    model: LoadedModel,
    published: Results,
    sae: TopKSae,
    replies: Replies,
    held_out: Activations | None,
) -> dict[str, Any]:
    """The feature table of a cell.

    Args:
        study: The study.
        plan: The plan, with a table.
        model: The model, loaded.
        published: The study's results, for the vector.
        sae: The SAE.
        replies: The published texts.
        held_out: Residuals of the text in which features are shown at work; None to leave that out.

    Raises:
        FormatError: The vector is absent or bad, or the SAE's sink threshold is no norm.
        SteerEvalError: All tokens of a condition are attention sinks.
    """
    folder = folder_name(plan.model, plan.layer)
    table, threshold = _table(plan), sink_threshold(sae, folder)
    vector = published.vectors.get((plan.model, plan.layer))
    if vector is None:
        raise FormatError(published.vector_file(plan.model, plan.layer), "", "absent", fix="run `steer-eval extract`")
    random = random_direction(vector.values, seed=study.sweep.random_seed or 0, layer=plan.layer)
    edit = (Add(plan.layer, torch.from_numpy(vector.values), table.coefficient),)
    push = (Add(plan.layer, torch.from_numpy(random), table.coefficient),)
    count = len(replies.prompts)
    with progress_bar(f"features {plan.model} L={plan.layer}", 4 * count + len(replies.random)) as advance:

        def read(texts: Sequence[Reply], edit: tuple[Add, ...]) -> Activity:
            found = activity(model.lm, sae, texts, edit, threshold=threshold, on_replies=advance)
            if not found.tokens.any():
                raise SteerEvalError(
                    f"{folder}/{CONFIG}: {SINK_KEY}: the norms of all tokens of a condition lie above {threshold:g}, "
                    "so that each is taken for an attention sink",
                    "mend that field, or choose a smaller saes.table.coefficient in study.yaml",
                )
            return found

        conditions = Conditions(
            base=read(replies.base, ()),
            steered=read(replies.steered, edit),
            forced=read(replies.base, edit),
            # Without texts there is no such column, and the table does not promise one.
            random=read(replies.random, push) if replies.random else None,
            random_forced=read(replies.base, push),
            pushed=replies.pushed,
        )
    contexts = None
    if held_out is not None:
        chosen = ranked(sae, conditions, top=table.top)
        contexts = top_contexts(model.lm, sae, held_out, chosen, threshold=threshold, count=CONTEXTS)
    return feature_table(
        sae,
        conditions,
        vector.values,
        coefficient=table.coefficient,
        top=table.top,
        seed=table.seed,
        contexts=contexts,
    )


def _table(plan: SaePlan) -> FeaturePlan:
    if plan.table is None:
        raise SteerEvalError(f"the study plans no table for layer {plan.layer}", "add saes.table to study.yaml")
    return plan.table


def _cell(study: Study, plan: SaePlan, label: Any, coefficient: float) -> Cell:
    # The zero control stands at the first layer of the sweep; its texts are the unsteered ones.
    layer = study.layers(plan.model)[0] if label == "zero" else plan.layer
    return Cell(plan.model, label, layer, coefficient)


def _replies(model: LoadedModel, published: Results, cell: Cell) -> dict[int, Reply]:
    """The published texts of a cell in their tokens, by prompt."""
    sweep = published.sweeps.get(cell.model)
    row = sweep.find(cell) if sweep else None
    replies = {}
    for text in row.generations if row else ():
        ids = model.lm.text_ids(text.gen, special_tokens=False)
        if ids:
            replies[text.prompt_idx] = Reply(tuple(model.lm.chat_ids(text.prompt)), tuple(ids))
    return replies
