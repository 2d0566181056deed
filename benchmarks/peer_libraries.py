"""What libraries offer: `steering-vectors` or `repeng`, all prompts of a cell in one batch, one cell at a time.

Run as a worker in the library's own environment: `python benchmarks/peer_libraries.py FOLDER LIBRARY`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from serving import serve, threads, versions, work
from transformers import AutoModelForCausalLM

Steer = Callable[[Any, int, torch.Tensor, float], AbstractContextManager[Any]]


@contextmanager
def with_steering_vectors(model: Any, layer: int, vector: torch.Tensor, coefficient: float) -> Iterator[Any]:
    from steering_vectors import SteeringVector

    with SteeringVector(layer_activations={layer: vector}).apply(model, multiplier=coefficient):
        yield model


@contextmanager
def with_repeng(model: Any, layer: int, vector: torch.Tensor, coefficient: float) -> Iterator[Any]:
    from repeng import ControlModel, ControlVector

    controlled = ControlModel(model, [layer])
    controlled.set_control(ControlVector(model.config.model_type, {layer: vector.numpy()}), coefficient)
    try:
        yield controlled
    finally:
        controlled.reset()
        controlled.unwrap()


LIBRARIES: dict[str, Steer] = {"steering-vectors": with_steering_vectors, "repeng": with_repeng}


@torch.no_grad()
def main(folder: str, library: str) -> None:
    torch.set_num_threads(threads())
    given = work(folder)
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32).eval()
    vectors = {int(layer): torch.tensor(values) for layer, values in given["vectors"].items()}
    width = max(map(len, given["prompts"]))
    # Padded on the left, as generation needs it.
    ids = torch.tensor([[given["eos"][0]] * (width - len(prompt)) + prompt for prompt in given["prompts"]])
    seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in given["prompts"]])

    def sweep(cells: list[int], tokens: int) -> tuple[float, Any]:
        """Texts of all prompts in some cells, as tokens."""
        texts = []
        for cell in cells:
            layer, coefficient = given["cells"][cell]
            with LIBRARIES[library](model, layer, vectors[layer], coefficient) as steered:
                output = steered.generate(
                    input_ids=ids,
                    attention_mask=seen,
                    max_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=given["eos"][0],
                )
            texts += [_until_end(row.tolist(), given["eos"]) for row in output[:, width:]]
        return sum(map(len, texts)), texts

    serve({"sweep": sweep, "versions": versions(library, "transformers", "numpy")})


def _until_end(tokens: list[int], eos: list[int]) -> list[int]:
    """A text with its end-of-sequence token and without the padding after it."""
    ends = [place for place, token in enumerate(tokens) if token in eos]
    return tokens[: ends[0] + 1] if ends else tokens


if __name__ == "__main__":
    main(*sys.argv[1:])
