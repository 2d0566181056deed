"""Control vectors in GGUF, which llama.cpp, repeng and tools that follow them load.

Invariant: tensor `direction.N` is the vector that is added to the output of decoder block N, counted from 0, as it is:
the tool multiplies it by its own scale. llama.cpp's loader has no place for block 0, so N is at least 1. The keys
`steer_eval.*` are ours and keep the provenance; loaders read keys by name and pass over others.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.export.format import Format, Options, VectorSet
from steer_eval.export.gguf_file import read_gguf, to_bytes
from steer_eval.formats.finite import check_finite

ARCHITECTURE = "controlvector"
ARCHITECTURE_KEY = "general.architecture"
HINT_KEY = f"{ARCHITECTURE}.model_hint"
COUNT_KEY = f"{ARCHITECTURE}.layer_count"
PROVENANCE_KEY = "steer_eval.provenance"
_TENSOR = re.compile(r"direction\.(?P<layer>[1-9][0-9]{0,3})")


@dataclass(frozen=True, eq=False)
class ControlVector:
    """A control vector that was read from GGUF.

    Args:
        directions: float32 `[hidden_size]` by layer: the index, from 0, of the block to whose output it is added.
        dtypes: `float32` or `float16` by layer: how the file has the values.
        model_hint: The model's `model_type`, as the file states it; empty if it states none.
        provenance: By layer, what an export of ours recorded; empty for files of others. Nothing vouches for it.
    """

    directions: Mapping[int, NDArray[np.float32]]
    dtypes: Mapping[int, str]
    model_hint: str
    provenance: Mapping[int, dict[str, str]]


def render(vectors: VectorSet, options: Options) -> dict[str, bytes]:
    """The vectors as one GGUF file.

    Raises:
        SteerEvalError: One is of layer 0.
    """
    if 0 in vectors.vectors:
        raise SteerEvalError(
            f"{vectors.name}: a GGUF control vector can't hold layer 0: llama.cpp adds direction.N to the output of "
            "block N and takes no direction.0",
            "name the vector files of the other layers, or choose another format",
        )
    provenance = {str(layer): vector.provenance for layer, vector in vectors.vectors.items()}
    keys: dict[str, str | int] = {
        ARCHITECTURE_KEY: ARCHITECTURE,
        HINT_KEY: options.model_type,
        COUNT_KEY: len(vectors.vectors),
        PROVENANCE_KEY: json.dumps(provenance, ensure_ascii=False, sort_keys=True, separators=(",", ":")),
    }
    tensors = {f"direction.{layer}": vector.values for layer, vector in vectors.vectors.items()}
    return {f"{vectors.name}.gguf": to_bytes(keys, tensors)}


def read_control_vector(path: Path, *, name: str | None = None) -> ControlVector:
    """Read a GGUF control vector.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, damaged, or no control vector as llama.cpp loads them.
    """
    name = name or str(path)
    file = read_gguf(path, name=name)
    architecture = file.keys.get(ARCHITECTURE_KEY, ARCHITECTURE)
    if architecture != ARCHITECTURE:
        # Other tools use the same tensor names with other layer numbers.
        raise FormatError(
            name,
            ARCHITECTURE_KEY,
            "not a control vector, so that its layer numbers could mean anything",
            expected=ARCHITECTURE,
            observed=architecture,
        )
    directions: dict[int, NDArray[np.float32]] = {}
    dtypes: dict[int, str] = {}
    for tensor, values in file.tensors.items():
        match = _TENSOR.fullmatch(tensor)
        if match is None:
            raise FormatError(name, tensor, "not a tensor of a control vector", expected="direction.N with N from 1")
        check_finite(values, name=name, where=tensor)
        layer = int(match["layer"])
        directions[layer], dtypes[layer] = values.astype(np.float32), values.dtype.name
    sizes = {values.size for values in directions.values()}
    if len(sizes) != 1:
        message = "the directions differ in width" if sizes else "the file has no direction"
        raise FormatError(name, "direction", message, observed=sorted(sizes))
    hint = file.keys.get(HINT_KEY, "")
    return ControlVector(
        dict(sorted(directions.items())),
        dict(sorted(dtypes.items())),
        hint if isinstance(hint, str) else "",
        _recorded(file.keys.get(PROVENANCE_KEY), directions.keys(), name),
    )


def _recorded(text: Any, layers: Any, name: str) -> dict[int, dict[str, str]]:
    """The provenance that an export of ours recorded, by layer; empty if there is none."""
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or set(content) != {str(layer) for layer in layers}:
        raise FormatError(name, PROVENANCE_KEY, "not a JSON object with an entry for each layer")
    for layer, entry in content.items():
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise FormatError(name, f"{PROVENANCE_KEY}.{layer}", "not a JSON object of strings")
    return {int(layer): entry for layer, entry in content.items()}


def _llama_cpp_usage(paths: Sequence[Path], vectors: VectorSet, options: Options) -> str:
    file = shlex.quote(f"{paths[0]}:{options.coefficient_text}")
    lines = [f"llama-server -m MODEL.gguf --control-vector-scaled {file}"]
    if len(vectors.vectors) > 1:
        layer = next(iter(vectors.vectors))
        lines.append(f"# All its layers are steered at once; --control-vector-layer-range {layer} {layer} leaves one.")
    lines.append("# A file that llama.cpp can't load is one line in its log; the model then runs unsteered.")
    return "\n".join(lines)


def _repeng_usage(paths: Sequence[Path], _vectors: VectorSet, options: Options) -> str:
    return (
        "from repeng import ControlModel, ControlVector\n"
        f"vector = ControlVector.import_gguf({str(paths[0])!r})\n"
        "model = ControlModel(model, list(vector.directions))\n"
        f"model.set_control(vector, {options.coefficient_text})"
    )


LLAMA_CPP = Format("vectors", render, _llama_cpp_usage, needs_model_type=True)
REPENG = Format("vectors", render, _repeng_usage, needs_model_type=True)
