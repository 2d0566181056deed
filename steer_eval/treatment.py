"""What is done to the rows of a cell.

Invariant: a treatment is the same for all rows of a cell except where an edit is made from the row's own prompt, and
then the prompt decides it. Its keys say everything that decides a row beside the model, the prompt and the limits; they
are known before any model runs.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.digest import sha256_vector
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import StoredSae
from steer_eval.steering.interventions import Add, ClampFeatures, Edit, Intervention, Patch, Rotate

EditKey = tuple[Any, ...]


class PromptEdit(ABC):
    """An edit that is made from a row's own prompt."""

    @abstractmethod
    def of(self, prompt: str) -> Edit:
        """The edit of a row whose user says this."""

    @abstractmethod
    def key(self) -> EditKey:
        """What decides it beside the prompt, as a JSON value."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """It as a row of a table describes it."""


@dataclass(frozen=True, eq=False)
class Treatment:
    """What is done to the rows of a cell.

    Args:
        edits: What happens to the residual stream.
        system: System prompt, if there is one.
        after: What the user says before the corpus, where that is scored as the continuation of a conversation, as for
            edits of prompts alone; None where nothing stands before it, or the system prompt.
    """

    edits: tuple[Edit | PromptEdit, ...] = ()
    system: str | None = None
    after: str | None = None

    def intervention(self, prompt: str | None) -> Intervention:
        """The edits of a row.

        Args:
            prompt: What its user says; None for a corpus without a conversation before it.

        Raises:
            ValueError: An edit is made from the prompt, and there is none.
        """
        edits = []
        for edit in self.edits:
            if isinstance(edit, PromptEdit):
                if prompt is None:
                    raise ValueError("an edit that is made from a prompt, and no prompt")
                edits.append(edit.of(prompt))
            else:
                edits.append(edit)
        return tuple(edits)

    @property
    def unsteered(self) -> Treatment:
        """The unsteered model on the same corpus in the same place; a system prompt is part of the treatment."""
        return replace(self, edits=(), system=None)

    @property
    def context(self) -> str | dict[str, str] | None:
        """What stands before the corpus, as content keys have it."""
        return self.system if self.after is None else {"after": self.after}

    def keys(self) -> list[EditKey]:
        """The edits as content keys have them."""
        return [edit.key() if isinstance(edit, PromptEdit) else edit_key(edit) for edit in self.edits]

    def to_json(self) -> tuple[dict[str, Any], ...]:
        """The edits as a row of a table describes them."""
        return tuple(edit.to_json() if isinstance(edit, PromptEdit) else edit_to_json(edit) for edit in self.edits)


def edit_key(edit: Edit) -> EditKey:
    """What decides an edit, as a JSON value.

    An addition at all tokens is layer, coefficient and digest of the vector, nothing else: so it stands in journals.
    """
    positions = () if isinstance(edit, Patch) or edit.positions == "all" else (edit.positions,)
    match edit:
        case Add():
            return (edit.layer, edit.coefficient, _digest(edit.vector), *positions)
        case Rotate():
            return ("rotate", edit.layer, edit.coefficient, _digest(edit.vector), *positions)
        case ClampFeatures():
            held = (list(edit.features), [float(value) for value in edit.values])
            return ("clamp", edit.layer, sae_digest(edit.sae), *held, repr(edit.sink_norm), *positions)
        case Patch():
            return ("patch", edit.layer, _digest(edit.residuals), list(edit.at))


def edit_to_json(edit: Edit) -> dict[str, Any]:
    """An edit as a row of a table describes it (`schemas/comparison_row.schema.json`)."""
    match edit:
        case Add() | Rotate():
            return {
                "kind": "add" if isinstance(edit, Add) else "rotate",
                "layer": edit.layer,
                "coefficient": edit.coefficient,
                "positions": edit.positions,
                # Before a rotation restores the norm of the residual, for `rotate`.
                "norm": float(f"{_norm(edit):.9g}"),
                "vector_sha256": _digest(edit.vector),
            }
        case ClampFeatures():
            return {
                "kind": "clamp",
                "layer": edit.layer,
                "positions": edit.positions,
                "features": list(edit.features),
                "values": [float(f"{float(value):.8g}") for value in edit.values],
                "sae_sha256": sae_digest(edit.sae),
            }
        case Patch():
            return {"kind": "patch", "layer": edit.layer, "positions": "prompt"}


@lru_cache(maxsize=1)
def sae_digest(sae: TopKSae | StoredSae) -> str:
    """SHA-256 over the bytes of an SAE's tensors and its k, in hexadecimal; once for all rows of a cell."""
    digest = hashlib.sha256(str(sae.k).encode())
    for name, tensor in sae.tensors().items():
        digest.update(f" {name} {list(tensor.shape)} ".encode())
        digest.update(np.ascontiguousarray(_array(tensor), dtype="<f4").tobytes())
    return digest.hexdigest()


def _norm(edit: Add | Rotate) -> float:
    """Length of what is added, as float32 has it."""
    delta = np.float32(edit.coefficient) * _array(edit.vector)
    return float(np.linalg.norm(delta.astype(np.float64)))


def _digest(values: Any) -> str:
    return sha256_vector(_array(values))


def _array(values: Any) -> NDArray[np.float32]:
    """Values of an edit as numpy; those of one that is only described are numpy already."""
    array: NDArray[np.float32] = values if isinstance(values, np.ndarray) else values.float().numpy()
    return array
