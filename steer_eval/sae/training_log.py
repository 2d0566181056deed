"""What a training says of itself while it runs.

Invariant: the rows up to a step are a function of the training up to there. A resumed training writes the rows after
its checkpoint again, so the file of one that was killed is that of one that was not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from steer_eval.formats.strict_json import read_jsonl, write_jsonl
from steer_eval.sae.activations import Activations
from steer_eval.sae.quality import BATCH, reconstruction
from steer_eval.sae.training import Progress, Training

EVERY = 100
"""Steps between measurements on held-out text; one costs about as much as three steps."""
SAMPLE = 4096
"""Held-out tokens that are measured on while training runs; the final figures are over all of them."""


class TrainingLog:
    """Rows of measurements, in a JSONL file.

    Args:
        file: The file.
        training: The training, before its first step.
        held_out: Residuals of text that it is not trained on.
    """

    def __init__(self, file: Path, training: Training, held_out: Activations) -> None:
        self.file, self.training = file, training
        spread = torch.arange(0, len(held_out), max(1, len(held_out) // SAMPLE))[:SAMPLE]
        self.sample = torch.split(held_out.rows(spread), BATCH)
        self.rows: list[dict[str, Any]] = []

    def add(self, progress: Progress) -> str:
        """Measure, if it is time.

        Args:
            progress: How training stands.

        Returns:
            The measurement in words; empty if it is not time.
        """
        if progress.step % EVERY and progress.step != self.training.steps:
            return ""
        if not self.rows:
            # Those of the steps before the checkpoint that training went on from.
            self.rows = [row for row in self._written() if row["step"] < progress.step]
        sae = self.training.sae(layer=0, model="", provenance={})
        found = reconstruction(sae, self.sample, threshold=self.training.sink_norm)
        self.rows.append(
            {
                "step": progress.step,
                "batch_fvu": round(progress.loss, 6),
                "held_out_fvu": round(found.fvu, 6),
                "held_out_l0": round(found.l0, 4),
                "dead_share": round(progress.dead, 6),
            }
        )
        write_jsonl(self.file, self.rows)
        return f"held-out FVU {found.fvu:.3f}, L0 {found.l0:.1f}, dead {100 * progress.dead:.1f} %"

    def close(self, quality: dict[str, Any]) -> None:
        """Add the figures of the finished SAE, as a last row.

        Args:
            quality: The figures.
        """
        measured = [row for row in self._written() if "quality" not in row]
        write_jsonl(self.file, [*measured, {"step": self.training.step, "quality": quality}])

    def _written(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        return [row.value for row in read_jsonl(self.file, schema="sae_training_row")]
