"""Bringing the packaged study's model from the cache into memory: our way, and transformers alone.

Run as a worker: `python benchmarks/loading.py STUDY ours|plain`. Before the clock runs are imported torch, the top of
transformers, and the modules that our commands have imported by then; the module of the model's architecture, and what
of transformers it rests on, is not among these.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from serving import serve, threads
from transformers import AutoModelForCausalLM, AutoTokenizer

import steer_eval.produce  # noqa: F401 - what commands that measure have imported by then
from steer_eval.model import load_model
from steer_eval.study import load_study
from steer_eval.weights import fetch

_FOLDER = """
import pathlib, sys
from steer_eval.study import load_study
from steer_eval.weights import fetch
folder = pathlib.Path(sys.argv[1])
[reference] = load_study(folder / "study.yaml").models.values()
print(fetch(reference, study_folder=folder).folder)
"""


def main(study: str, way: str) -> None:
    torch.set_num_threads(threads())
    folder = Path(study)
    [reference] = load_study(folder / "study.yaml").models.values()
    loaded: list[Any] = []

    def ours() -> tuple[float, Any]:
        """Check the weights against what the study pins, and load them."""
        loaded.append(load_model(fetch(reference, study_folder=folder).folder, dtype=reference.dtype).module)
        return 1, None

    def plain() -> tuple[float, Any]:
        """Load the same folder and check nothing."""
        AutoTokenizer.from_pretrained(model)
        loaded.append(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
        return 1, None

    def weights() -> tuple[float, Any]:
        """The sum of each parameter."""
        sums = {name: float(each.sum(dtype=torch.float64)) for name, each in loaded[-1].named_parameters()}
        return len(sums), sums

    if way == "plain":
        # Found out by a process of its own, as that imports what is to be timed.
        found = subprocess.run([sys.executable, "-c", _FOLDER, study], check=True, capture_output=True, text=True)
        model = found.stdout.strip()
    serve({"load": {"ours": ours, "plain": plain}[way], "weights": weights})


if __name__ == "__main__":
    main(*sys.argv[1:])
