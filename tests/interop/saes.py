"""SAEs for interop tests: a file like the study's, exported by the command, and what another tool makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pt_files
import torch
from safetensors.torch import load_file, save_file

from steer_eval.formats.sae import TopKSae, read_sae_pt

D_IN, D_SAE, K, ROWS = 576, 2304, 32, 128
"""Sizes of an SAE of SmolLM2-135M, and how many residuals are encoded."""


@dataclass(frozen=True, eq=False)
class Exported:
    """An SAE of the study's form, its original tensors, and the lines that load its export."""

    sae: TopKSae
    original: dict[str, torch.Tensor]
    usage: str


def export_sae(folder: Path, target: str, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Exported:
    """Save an SAE as the study does, and run `steer-eval export` on the file."""
    content = pt_files.sae(D_IN, D_SAE, k=K, dtype=dtype, seed=seed)
    path = pt_files.saved(folder / "sae.pt", content)
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()", "export", str(path)]
    options = ["--to", target, "--out", str(folder / "exported"), "--json"]
    answer = subprocess.run([*program, *options], capture_output=True, text=True, timeout=300, env=os.environ)
    assert answer.returncode == 0, answer.stderr
    return Exported(read_sae_pt(path), content["state_dict"], str(json.loads(answer.stdout)["usage"]))


def residuals(folder: Path, width: int = D_IN) -> torch.Tensor:
    """Residuals `[ROWS, width]`, also in a file of that name."""
    values = 3 * torch.randn(ROWS, width, generator=pt_files.generator(99)) + 0.5
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"residuals": values}, folder / "residuals.safetensors")
    return values


def job(folder: Path, name: str, usage: str) -> dict[str, str]:
    """What a consumer is to do with one SAE, on the residuals of the folder."""
    return {"usage": usage, "residuals": str(folder / "residuals.safetensors"), "out": str(folder / f"{name}.out")}


def results(folder: Path, name: str) -> dict[str, Any]:
    """What the consumer wrote for a job: `acts`, `decoded`, `forward` and the `state`."""
    stored = load_file(folder / f"{name}.out")
    state = {key.removeprefix("state."): tensor for key, tensor in stored.items() if key.startswith("state.")}
    return {**{key: tensor for key, tensor in stored.items() if not key.startswith("state.")}, "state": state}
