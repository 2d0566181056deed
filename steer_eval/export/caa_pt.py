"""Files as scripts of contrastive activation addition save them.

Invariant: each vector is a file of its own, a dict with the vector and what it was made from, that
`formats.caa_pt.read_caa_pt` reads back with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steer_eval.errors import SteerEvalError
from steer_eval.export.format import Format, Options, VectorSet
from steer_eval.export.torch_file import to_bytes
from steer_eval.formats.vector import SteeringVector


def render(vectors: VectorSet, _options: Options) -> dict[str, bytes]:
    """The vectors as one PyTorch file each.

    Raises:
        SteerEvalError: A vector does not state its model or its number of pairs.
    """
    return {
        f"{vectors.name}_L{layer}_caa.pt": to_bytes(_content(vectors.name, vector))
        for layer, vector in vectors.vectors.items()
    }


def _content(name: str, vector: SteeringVector) -> dict[str, object]:
    for key in ("model", "n_pairs"):
        if key not in vector.provenance:
            raise SteerEvalError(
                f"{name}: the vector of layer {vector.layer} does not state its {key}, which this format has",
                "choose a format that does without, for example steering-vectors",
            )
    return {
        "vector": vector.values,
        "norm": vector.norm,
        "layer": vector.layer,
        "model": vector.provenance["model"],
        "n_pairs": int(vector.provenance["n_pairs"]),
    }


def _usage(paths: Sequence[Path], _vectors: VectorSet, options: Options) -> str:
    return (
        "import torch\n"
        f'vector = {options.coefficient_text} * torch.load({str(paths[0])!r}, weights_only=True)["vector"]'
    )


CAA_PT = Format("vectors", render, _usage)
