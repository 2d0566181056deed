"""Perplexity with lm-eval's `steered` model, one cell at a time.

Run as a worker: `python benchmarks/peer_lm_eval.py FOLDER`. The evaluation harness around it is left out, in lm-eval's
favour: what is timed is `_loglikelihood_tokens` of its model, its own batching and hooks included. The model is loaded
once, before the clock runs; what a cell adds to its passes, the file of its vector included, is some milliseconds.
Windows go one by one, which is lm-eval's default; two in a batch take no less time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.hf_steered import SteeredModel
from serving import serve, threads, work
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main(folder: str) -> None:
    torch.set_num_threads(threads())
    given = work(folder)
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(given["model"])

    def perplexity(cells: list[int]) -> tuple[float, Any]:
        """Mean negative log-likelihood of the corpus in some cells."""
        means = []
        for cell in cells:
            layer, coefficient = given["cells"][cell]
            path = Path(folder) / "steered.pt"
            edit = {
                "steering_vector": torch.tensor(given["vectors"][str(layer)]),
                "steering_coefficient": coefficient,
                "action": "add",
                "bias": None,
            }
            torch.save({f"layers.{layer}": edit}, path)
            steered = SteeredModel(
                pretrained=model, steer_path=str(path), tokenizer=tokenizer, batch_size=1, device="cpu"
            )
            requests = [(("", ""), window[:1], window[1:]) for window in given["windows"]]
            scores = steered._loglikelihood_tokens(requests, disable_tqdm=True)
            means.append(-sum(score for score, _ in scores) / sum(len(window) - 1 for window in given["windows"]))
        return len(cells), means

    serve({"perplexity": perplexity})


if __name__ == "__main__":
    main(sys.argv[1])
