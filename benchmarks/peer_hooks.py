"""What studies do: a forward hook, and `model.generate` or a forward pass, one cell and one text at a time.

Run as a worker: `python benchmarks/peer_hooks.py FOLDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from serving import serve, threads, work
from transformers import AutoModelForCausalLM


@contextmanager
def steered(model: Any, layer: int, vector: torch.Tensor) -> Iterator[None]:
    """Add a vector to a block's output."""

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    handle = model.model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def main(folder: str) -> None:
    torch.set_num_threads(threads())
    given = work(folder)
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32).eval()
    vectors = {int(layer): torch.tensor(values) for layer, values in given["vectors"].items()}

    def sweep(rows: list[list[int]], tokens: int) -> tuple[float, Any]:
        """Texts of some (cell, prompt), as tokens."""
        texts = []
        for cell, prompt in rows:
            layer, coefficient = given["cells"][cell]
            ids = torch.tensor([given["prompts"][prompt]])
            with steered(model, layer, coefficient * vectors[layer]):
                output = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=given["eos"][0],
                )
            texts.append(output[0, ids.shape[1] :].tolist())
        return sum(map(len, texts)), texts

    def perplexity(cells: list[int]) -> tuple[float, Any]:
        """Mean negative log-likelihood of the corpus in some cells."""
        means = []
        for cell in cells:
            layer, coefficient = given["cells"][cell]
            total = count = 0.0
            for window in given["windows"]:
                ids = torch.tensor([window])
                with steered(model, layer, coefficient * vectors[layer]):
                    logits = model(input_ids=ids, use_cache=False).logits[0]
                total += float(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))
                count += len(window) - 1
            means.append(total / count)
        return len(cells), means

    def extract(pairs: int) -> tuple[float, Any]:
        """Vectors of all layers from the first pairs: a pass per layer and text, the LM head included."""
        vectors = {}
        for layer in sorted(int(layer) for layer in given["vectors"]):
            kept: list[torch.Tensor] = []

            def keep(_module: Any, _inputs: Any, output: Any, kept: list[torch.Tensor] = kept) -> None:
                kept.append(output[0] if isinstance(output, tuple) else output)

            handle = model.model.layers[layer].register_forward_hook(keep)
            total = torch.zeros(model.config.hidden_size, dtype=torch.float64)
            for prompt, *replies in given["pairs"][:pairs]:
                for reply, sign in zip(replies, (1, -1), strict=True):
                    model(input_ids=torch.tensor([prompt + reply]), use_cache=False)
                    total += sign * kept.pop()[0, len(prompt) :].double().mean(dim=0)
            handle.remove()
            vectors[layer] = (total / pairs).tolist()
        return pairs, vectors

    serve({"sweep": sweep, "perplexity": perplexity, "extract": extract})


if __name__ == "__main__":
    main(sys.argv[1])
