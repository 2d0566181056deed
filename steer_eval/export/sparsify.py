"""Folders of EleutherAI's sparsify, alone or in one with SAELens'.

Invariant: sparsify's `SparseCoder.load_from_disk` takes an exported folder and encodes and decodes as `sae/topk.py`
does, up to the rounding of float32 sums, which it adds in another order; so the features that fire are the same except
where two pre-activations at the k-th place are that close. sparsify computes in the dtype of the file, so the file is
float32, which holds every stored value exactly. Like ours, its encoder subtracts `b_dec` (its transcoders do not, so
`transcode` is off), and taking the ReLU before the k largest instead of after gives the same activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_eval.export import saelens
from steer_eval.export.format import Format, Options
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import CONFIG, config_file, config_of, saelens_files, safetensors_of
from steer_eval.formats.saelens import WEIGHTS as SAELENS_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "sae.safetensors"
_UNIT_NORM = 1e-5


def render(sae: TopKSae, _options: Options) -> dict[str, bytes]:
    """The SAE as sparsify saves it: `sae.safetensors` and `cfg.json`."""
    # sparsify has no field for model and layer, and skips fields that it does not know.
    config = {**_config(sae), "metadata": config_of(sae)["metadata"]}
    return saelens.in_folder(sae, {WEIGHTS: _weights(sae), CONFIG: config_file(config)})


def render_both(sae: TopKSae, _options: Options) -> dict[str, bytes]:
    """The SAE as one folder that SAELens and sparsify both load; it has the weights twice."""
    # Each loader skips the other's settings; those of one name, d_in and k, mean the same to both.
    config = config_file({**config_of(sae), **_config(sae)})
    weights = {SAELENS_WEIGHTS: saelens_files(sae)[SAELENS_WEIGHTS], WEIGHTS: _weights(sae)}
    return saelens.in_folder(sae, {**weights, CONFIG: config})


def usage(paths: Sequence[Path], _sae: TopKSae, _options: Options) -> str:
    """The lines that load it with sparsify."""
    return f"from sparsify import SparseCoder\nsae = SparseCoder.load_from_disk({str(paths[0].parent)!r})"


def usage_both(paths: Sequence[Path], sae: TopKSae, options: Options) -> str:
    """The lines that load it with either."""
    return f"{saelens.usage(paths, sae, options)}\n\n{usage(paths, sae, options)}"


SPARSIFY = Format("sae", render, usage)
SAE_BOTH = Format("sae", render_both, usage_both)


def _config(sae: TopKSae) -> dict[str, Any]:
    return {
        "activation": "topk",
        # Counts only where num_latents is 0; no whole number need fit.
        "expansion_factor": max(1, sae.d_sae // sae.d_in),
        "normalize_decoder": _has_unit_norm(sae.w_dec),
        "num_latents": sae.d_sae,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
    }


def _has_unit_norm(w_dec: Tensor) -> bool:
    """Whether the SAE stays the same when sparsify, training it further, sets its decoder's norms to 1."""
    import torch

    norms = torch.linalg.vector_norm(w_dec, dim=-1, dtype=torch.float64)
    return bool(((norms - 1).abs() <= _UNIT_NORM).all())


def _weights(sae: TopKSae) -> bytes:
    named = {"encoder.weight": sae.w_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    return safetensors_of({key: tensor.float() for key, tensor in named.items()})
