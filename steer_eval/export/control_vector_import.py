"""From a control vector of another tool to vectors of ours.

Invariant: the values are the file's, as float32; each vector says from which file it comes, by name and SHA-256. What
the file itself records about its origin is kept where our format knows the key. Whose model it is, is the user's word;
a file that says otherwise is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from steer_eval.digest import sha256_file
from steer_eval.errors import SteerEvalError
from steer_eval.export.gguf_control_vector import read_control_vector
from steer_eval.formats.schema import check
from steer_eval.formats.vector import SteeringVector

SOURCE_FORMAT = "gguf-control-vector"
_KEPT = ("positions", "revision", "weights_sha256", "n_pairs", "pairs_sha256")


def import_control_vector(path: Path, *, model: str | None, method: str) -> dict[int, SteeringVector]:
    """Read a GGUF control vector as vectors of ours.

    Args:
        path: The file.
        model: Hub id of the model that it is of; None for the one that the file names.
        method: How the directions were found, where the file does not say.

    Returns:
        The vectors by layer, in ascending order.

    Raises:
        FormatError: The file is no control vector.
        SteerEvalError: It is of another model, or it is unclear of which.
    """
    control = read_control_vector(path)
    digest = sha256_file(path)
    result: dict[int, SteeringVector] = {}
    for layer, values in control.directions.items():
        recorded = control.provenance.get(layer, {})
        norm = float(np.linalg.norm(values.astype(np.float64)))
        provenance = {
            "format": "steer-eval/vector/1",
            "method": recorded.get("method", method),
            "model": _model(recorded.get("model"), model, f"{path}: the direction of layer {layer}"),
            "layer": str(layer),
            "norm": f"{norm:.9g}",
            "dtype": control.dtypes[layer],
            "source_format": SOURCE_FORMAT,
            "source_file": path.name,
            "source_sha256": digest,
        }
        provenance.update({key: recorded[key] for key in _KEPT if key in recorded})
        tensor = {"dtype": "F32", "shape": [values.size], "data_offsets": [0, values.nbytes]}
        # Before any file is written, and by the name of this one.
        check({"__metadata__": provenance, "vector": tensor}, "vector", file=str(path), where=f"direction.{layer}")
        result[layer] = SteeringVector(values, layer, provenance)
    return result


def _model(stated: str | None, given: str | None, what: str) -> str:
    model = stated or given
    if not model:
        raise SteerEvalError(f"{what} does not name its model", "give the model's Hub id with --base-model")
    if given not in (None, model):
        raise SteerEvalError(f"{what} says that it is of {stated}, not of {given}", f"give --base-model {stated}")
    return model
