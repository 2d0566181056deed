"""What an export format is.

Invariant: a format is two pure functions, from an artifact to the bytes of files and to the lines with which the other
tool loads them. Equal artifacts give equal bytes. No file name, disk or network is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steer_eval.formats.vector import SteeringVector


@dataclass(frozen=True, eq=False)
class VectorSet:
    """Steering vectors of one model, at least one.

    Args:
        name: What the files call the model, for example `smollm2`.
        vectors: The vectors by layer, in ascending order, all of one width.
    """

    name: str
    vectors: Mapping[int, SteeringVector]

    @property
    def model(self) -> str:
        """Hub id of the model, as the vectors state it; empty if they state none."""
        return next(iter(self.vectors.values())).provenance.get("model", "")


@dataclass(frozen=True)
class Options:
    """What an export can be told beside the artifact.

    Args:
        coefficient: Multiple of the vectors that the other tool is to add. Values are exported as they are; formats
            that have no field for the coefficient name it in their usage.
        model_type: Architecture of the model, as `model_type` in its `config.json`; formats with `needs_model_type`
            always get one.
    """

    coefficient: float = 1.0
    model_type: str = ""

    @property
    def coefficient_text(self) -> str:
        """The coefficient as it is printed in code: the shortest decimal that reads back as the same number."""
        return repr(float(self.coefficient)).removesuffix(".0")


@dataclass(frozen=True)
class Format:
    """One format of another tool.

    Args:
        takes: What is exported: all vectors of a model as a `VectorSet`, or one SAE as a `TopKSae`.
        render: From the artifact and the options to the content of each file. Paths are relative, with `/`.
        usage: From the paths of the files as they were written, in the order of `render`, the artifact and the options
            to the lines that load them.
        needs_model_type: Whether the options must have the model's type.
    """

    takes: Literal["vectors", "sae"]
    render: Callable[[Any, Options], dict[str, bytes]]
    usage: Callable[[Sequence[Path], Any, Options], str]
    needs_model_type: bool = False
