"""What a training says of itself while it runs.

Invariant: the rows up to a step are a function of the training up to there. A resumed training writes the rows after
its checkpoint again, so the file of one that was killed is that of one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from steer_eval.errors import SteerEvalError
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.strict_json import read_jsonl, write_jsonl
from steer_eval.sae.activations import Activations
from steer_eval.sae.quality import BATCH, reconstruction
from steer_eval.sae.training import Progress, Training

EVERY = 100
"""Steps between measurements on held-out text; one costs about as much as three steps."""
ENTROPY_EVERY = 500
"""Steps between measurements of excess cross-entropy; one costs as much as 16 steps of the packaged SAE, its 256 tokens
run through 11 of 30 blocks and the LM head. By FLOPs it is fewer in larger models, whose SAEs grow with them."""
SAMPLE = 4096
"""Held-out tokens that are measured on while training runs; the final figures are over all of them."""


class TrainingLog:
    """Rows of measurements, in a JSONL file.

    Args:
        file: The file.
        training: The training, before its first step.
        held_out: Residuals of text that it is not trained on.
        excess: Measures the excess cross-entropy of an SAE, in nats per token; None where there is no text for it.
    """

    def __init__(
        self, file: Path, training: Training, held_out: Activations, excess: Callable[[TopKSae], float | None]
    ) -> None:
        self.file, self.training, self.excess = file, training, excess
        spread = torch.arange(0, len(held_out), max(1, len(held_out) // SAMPLE))[:SAMPLE]
        self.sample = torch.split(held_out.rows(spread), BATCH)
        self.rows: list[dict[str, Any]] = []

    def add(self, progress: Progress) -> str:
        """Measure, if it is time.

        Args:
            progress: How training stands.

        Returns:
            The measurement in words; empty if it is not time.

        Raises:
            SteerEvalError: All tokens of the batch are alike.
        """
        if progress.step % EVERY and progress.step != self.training.steps:
            return ""
        if not math.isfinite(progress.loss):
            raise SteerEvalError(
                f"step {progress.step}: the residuals of the batch have no variance to explain, as where all tokens "
                "are the same one",
                "name text that is less uniform under saes.text in study.yaml",
            )
        if not self.rows:
            # Those of the steps before the checkpoint that training went on from.
            self.rows = [row for row in self._written() if row["step"] < progress.step]
        sae = self.training.sae(layer=0, model="", provenance={})
        found = reconstruction(sae, self.sample, threshold=self.training.sink_norm)
        row = {
            "step": progress.step,
            "batch_fvu": round(progress.loss, 6),
            "held_out_fvu": round(found.fvu, 6),
            "held_out_l0": round(found.l0, 4),
            "lately_dead_share": round(progress.dead, 6),
        }
        due = progress.step % ENTROPY_EVERY == 0 or progress.step == self.training.steps
        excess = self.excess(sae) if due else None
        if excess is not None:
            row["excess_cross_entropy"] = round(excess, 6)
        self.rows.append(row)
        write_jsonl(self.file, self.rows)
        return f"held-out FVU {found.fvu:.3f}, L0 {found.l0:.1f}, dead {100 * progress.dead:.1f} %{self._last_excess()}"

    def _last_excess(self) -> str:
        """The last excess cross-entropy that was measured, in words; empty if there is none yet."""
        for row in reversed(self.rows):
            if "excess_cross_entropy" in row:
                return f", excess {row['excess_cross_entropy']:.3f} nats"
        return ""

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
