"""Vectors to export, with the provenance of vectors that were measured."""

from __future__ import annotations

import numpy as np
from studies import provenance

from steer_eval.export.format import VectorSet
from steer_eval.formats.vector import SteeringVector


def vector(layer: int, *, size: int = 48, model: str = "tiny") -> SteeringVector:
    values = np.random.default_rng(layer).normal(size=size).astype(np.float32)
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return SteeringVector(values, layer, provenance(model, layer, norm))


def vector_set(*layers: int) -> VectorSet:
    return VectorSet("tiny", {layer: vector(layer) for layer in layers})
