"""A model repo as large as a real study's, made from a seed.

Invariant: equal sizes and seeds give equal files, and the files agree with each other: the source vector goes through
the maps to the carried vectors, `R` has orthonormal columns, norms, layers and features follow from what they describe,
and the manifest has every file's checksum. So `steer-eval validate` has nothing to say, however long it looks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steer_eval.formats.manifest import write_manifest

_PAIRS = 80
_PROMPTS = 30
_LAYER = 14
_CARD = """\
---
license: apache-2.0
tags:
  - activation-steering
---

# Steering artifacts of three sizes of a model

Made by a program, as large as a published study; what is in the tensors means nothing.

| Path | Contents | Size |
|---|---|---|
"""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """One size of the model, and what there is of it.

    Args:
        name: As it stands in file names.
        width: Of the residual stream.
        layers: Layers with a vector.
        d_sae: Features of its SAE; None if it has none.
    """

    name: str
    width: int
    layers: tuple[int, ...]
    d_sae: int | None = None


@dataclass(frozen=True)
class Sizes:
    """How large the repo is.

    Args:
        small: The model that the maps lead to.
        large: The model that they come from.
        others: Models with nothing but vectors.
    """

    small: Model
    large: Model
    others: tuple[Model, ...] = ()

    @property
    def models(self) -> tuple[Model, ...]:
        """All of them."""
        return (self.large, self.small, *self.others)


STUDY = Sizes(
    small=Model("small", 1024, (6, 10, 14, 18, 22), 4096),
    large=Model("large", 2048, (6, 10, 14, 18, 22), 8192),
    others=(Model("xlarge", 2560, (13, 18, 23)),),
)
"""As large as a published study: 13 vectors, carried vectors, maps and two SAEs, 193 MB together."""


def build(folder: Path, sizes: Sizes = STUDY, *, seed: int = 0) -> None:
    """Write the repo.

    Args:
        folder: Where; it is made.
        sizes: How large.
        seed: Of all random numbers.
    """
    rng = np.random.default_rng(seed)
    vectors = {
        (model.name, layer): rng.standard_normal(model.width, dtype=np.float32) * np.float32(0.125)
        for model in sizes.models
        for layer in model.layers
    }
    for (name, layer), vector in vectors.items():
        _save(folder / f"vectors/{name}_L{layer}_caa.pt", _caa(name, layer, vector))
    maps = _maps(sizes.large.width, sizes.small.width, rng)
    source, native = vectors[sizes.large.name, _LAYER], vectors[sizes.small.name, _LAYER]
    _save(folder / f"vectors/{sizes.small.name}_transferred_caa.pt", _carried(source, native, maps, rng))
    _save(folder / f"vectors/transfer_map_{sizes.large.name}_to_{sizes.small.name}.pt", maps)
    for model in sizes.models:
        if model.d_sae is not None:
            _save(folder / f"saes/{model.name}_L{_LAYER}_sae.pt", _sae(model, model.d_sae, rng))
            features = json.dumps(_features(model, model.d_sae, rng), indent=2) + "\n"
            (folder / f"saes/{model.name}_L{_LAYER}_features.json").write_text(features, encoding="utf-8")
    _write_card(folder)
    write_manifest(folder)


def _model_id(name: str) -> str:
    """An id that no Hub has, so that no configuration in a cache has a word on it."""
    return f"large-repo.invalid/{name}"


def _caa(name: str, layer: int, vector: Floats) -> dict[str, Any]:
    values = torch.from_numpy(vector)
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    return {"vector": values, "norm": norm, "layer": layer, "model": _model_id(name), "n_pairs": _PAIRS}


def _maps(large: int, small: int, rng: np.random.Generator) -> dict[str, Any]:
    """The maps as numpy arrays, which `torch.save` pickles as text of their bytes."""
    orthogonal, _ = np.linalg.qr(rng.standard_normal((large, small)))
    return {
        "W": rng.standard_normal((large, small), dtype=np.float32) / np.float32(large**0.5),
        "b": rng.standard_normal(small, dtype=np.float32),
        # Numpy's pickles of arrays in Fortran order are another matter; studies have the usual one.
        "R": np.ascontiguousarray(orthogonal, dtype=np.float32),
        "L_large": _LAYER,
        "L_small": _LAYER,
        "alpha": 100.0,
    }


def _carried(source: Floats, native: Floats, maps: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    random = rng.standard_normal(native.size, dtype=np.float32)
    vectors = {
        "v_ridge": source @ maps["W"],
        "v_procrustes": source @ maps["R"],
        "v_random": random * (np.linalg.norm(native) / np.linalg.norm(random)),
        "v_small_native": native,
        "v_large_source": source,
    }
    return {**{key: torch.from_numpy(vector) for key, vector in vectors.items()}, "L_small": _LAYER, "c_small": 1.0}


def _sae(model: Model, d_sae: int, rng: np.random.Generator) -> dict[str, Any]:
    shapes = {"W_enc": (model.width, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, model.width), "b_dec": (model.width,)}
    return {
        "state_dict": {
            key: torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for key, shape in shapes.items()
        },
        "d_model": model.width,
        "d_sae": d_sae,
        "k": min(32, d_sae),
        "layer": _LAYER,
        "model_id": _model_id(model.name),
        "final_recon": 0.25,
        "steps": 4000,
    }


def _features(model: Model, d_sae: int, rng: np.random.Generator) -> dict[str, Any]:
    """The features that change most, the largest change first."""
    chosen = rng.choice(d_sae, size=min(30, d_sae), replace=False)
    means = rng.uniform(0.01, 2.0, size=(len(chosen), 2))
    counts = rng.integers(1, _PROMPTS + 1, size=(len(chosen), 2))
    order = np.argsort(-np.abs(means[:, 0] - means[:, 1]))
    rows = [
        {
            "feature_id": int(chosen[index]),
            "delta": float(means[index, 0] - means[index, 1]),
            "steered_mean": float(means[index, 0]),
            "base_mean": float(means[index, 1]),
            "steered_freq": float(counts[index, 0] / _PROMPTS),
            "base_freq": float(counts[index, 1] / _PROMPTS),
        }
        for index in order
    ]
    return {
        "model": _model_id(model.name),
        "layer": _LAYER,
        "coef": 1.0,
        "n_prompts": _PROMPTS,
        "top_features": rows,
    }


def _save(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)


def _write_card(folder: Path) -> None:
    """A table of the files, each with its size."""
    rows = [
        f"| `{path.relative_to(folder).as_posix()}` | {path.stem.replace('_', ' ')} | {path.stat().st_size} bytes |"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "README.md").write_text(_CARD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # A process of its own: what measures stays small (see measuring.py), and this one needs the memory.
    build(Path(sys.argv[1]))
