"""Files for the steering-vectors library.

Invariant: a file is a dict from the layer, counted from 0, to its vector, float32 `[hidden_size]`: what the library's
`SteeringVector` takes as `layer_activations`. The library has no file format of its own but the pickle of that class,
which needs `weights_only=False`; this file does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steer_eval.export.format import Format, Options, VectorSet
from steer_eval.export.torch_file import to_bytes


def render(vectors: VectorSet, _options: Options) -> dict[str, bytes]:
    """The vectors as one PyTorch file."""
    content = {layer: vector.values for layer, vector in vectors.vectors.items()}
    return {f"{vectors.name}_steering_vectors.pt": to_bytes(content)}


def _usage(paths: Sequence[Path], _vectors: VectorSet, options: Options) -> str:
    return (
        "import torch\n"
        "from steering_vectors import SteeringVector\n"
        f"vector = SteeringVector(layer_activations=torch.load({str(paths[0])!r}, weights_only=True))\n"
        f"with torch.no_grad(), vector.apply(model, multiplier={options.coefficient_text}):\n"
        "    model.generate(**inputs)"
    )


STEERING_VECTORS = Format("vectors", render, _usage)
