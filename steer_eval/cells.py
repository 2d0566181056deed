"""Cells: the points of a sweep, as values.

Invariant: a cell is identified by what it is (model, label, layer, coefficient), and its measurements by a content key
over everything that decides their value: weights, tokenizer, precision, machine class, edit, and the texts. Equal keys
mean that a measurement need not be made again; nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.claims.claim import Label
from steer_eval.digest import sha256_text, sha256_value
from steer_eval.study import Study

if TYPE_CHECKING:
    from steer_eval.environment import Environment
    from steer_eval.weights import Weights

PROTOCOL = "steer-eval/cell/1"


@dataclass(frozen=True)
class Cell:
    """One (model, intervention) point.

    Args:
        model: Name of the model in the study.
        label: `steered`, or which control: `zero` (coefficient 0 through the same hook), `random` (a random
            direction of the vector's norm), `anchor` (no edit, a system prompt instead).
        layer: Index of the steered block; None for the anchor, and where several are steered.
        coef: Coefficient; 0 for `zero` and `anchor`, and for methods without one.
        variant: Which method of the study's comparison; None for a cell of the sweep. A method's cell is labelled
            `steered`, its control `random`.
    """

    model: str
    label: Label
    layer: int | None
    coef: float
    variant: str | None = None

    def __str__(self) -> str:
        where = "" if self.layer is None else f" L={self.layer}"
        if self.layer is not None and (self.variant is None or self.coef):
            where += f" c={self.coef:+g}"
        method = f" {self.variant}" if self.variant else ""
        return f"{self.model}{method} {self.label}{where}"


def plan(study: Study, model: str) -> list[Cell]:
    """All cells of a study's sweep on one model, controls first."""
    sweep = study.sweep
    layers = study.layers(model)
    grid = [(layer, coef) for layer in layers for coef in study.coefficients(model)]
    zero = [Cell(model, "zero", layers[0], 0.0)] if sweep.zero else []
    anchor = [Cell(model, "anchor", None, 0.0)] if sweep.anchor is not None else []
    steered = [Cell(model, "steered", layer, coef) for layer, coef in grid]
    random = [Cell(model, "random", layer, coef) for layer, coef in grid] if sweep.random_seed is not None else []
    return [*zero, *anchor, *steered, *random]


def wants_text(study: Study, cell: Cell) -> bool:
    """Whether the plan asks for generations of a cell, provided that it does not collapse."""
    if cell.variant is not None:
        return True
    return cell.label != "random" or cell.coef in study.sweep.random_text_coefficients


def prompts_of(study: Study, cell: Cell, prompts: Sequence[str]) -> Sequence[str]:
    """Which of the evaluation prompts a cell has text on: the first ones of the sweep, or of a comparison.

    Args:
        study: The study.
        cell: The cell.
        prompts: The evaluation prompts.
    """
    comparison = study.comparison(cell.model) if cell.variant is not None else None
    return prompts[: study.sweep.n_prompts][: comparison.prompts if comparison else None]


def random_direction(vector: NDArray[np.float32], *, seed: int, layer: int) -> NDArray[np.float32]:
    """A random direction with a vector's norm, the control that tells steering from perturbation.

    Args:
        vector: The steering vector, `[hidden_size]`.
        seed: The study's seed.
        layer: The vector's layer; each layer has a direction of its own.

    Returns:
        A vector uniform on the sphere of that radius, float32 `[hidden_size]`, the same on every machine.
    """
    direction = np.random.Generator(np.random.Philox(key=[seed, layer])).standard_normal(vector.shape)
    direction *= np.linalg.norm(vector.astype(np.float64)) / np.linalg.norm(direction)
    return direction.astype(np.float32)


@dataclass(frozen=True)
class Conditions:
    """What all measurements of one model in one run have in common.

    Args:
        weights_sha256: Checksum of the weights.
        circumstances: What else decides tokens and arithmetic: machine class and package versions; checksums of what
            lies beside the weights, if anything does, and of the study's own chat template, if it has one.
    """

    weights_sha256: str
    circumstances: str


def conditions(weights: Weights, environment: Environment, chat_template: str | None) -> Conditions:
    """The conditions under which a loaded model is measured.

    Args:
        weights: Its weights.
        environment: What it computes on.
        chat_template: The study's own; None for the tokenizer's.
    """
    versions = [f"{name}-{environment.versions[name]}" for name in ("transformers", "tokenizers", "steer-eval")]
    texts = [f"{key}-{value}" for key, value in text_checksums(weights, chat_template).items()]
    return Conditions(weights.sha256, " ".join([environment.machine_class, *versions, *texts]))


def text_checksums(weights: Weights, chat_template: str | None) -> dict[str, str]:
    """Checksums of what decides a model's tokens and is no part of its weight files, by the name in provenance.

    Args:
        weights: The model's weights.
        chat_template: The study's own; None for the tokenizer's.
    """
    checksums = {
        "companions_sha256": weights.companions_sha256,
        "chat_template_sha256": None if chat_template is None else sha256_text(chat_template),
    }
    return {name: value for name, value in checksums.items() if value is not None}


def perplexity_key(
    conditions: Conditions,
    edits: Sequence[Sequence[Any]],
    context: str | dict[str, str] | None,
    corpus: dict[str, Any],
) -> str:
    """Content key of a cell's perplexity.

    Args:
        conditions: Weights and circumstances.
        edits: What decides each edit (`treatment.py`).
        context: System prompt before each window, if any; or what else stands there.
        corpus: Checksum of the corpus and how it is cut.
    """
    return _key("perplexity", conditions, edits, {"context": context, "corpus": corpus})


def text_key(
    conditions: Conditions,
    edits: Sequence[Sequence[Any]],
    system: str | None,
    prompt: str,
    max_new_tokens: int,
) -> str:
    """Content key of a cell's greedy text on one prompt."""
    return _key("text", conditions, edits, {"system": system, "prompt": prompt, "max_new_tokens": max_new_tokens})


def _key(kind: str, conditions: Conditions, edits: Sequence[Sequence[Any]], rest: dict[str, Any]) -> str:
    value = {
        "protocol": PROTOCOL,
        "kind": kind,
        "weights": conditions.weights_sha256,
        "machine": conditions.circumstances,
        "edits": [list(edit) for edit in edits],
        **rest,
    }
    return sha256_value(value)
