"""Our side of the speed comparisons: `python benchmarks/ours.py FOLDER [DTYPE]`, run as a worker.

Invariant: its batches have the same budget in every run (`MEMORY`). The default of the toolkit is a share of what is
free, and would depend on which other workers are there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from products import NotedProducts
from serving import serve, threads, work

from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.extract import TokenisedPair, steering_vectors, token_differences
from steer_eval.model import LanguageModel, load_model
from steer_eval.steering.interventions import Add, Intervention

MEMORY = 8 * 10**9
"""Bytes for batches beside the weights. All rows of the packaged study's grid decode together in it."""


class Ours:
    """The handlers.

    Args:
        folder: Where the work is.
        dtype: Precision.
    """

    def __init__(self, folder: str, dtype: str) -> None:
        self.given = work(folder)
        self.lm: LanguageModel = load_model(Path(self.given["model"]), dtype=dtype)
        self.vectors = {int(layer): torch.tensor(values) for layer, values in self.given["vectors"].items()}

    def intervention(self, cell: int) -> Intervention:
        layer, coefficient = self.given["cells"][cell]
        return (Add(layer, self.vectors[layer], coefficient),)

    def sweep(self, cells: list[int], prompts: int, tokens: int) -> tuple[float, Any]:
        """Texts of some cells on the first prompts, as tokens, with the gaps between the two largest logits."""
        rows = [(cell, prompt) for cell in cells for prompt in range(prompts)]
        requests = [Request(tuple(self.given["prompts"][prompt]), self.intervention(cell)) for cell, prompt in rows]
        texts = dict(generate_grid(self.lm, requests, max_new_tokens=tokens, memory=MEMORY))
        result = [[*rows[index], text.ids, text.tie_at] for index, text in texts.items()]
        return sum(len(text.gaps) for text in texts.values()), result

    def perplexity(self, cells: list[int]) -> tuple[float, Any]:
        """Mean negative log-likelihood of the corpus in some cells."""
        windows = tuple(
            Window((), tuple(ids), torch.zeros(len(ids) - 1, dtype=torch.long).numpy()) for ids in self.given["windows"]
        )
        edits = list(map(self.intervention, cells))
        scores = dict(perplexity_grid(self.lm, TokenisedCorpus(windows, 1), edits, memory=MEMORY))
        return len(cells), [float(scores[place].mean()) for place in range(len(cells))]

    def extract(self, pairs: int) -> tuple[float, Any]:
        """Vectors of all layers from the first pairs."""
        tokens = [
            TokenisedPair(tuple(prompt), (tuple(positive), tuple(negative)))
            for prompt, positive, negative in self.given["pairs"][:pairs]
        ]
        vectors = steering_vectors(token_differences(self.lm, tokens, sorted(self.vectors), memory=MEMORY))
        return pairs, {layer: vector.tolist() for layer, vector in vectors.items()}

    def shapes(self, kind: str, **request: Any) -> tuple[float, Any]:
        """Matrix products of a piece of work, attention's included, in the order in which it does them."""
        with NotedProducts() as noted:
            getattr(self, kind)(**request)
        return len(noted.seen), noted.seen


if __name__ == "__main__":
    torch.set_num_threads(threads())
    ours = Ours(*sys.argv[1:2], *(sys.argv[2:] or ["float32"]))
    serve({"sweep": ours.sweep, "perplexity": ours.perplexity, "extract": ours.extract, "shapes": ours.shapes})
