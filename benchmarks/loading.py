"""Loading the packaged study's model from the cache: ours with its checksums, and transformers' own.

Run as a worker: `python benchmarks/loading.py STUDY`. Libraries are imported before the clock runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from serving import serve, threads
from transformers import AutoModelForCausalLM, AutoTokenizer

from steer_eval.model import load_model
from steer_eval.study import load_study
from steer_eval.weights import fetch


def main(study: str) -> None:
    torch.set_num_threads(threads())
    folder = Path(study)
    [reference] = load_study(folder / "study.yaml").models.values()
    model = fetch(reference, study_folder=folder).folder

    def ours() -> tuple[float, Any]:
        """Check the weights against what the study pins, and load them."""
        lm = load_model(fetch(reference, study_folder=folder).folder)
        return 1, sum(parameter.numel() for parameter in lm.module.parameters())

    def plain() -> tuple[float, Any]:
        """Load the same folder and check nothing."""
        AutoTokenizer.from_pretrained(model)
        module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        return 1, sum(parameter.numel() for parameter in module.parameters())

    serve({"ours": ours, "plain": plain})


if __name__ == "__main__":
    main(sys.argv[1])
