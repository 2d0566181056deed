"""What both sides of an interop test need: an export as the command makes it, and our own steered logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from studies import provenance

from steer_eval.formats.vector import SteeringVector, file_name, write_vector
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Add
from steer_eval.steering.row_edits import RowEdits


def write_vectors(folder: Path, vectors: Mapping[int, torch.Tensor], *, model: str = "tiny") -> None:
    """Vector files as `steer-eval extract` writes them."""
    for layer, values in vectors.items():
        vector = SteeringVector(values.numpy(), layer, {})
        write_vector(
            folder / file_name(model, layer),
            SteeringVector(vector.values, layer, provenance(model, layer, vector.norm)),
        )


def export(folder: Path, target: str, *, coefficient: float, layers: tuple[int, ...] = ()) -> str:
    """Run `steer-eval export` inside the folder, and give the lines that it prints for the other tool."""
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()", "export", str(folder)]
    options = ["--to", target, "--coef", str(coefficient), "--model-type", "llama", "--force", "--json"]
    options += ["--out", str(folder / "exported"), *(f"--layer={layer}" for layer in layers)]
    answer = subprocess.run([*program, *options], capture_output=True, text=True, timeout=300, env=os.environ)
    assert answer.returncode == 0, answer.stderr
    return str(json.loads(answer.stdout)["usage"])


@torch.no_grad()
def steered_logits(lm: LanguageModel, ids: list[int], edits: Mapping[int, torch.Tensor]) -> np.ndarray:
    """Our logits `[tokens, vocabulary]` with a vector added to the output of each given block."""
    row = tuple(Add(layer, delta, 1.0) for layer, delta in edits.items())
    with RowEdits.of(lm, [row]).applied(lm.blocks, prompt=0):
        logits: np.ndarray = lm.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
    return logits
