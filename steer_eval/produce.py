"""Producing a study's artifacts on a model: vectors and sweeps.

Invariant: what is produced depends on the study, its data and the weights only, and says so in its provenance. The same
functions make what is published and what a re-run compares it with.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from steer_eval import environment
from steer_eval.cells import Conditions, conditions, text_checksums
from steer_eval.comparison.methods import Comparison
from steer_eval.contrast import ContrastPair, pairs_digest
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.evaluation.memory import MOST_ROWS, PASS_TOKENS
from steer_eval.evaluation.probe import check_served
from steer_eval.evaluation.row_cache import can_join
from steer_eval.extract import pair_differences, steering_vectors
from steer_eval.formats.containment import inside
from steer_eval.formats.vector import SteeringVector, file_name, read_vector, write_vector
from steer_eval.measure import Bench
from steer_eval.model import LanguageModel, load_model
from steer_eval.model_reference import ModelReference
from steer_eval.progress import progress_bar
from steer_eval.results import Results
from steer_eval.run import Journal
from steer_eval.study import Study
from steer_eval.weights import Weights, fetch

VECTOR_FORMAT = "steer-eval/vector/1"
SAID_IF_SO = ("companions_sha256", "chat_template_sha256")
"""Keys of a model's provenance that not every model has: one that is absent says something, too."""
_LONGER_THAN_ANY_WINDOW = 2**40
"""In tokens."""


class LoadedModel:
    """A model of a study, its weights and the machine it runs on.

    Args:
        reference: The model, as the study names it.
        study_folder: Folder of the study; local paths are relative to it.
        dtype: Precision to measure in; None for the study's.

    Raises:
        SteerEvalError: The weights can't be had or loaded, or the engine would be wrong on the model.
    """

    def __init__(self, reference: ModelReference, study_folder: Path, *, dtype: str | None = None) -> None:
        self.reference = reference
        self.weights: Weights = fetch(reference, study_folder=study_folder)
        self.lm: LanguageModel = load_model(
            self.weights.folder, dtype=dtype or reference.dtype, chat_template=reference.chat_template
        )
        check_served(self.lm)
        self.environment = environment.current(device=self.lm.device.type, dtype=self.lm.dtype)
        self._differences: dict[tuple[str, int], Tensor] = {}

    def check_layers(self, layers: Collection[int]) -> None:
        """Refuse layers that the model does not have.

        Raises:
            SteerEvalError: A layer lies above the last block.
        """
        count = len(self.lm.blocks)
        strays = sorted(layer for layer in layers if layer >= count)
        if strays:
            raise SteerEvalError(
                f"model {self.reference.name} has {count} decoder blocks, the study names layers {strays}",
                "layers count from 0: mend extraction.layers in study.yaml",
            )

    def pair_differences(
        self,
        pairs: Sequence[ContrastPair],
        layers: Collection[int],
        *,
        keep: Collection[int] = (),
        memory: int | None = None,
    ) -> dict[int, Tensor]:
        """What each contrast pair adds to steering vectors; a layer that is kept is read once.

        Args:
            pairs: The contrast pairs.
            layers: Which layers.
            keep: Those of them that are asked for again, by transfers for example. Each takes the memory of its
                differences as long as the model is there.
            memory: Bytes that batches may take; None for half of what is free.

        Returns:
            For each layer float64 `[pairs, hidden_size]` on the CPU, in the order of the pairs.

        Raises:
            SteerEvalError: There is no such layer or no pair, or a reply is empty.
        """
        self.check_layers(layers)
        digest = pairs_digest(pairs)
        found = {layer: self._differences[digest, layer] for layer in layers if (digest, layer) in self._differences}
        missing = sorted(set(layers) - found.keys())
        if missing:
            with progress_bar(f"contrast pairs {self.reference.name}", 2 * len(pairs)) as advance:
                found |= pair_differences(self.lm, pairs, missing, memory=memory, on_texts=advance)
        self._differences |= {(digest, layer): each for layer, each in found.items() if layer in keep}
        return {layer: found[layer] for layer in layers}

    @property
    def conditions(self) -> Conditions:
        """What its measurements have in common."""
        return conditions(self.weights, self.environment, self.reference.chat_template)

    @property
    def provenance(self) -> dict[str, str]:
        """Which model it is, for what is made with it."""
        return {
            "model": self.reference.base_model,
            "revision": self.weights.revision,
            "weights_sha256": self.weights.sha256,
            **text_checksums(self.weights, self.reference.chat_template),
        }


def produce_vectors(
    study: Study,
    model: LoadedModel,
    pairs: Sequence[ContrastPair],
    layers: Collection[int],
    folder: Path,
    *,
    memory: int | None = None,
) -> dict[int, SteeringVector]:
    """Extract steering vectors and write them, unless the folder has the same ones already.

    Args:
        study: The study.
        model: The model, loaded.
        pairs: The contrast pairs.
        layers: Which layers.
        folder: The repo or run directory; vectors go to its `vectors/`.
        memory: Bytes that batches may take; None for half of what is free.

    Returns:
        The vectors, by layer.

    Raises:
        SteerEvalError: A vector is zero, or the model has no such layer.
    """
    model.check_layers(layers)
    provenance = {
        "format": VECTOR_FORMAT,
        "method": study.extraction.method,
        "positions": study.extraction.positions,
        **model.provenance,
        "n_pairs": str(len(pairs)),
        "pairs_sha256": pairs_digest(pairs),
        "dtype": model.lm.dtype,
        "machine": model.environment.machine_class,
        "versions": json.dumps(model.environment.versions, sort_keys=True),
    }
    paths = {layer: inside(folder, file_name(model.reference.name, layer)) for layer in sorted(layers)}
    vectors = {layer: vector for layer, path in paths.items() if (vector := _same(path, provenance)) is not None}
    missing = [layer for layer in paths if layer not in vectors]
    if missing:
        kept = study.transferred_layers(model.reference.name)
        extracted = steering_vectors(model.pair_differences(pairs, missing, keep=kept, memory=memory))
        if nothing := [layer for layer, tensor in extracted.items() if not tensor.any()]:
            raise SteerEvalError(
                f"the contrast pairs add nothing to the residuals of model {model.reference.name} at layers {nothing}",
                f"give the two replies of each pair in {study.extraction.pairs} different texts",
            )
        for layer, tensor in extracted.items():
            values = tensor.numpy()
            norm = float(np.linalg.norm(values.astype(np.float64)))
            vectors[layer] = SteeringVector(values, layer, {**provenance, "layer": str(layer), "norm": f"{norm:.9g}"})
            write_vector(paths[layer], vectors[layer])
    return vectors


def _same(path: Path, provenance: dict[str, str]) -> SteeringVector | None:
    """The vector that a file holds if it was made under these conditions, else None."""
    try:
        vector = read_vector(path)
    except FormatError:
        return None
    decides = {**dict.fromkeys(SAID_IF_SO), **provenance}
    return vector if all(vector.provenance.get(key) == value for key, value in decides.items()) else None


def bench(
    study: Study,
    model: LoadedModel,
    published: Results,
    journal: Journal,
    *,
    repo: Path | None = None,
    memory: int | None = None,
) -> Bench:
    """Set up the measurement of a model's cells with the published vectors and texts.

    Args:
        study: The study.
        model: The model, loaded.
        published: Vectors, prompts and corpus.
        journal: Where finished measurements go.
        repo: The model repo, for SAEs and carried vectors; None if no methods are to be compared.
        memory: Bytes that batches may take; None for half of what is free.

    Raises:
        FormatError: Something that is needed is absent or bad.
    """
    name = model.reference.name
    model.check_layers(study.layers(name))
    if published.prompts is None:
        raise FormatError(study.sweep.prompts, "", published.unusable.get(study.sweep.prompts, "absent"))
    if published.corpus is None:
        raise FormatError(study.perplexity.corpus, "", published.unusable.get(study.perplexity.corpus, "absent"))
    vectors = {}
    for layer in study.layers(name):
        vector = published.vectors.get((name, layer))
        if vector is None:
            file = file_name(name, layer)
            raise FormatError(
                file, "", published.unusable.get(file, "absent"), fix="run `steer-eval extract` on the study first"
            )
        vectors[layer] = vector
    prompts = published.prompts[: study.sweep.n_prompts]
    plan = study.comparison(name)
    comparison = None
    if plan is not None and repo is not None:
        model.check_layers(study.vector_layers(name))
        if not prompts:
            raise FormatError(study.sweep.prompts, "", "the file has no prompt", fix="a comparison needs at least one")
        comparison = Comparison(study, plan, model.lm, published, repo, prompts[0])
    return Bench(
        study, name, model.lm, model.conditions, vectors, prompts, published.corpus, journal, memory, comparison
    )


def environment_record(model: LoadedModel, *, memory: int | None = None) -> dict[str, Any]:
    """What a model was measured on, and how its rows were batched, for `environment.json`.

    What was free is left out: each grid finds it anew, and the same sweep would be recorded differently each time.

    Args:
        model: The model, loaded.
        memory: Bytes that batches were allowed to take; None for half of what is free.
    """
    habits = model.lm.habits
    return {
        **model.environment.to_json(),
        **({"habits_left_out": habits} if habits else {}),
        "weights_sha256": model.weights.sha256,
        "revision": model.weights.revision,
        "batching": {
            "perplexity_layout": "rows of one window share the blocks below their lowest edits; nothing is padded",
            "generation_layout": "rows of one prompt share the blocks below their lowest edits while it is read; "
            f"{_decoding_layout(model.lm)}",
            "memory_gb": "half of what is free when a grid begins" if memory is None else memory / 1e9,
            "pass_tokens_at_most": PASS_TOKENS,
            "decoding_rows_at_most": MOST_ROWS,
        },
    }


def _decoding_layout(lm: LanguageModel) -> str:
    """Which rows share a batch while they decode, as `evaluation/row_cache.py` decides."""
    if can_join(lm, longest=_LONGER_THAN_ANY_WINDOW):
        return "rows of all lengths decode together"
    if can_join(lm, longest=1):
        return "rows of all lengths decode together, unless one grows longer than a window or chunk: then of one length"
    return "rows of one length decode together"
