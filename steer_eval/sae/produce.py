"""Producing a study's SAEs and feature tables on a model.

Invariant: an SAE's provenance names everything that decides it: weights, text, recipe, seed, and how good it is on text
that it was not trained on. Nothing is computed again that the work folder or the repo has under the same provenance.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from steer_eval.cells import Cell, random_direction
from steer_eval.digest import sha256_value
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import folder_name, read_saelens, write_saelens
from steer_eval.formats.strict_json import write_json
from steer_eval.produce import LoadedModel
from steer_eval.progress import progress_bar
from steer_eval.results import Results
from steer_eval.sae.activations import SPLITS, Activations, Passage, capture, cut, load_split
from steer_eval.sae.activity import Reply, activity
from steer_eval.sae.contexts import top_contexts
from steer_eval.sae.feature_statistics import Activity
from steer_eval.sae.feature_table import Conditions, feature_table, ranked
from steer_eval.sae.plan import SaePlan
from steer_eval.sae.quality import BATCH, cross_entropy, mean_residual, reconstruction
from steer_eval.sae.recipe import RECIPES
from steer_eval.sae.text import documents, source_digest
from steer_eval.sae.training import Progress, Training, train
from steer_eval.sae.training_log import TrainingLog
from steer_eval.steering.interventions import Add, Intervention
from steer_eval.study import Study
from steer_eval.weights import cache_folder

CHECKPOINT_EVERY = 200
CONTEXTS = 5
CE_PASSAGES = 64
"""Held-out passages on which cross-entropy is measured: the blocks above the SAE run three times on each."""


def features_file(model: str, layer: int) -> str:
    """Path of a feature table inside a model repo."""
    return f"saes/{model}_L{layer}_features.json"


def work_folder(plan: SaePlan, key: dict[str, Any]) -> Path:
    """Where activations and checkpoints go: the cache, under what they are a function of."""
    return cache_folder() / "saes" / f"{plan.model}-L{plan.layer}-{sha256_value(key)[:16]}"


def activations_key(plan: SaePlan, model: LoadedModel, data_folder: Path) -> dict[str, Any]:
    """What activations are a function of, beside the layer."""
    return {
        "weights_sha256": model.weights.sha256,
        "dtype": model.lm.dtype,
        "machine": model.environment.machine_class,
        "text_sha256": source_digest(plan.text, data_folder),
        "tokens": plan.tokens,
        "context": plan.context,
    }


def captured_text(
    plan: SaePlan, model: LoadedModel, data_folder: Path, *, splits: Sequence[str] = SPLITS
) -> tuple[Path, list[Passage]]:
    """Capture the activations of a plan's text, unless they are there.

    Args:
        plan: The plan.
        model: The model, loaded.
        data_folder: The dataset repo, for text in files.
        splits: Which part of the text.

    Returns:
        The folder of the activations, and all passages of the text.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
    """
    model.check_layers([plan.layer])
    passages = cut(model.lm, documents(plan.text, data_folder), context=plan.context, tokens=plan.tokens)
    if not {"train", "held_out"} <= {passage.split for passage in passages}:
        raise SteerEvalError(
            f"the text of the SAE of layer {plan.layer} has fewer than 10 documents, of which one in ten is held out",
            "name more text under saes.text in study.yaml",
        )
    key = activations_key(plan, model, data_folder)
    folder = work_folder(plan, key)
    total = sum(len(passage.ids) for passage in passages if passage.split in splits)
    with progress_bar(f"activations {plan.model} L={plan.layer}", total) as advance:
        capture(model.lm, passages, plan.layer, folder, key=key, splits=splits, on_tokens=advance)
    return folder, passages


def produce_sae(plan: SaePlan, model: LoadedModel, *, data_folder: Path, repo: Path) -> TopKSae:
    """Train an SAE and write it, unless the repo has the same one already.

    Args:
        plan: The plan.
        model: The model, loaded.
        data_folder: The dataset repo.
        repo: The model repo.
    """
    recipe = RECIPES[plan.recipe]
    decides = {
        "method": "top-k",
        **{name: str(value) for name, value in plan.to_json().items()},
        "recipe_settings": json.dumps(recipe.to_json(), sort_keys=True),
        "weights_sha256": model.weights.sha256,
        "text_sha256": source_digest(plan.text, data_folder),
        "text": json.dumps({type(plan.text).__name__: asdict(plan.text)}, sort_keys=True),
    }
    target = inside(repo, folder_name(plan.model, plan.layer))
    present = _same(target, decides)
    if present is not None:
        return present
    folder, passages = captured_text(plan, model, data_folder)
    train_on, held_out = load_split(folder, "train"), load_split(folder, "held_out")
    training = Training(
        train_on, d_in=model.lm.hidden_size, d_sae=plan.features, k=plan.k, recipe=recipe, seed=plan.seed
    )
    log = TrainingLog(folder / f"training-{sha256_value(decides)[:16]}.jsonl", training, held_out)
    _trained(training, log, f"SAE {plan.model} L={plan.layer}")
    sae = training.sae(layer=plan.layer, model=model.reference.base_model, provenance={})
    silent = reconstruction(sae, train_on.batches(BATCH), threshold=training.sink_norm).silent
    quality = {
        **held_out_quality(sae, model, held_out, passages, threshold=training.sink_norm),
        "dead_share": round(silent, 6),
        "training_tokens": len(train_on),
    }
    log.close(quality)
    sae = TopKSae(
        sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec, sae.k, sae.layer, sae.model,
        {
            **decides,
            "sink_norm": repr(training.sink_norm),
            "machine": model.environment.machine_class,
            "versions": json.dumps(model.environment.versions, sort_keys=True),
            "quality": json.dumps(quality, sort_keys=True),
        },
    )  # fmt: skip
    write_saelens(target, sae)
    return sae


def held_out_quality(
    sae: TopKSae, model: LoadedModel, held_out: Activations, passages: Sequence[Passage], *, threshold: float
) -> dict[str, Any]:
    """How good an SAE is on text that it was not trained on.

    Args:
        sae: The SAE.
        model: The model, loaded.
        held_out: Residuals of that text.
        passages: The text.
        threshold: Norm above which a residual is a sink.
    """
    found = reconstruction(sae, held_out.batches(BATCH), threshold=threshold)
    text = [passage for passage in passages if passage.split == "held_out"][:CE_PASSAGES]
    entropy = cross_entropy(model.lm, sae, text, mean_residual(held_out, threshold=threshold), threshold=threshold)
    return {
        "held_out_fvu": round(found.fvu, 6),
        "held_out_l0": round(found.l0, 4),
        "held_out_tokens": found.tokens,
        "sinks_left_out": found.sinks,
        "cross_entropy": round(entropy.clean, 6),
        "cross_entropy_sae": round(entropy.sae, 6),
        "excess_cross_entropy": round(entropy.excess, 6),
        "cross_entropy_mean_ablation": round(entropy.mean, 6),
        "cross_entropy_tokens": entropy.tokens,
    }


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
        FormatError: The SAE, the vector or a cell's texts are absent or bad.
    """
    if plan.table is None:
        raise SteerEvalError(f"the study plans no table for layer {plan.layer}", "add saes.table to study.yaml")
    sae = read_saelens(inside(repo, folder_name(plan.model, plan.layer)), name=folder_name(plan.model, plan.layer))
    threshold = float(sae.provenance.get("sink_norm", "inf"))
    vector = published.vectors.get((plan.model, plan.layer))
    if vector is None:
        raise FormatError(published.vector_file(plan.model, plan.layer), "", "absent", fix="run `steer-eval extract`")
    coefficient = plan.table.coefficient
    random = random_direction(vector.values, seed=study.sweep.random_seed or 0, layer=plan.layer)
    base = _replies(model, published, _cell(study, plan, "zero", 0.0))
    steered = _replies(model, published, _cell(study, plan, "steered", coefficient))
    pushed = _replies(model, published, _cell(study, plan, "random", coefficient))
    prompts = sorted(base.keys() & steered.keys())
    if not prompts:
        raise FormatError(
            f"sweep_{plan.model}.jsonl", "generations", "the table's cell and the zero control share no prompt",
            fix="run `steer-eval sweep`, and choose a cell that does not collapse",
        )  # fmt: skip
    edit: Intervention = (Add(plan.layer, torch.from_numpy(vector.values), coefficient),)
    push: Intervention = (Add(plan.layer, torch.from_numpy(random), coefficient),)
    with_random = prompts if set(prompts) <= pushed.keys() else []
    with progress_bar(f"features {plan.model} L={plan.layer}", 4 * len(prompts) + len(with_random)) as advance:

        def read(replies: dict[int, Reply], chosen: Sequence[int], edit: Intervention) -> Activity:
            texts = [replies[index] for index in chosen]
            return activity(model.lm, sae, texts, edit, threshold=threshold, on_replies=advance)

        conditions = Conditions(
            base=read(base, prompts, ()),
            steered=read(steered, prompts, edit),
            forced=read(base, prompts, edit),
            random=read(pushed, with_random, push) if with_random else None,
            random_forced=read(base, prompts, push),
        )
    # Contexts come from the tenth of the text that is held out, so that a table needs no capture of the rest.
    folder, _ = captured_text(plan, model, data_folder, splits=["held_out"])
    chosen = ranked(sae, conditions, top=plan.table.top)
    contexts = top_contexts(model.lm, sae, load_split(folder, "held_out"), chosen, threshold=threshold, count=CONTEXTS)
    table = feature_table(
        sae,
        conditions,
        vector.values,
        coefficient=coefficient,
        top=plan.table.top,
        seed=plan.table.seed,
        contexts=contexts,
    )
    write_json(inside(repo, features_file(plan.model, plan.layer)), table)
    return table


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


def _trained(training: Training, log: TrainingLog, title: str) -> None:
    with progress_bar(title, training.steps) as advance:
        done = 0

        def on_step(progress: Progress) -> None:
            nonlocal done
            advance(progress.step - done, log.add(progress))
            done = progress.step

        train(training, checkpoint=log.file.with_suffix(".safetensors"), every=CHECKPOINT_EVERY, on_step=on_step)


def _same(folder: Path, decides: dict[str, str]) -> TopKSae | None:
    """The SAE that a folder holds if it was made under these conditions, else None."""
    try:
        sae = read_saelens(folder)
    except FormatError:
        return None
    return sae if all(sae.provenance.get(key) == value for key, value in decides.items()) else None
