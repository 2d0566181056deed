"""Producing a study's SAEs on a model.

Invariant: an SAE's provenance names everything that decides it: weights, text, recipe, seed, and how good it is on text
that it was not trained on. Nothing is computed again that the work folder or the repo has under the same provenance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steer_eval.cells import text_checksums
from steer_eval.digest import sha256_value
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import folder_name, write_saelens
from steer_eval.produce import SAID_IF_SO, LoadedModel
from steer_eval.progress import progress_bar
from steer_eval.sae.activations import SPLITS, Activations, Passage, capture, cut, holds, load_split
from steer_eval.sae.belongs import recorded_of_plan
from steer_eval.sae.feature_activity import FILE as ACTIVITY
from steer_eval.sae.feature_activity import read_feature_activity, write_feature_activity
from steer_eval.sae.live_entropy import PASSAGES, LiveEntropy
from steer_eval.sae.plan import SaePlan
from steer_eval.sae.quality import BATCH, cross_entropy, mean_residual, reconstruction
from steer_eval.sae.recipe import RECIPES
from steer_eval.sae.stored import read_trained, sink_threshold
from steer_eval.sae.text import documents, source_digest
from steer_eval.sae.training import Progress, Training, train
from steer_eval.sae.training_log import TrainingLog
from steer_eval.weights import cache_folder

CHECKPOINT_EVERY = 200
_SHOWN = 40
CE_PASSAGES = 64
"""Held-out passages, spread over all of them, on which cross-entropy is measured: the blocks above the SAE run three
times on each."""


def work_folder(plan: SaePlan, key: dict[str, Any]) -> Path:
    """Where activations and checkpoints go: the cache, under what they are a function of."""
    return cache_folder() / "saes" / f"{plan.model}-L{plan.layer}-{sha256_value(key)[:16]}"


def activations_key(plan: SaePlan, model: LoadedModel, data_folder: Path) -> dict[str, Any]:
    """What activations are a function of, beside the layer."""
    return {
        "weights_sha256": model.weights.sha256,
        **text_checksums(model.weights, None),
        "dtype": model.lm.dtype,
        "machine": model.environment.machine_class,
        "text_sha256": source_digest(plan.text, data_folder),
        "tokens": plan.tokens,
        "context": plan.context,
    }


def captured_text(
    plan: SaePlan, model: LoadedModel, data_folder: Path, *, splits: Sequence[str] = SPLITS
) -> dict[str, Activations]:
    """The activations of a plan's text, captured unless they are there. If they are, the text is not read.

    Args:
        plan: The plan.
        model: The model, loaded.
        data_folder: The dataset repo, for text in files.
        splits: Which part of the text.

    Returns:
        Those of each split.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
        FormatError: What the cache has of it is damaged.
    """
    model.check_layers([plan.layer])
    key = activations_key(plan, model, data_folder)
    folder = work_folder(plan, key)
    if not holds(folder, plan.layer, key, splits):
        _capture(plan, model, data_folder, folder, key, splits)
    return {split: load_split(folder, split) for split in splits}


def _capture(
    plan: SaePlan, model: LoadedModel, data_folder: Path, folder: Path, key: dict[str, Any], splits: Sequence[str]
) -> None:
    passages = cut(model.lm, documents(plan.text, data_folder), context=plan.context, tokens=plan.tokens)
    if not {"train", "held_out"} <= {passage.split for passage in passages}:
        raise SteerEvalError(
            f"the text of the SAE of layer {plan.layer} has fewer than 10 documents, of which one in ten is held out",
            "name more text under saes.text in study.yaml",
        )
    total = sum(len(passage.ids) for passage in passages if passage.split in splits)
    with progress_bar(f"activations {plan.model} L={plan.layer}", total) as advance:
        capture(model.lm, passages, plan.layer, folder, key=key, splits=splits, on_tokens=advance)


def produce_sae(
    plan: SaePlan,
    model: LoadedModel,
    *,
    data_folder: Path,
    repo: Path,
    on_note: Callable[[str], None] = lambda _note: None,
) -> TopKSae:
    """Train an SAE and write it, unless the repo has the same one already.

    Args:
        plan: The plan.
        model: The model, loaded.
        data_folder: The dataset repo.
        repo: The model repo.
        on_note: Told why an SAE that is there is trained again.
    """
    recipe = RECIPES[plan.recipe]
    decides = {
        "method": "top-k",
        **recorded_of_plan(plan),
        "recipe_settings": json.dumps(recipe.to_json(), sort_keys=True),
        "weights_sha256": model.weights.sha256,
        "dtype": model.lm.dtype,
        **text_checksums(model.weights, None),
        "text_sha256": source_digest(plan.text, data_folder),
    }
    name = folder_name(plan.model, plan.layer)
    target = inside(repo, name)
    present = _same(target, decides, on_note=lambda why: on_note(f"{name} is trained again: {why}"))
    if present is not None:
        if not _has_activity(target, present):
            residuals = captured_text(plan, model, data_folder, splits=["train"])["train"]
            found = reconstruction(present, residuals.batches(BATCH), threshold=sink_threshold(present, str(target)))
            write_feature_activity(target, found.activity, tokens=found.tokens)
        return present
    captured = captured_text(plan, model, data_folder)
    train_on, held_out = captured["train"], captured["held_out"]
    passages = held_out.passages()
    training = Training(
        train_on, d_in=model.lm.hidden_size, d_sae=plan.features, k=plan.k, recipe=recipe, seed=plan.seed
    )
    entropy = LiveEntropy(model.lm, spread(passages, PASSAGES), plan.layer, threshold=training.sink_norm)
    folder = work_folder(plan, activations_key(plan, model, data_folder))
    log = TrainingLog(folder / f"training-{sha256_value(decides)[:16]}.jsonl", training, held_out, entropy.excess)
    _trained(training, log, f"SAE {plan.model} L={plan.layer}")
    sae = training.sae(layer=plan.layer, model=model.reference.base_model, provenance={})
    on_training = reconstruction(sae, train_on.batches(BATCH), threshold=training.sink_norm)
    quality = {
        **held_out_quality(sae, model, held_out, passages, threshold=training.sink_norm),
        "dead_share": round(on_training.silent, 6),
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
        model.lm.block_path(plan.layer),
    )  # fmt: skip
    # Never that of another SAE beside this one; after a kill in between, the next run adds it.
    (target / ACTIVITY).unlink(missing_ok=True)
    write_saelens(target, sae)
    write_feature_activity(target, on_training.activity, tokens=on_training.tokens)
    return sae


def held_out_text(plan: SaePlan, model: LoadedModel, data_folder: Path) -> tuple[Activations, list[Passage]]:
    """The tenth of a plan's text that is held out: its residuals, captured unless they are there, and its passages.

    Args:
        plan: The plan.
        model: The model, loaded.
        data_folder: The dataset repo, for text in files.

    Raises:
        SteerEvalError: The text can't be read, or is too short.
    """
    held_out = captured_text(plan, model, data_folder, splits=["held_out"])["held_out"]
    return held_out, held_out.passages()


def spread(passages: Sequence[Passage], count: int) -> list[Passage]:
    """So many passages at even distances, or all if there are no more; always the same ones.

    Args:
        passages: The passages, in the order of the text.
        count: How many.
    """
    wanted = min(count, len(passages))
    # The middle of each of so many stretches of one length.
    return [passages[(2 * number + 1) * len(passages) // (2 * wanted)] for number in range(wanted)]


def held_out_quality(
    sae: TopKSae, model: LoadedModel, held_out: Activations, passages: Sequence[Passage], *, threshold: float
) -> dict[str, Any]:
    """How good an SAE is on text that it was not trained on.

    Args:
        sae: The SAE.
        model: The model, loaded.
        held_out: Residuals of that text.
        passages: Its passages.
        threshold: Norm above which a residual is a sink.
    """
    found = reconstruction(sae, held_out.batches(BATCH), threshold=threshold)
    text = spread(passages, CE_PASSAGES)
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
        "cross_entropy_passages": len(text),
        "cross_entropy_tokens": entropy.tokens,
    }


def _trained(training: Training, log: TrainingLog, title: str) -> None:
    with progress_bar(title, training.steps) as advance:
        done = 0

        def on_step(progress: Progress) -> None:
            nonlocal done
            advance(progress.step - done, log.add(progress))
            done = progress.step

        train(training, checkpoint=log.file.with_suffix(".safetensors"), every=CHECKPOINT_EVERY, on_step=on_step)


def _same(folder: Path, decides: dict[str, str], *, on_note: Callable[[str], None]) -> TopKSae | None:
    """The SAE that a folder holds if it was made under these conditions; else None, and what has changed is told."""
    try:
        sae = read_trained(folder)
    except FormatError:
        return None
    known = {**dict.fromkeys(SAID_IF_SO), **decides}
    changed = [key for key, value in known.items() if sae.provenance.get(key) != value]
    if changed:
        on_note(", ".join(f"its {key} {_change(sae.provenance.get(key), known[key])}" for key in changed))
    return None if changed else sae


def _change(before: str | None, now: str | None) -> str:
    if before is None:
        return f"is not recorded, and is {_brief(now)} now"
    return f"was {_brief(before)}, and is {_brief(now)} now"


def _brief(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"


def _has_activity(folder: Path, sae: TopKSae) -> bool:
    """Whether a folder says what the features of its SAE do on the training text."""
    try:
        read_feature_activity(folder, sae.d_sae)
    except FormatError:
        return False
    return True
