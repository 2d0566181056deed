"""Top-K sparse autoencoders, as values and as the study's PyTorch files.

Invariant: an SAE's four tensors fit each other and its `d_in`, `d_sae` and `k`, and are finite; reading keeps every bit
and the dtype. The tensors of a file stay mapped to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steer_eval.errors import FormatError
from steer_eval.formats.caa_pt import exact_floats
from steer_eval.formats.finite import check_finite
from steer_eval.formats.schema import check
from steer_eval.formats.torch_file import read_torch

if TYPE_CHECKING:
    from torch import Tensor

KEYS = frozenset({"state_dict", "d_sae"})
"""Keys that tell this kind of PyTorch file from others."""
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")


@dataclass(frozen=True, eq=False)
class TopKSae:
    """A Top-K sparse autoencoder: `relu(topk((x - b_dec) @ w_enc + b_enc)) @ w_dec + b_dec`.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders".

    Args:
        w_enc: `[d_in, d_sae]`.
        b_enc: `[d_sae]`.
        w_dec: `[d_sae, d_in]`.
        b_dec: `[d_in]`.
        k: Features that may fire per token.
        layer: Index of the decoder block whose output is encoded, from 0.
        model: Hub id of the model.
        provenance: What else is recorded, as strings.
        block: Path of that block in the model's modules, as transformers names them; empty where it is not known.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    k: int
    layer: int
    model: str
    provenance: dict[str, str]
    block: str = ""

    @property
    def d_in(self) -> int:
        """Width of the residual stream."""
        return int(self.w_enc.shape[0])

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return int(self.w_enc.shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """The tensors under the names that they have in files."""
        return dict(zip(TENSORS, (self.w_enc, self.b_enc, self.w_dec, self.b_dec), strict=True))


@dataclass(frozen=True)
class SaeOutline:
    """A Top-K sparse autoencoder whose values were not read; the fields are those of `TopKSae`."""

    d_in: int
    d_sae: int
    k: int
    layer: int
    model: str
    provenance: dict[str, str] = field(default_factory=dict)
    block: str = ""


def read_sae_pt(path: Path, *, name: str | None = None) -> TopKSae:
    """Read a Top-K SAE in a PyTorch file.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, refused, breaks `schemas/sae_pt.schema.json`, or its tensors do not fit.
    """
    import torch

    name = name or str(path)
    file = read_torch(path, name=name)
    header = file.header
    check(header, "sae_pt", file=name)
    check_shapes(header["state_dict"], header["d_model"], header["d_sae"], header["k"], name=name, prefix="state_dict.")
    tensors = file.content["state_dict"]
    known = ("state_dict", "d_model", "d_sae", "k", "layer", "model_id")
    return checked_sae(
        # Parameters and numpy arrays are tensors of the same values.
        [torch.as_tensor(tensors[key]).detach() for key in TENSORS],
        k=header["k"],
        layer=header["layer"],
        model=header["model_id"],
        provenance={key: repr(value) for key, value in header.items() if key not in known},
        name=name,
        prefix="state_dict.",
    )


def checked_sae(
    tensors: Sequence[Tensor],
    *,
    k: int,
    layer: int,
    model: str,
    provenance: dict[str, str],
    name: str,
    prefix: str = "",
) -> TopKSae:
    """An SAE from its tensors, in the order of `TENSORS`, once they are known to be finite.

    Raises:
        FormatError: A value is not finite.
    """
    for key, tensor in zip(TENSORS, tensors, strict=True):
        check_finite(exact_floats(tensor), name=name, where=f"{prefix}{key}")
    w_enc, b_enc, w_dec, b_dec = tensors
    return TopKSae(w_enc, b_enc, w_dec, b_dec, k, layer, model, provenance)


def check_shapes(
    described: dict[str, dict[str, list[int]]],
    d_in: int,
    d_sae: int,
    k: int,
    *,
    name: str,
    prefix: str = "",
    settings: str = "",
) -> None:
    """Check that the tensors fit the recorded sizes.

    Args:
        described: `{"dtype", "shape"}` by tensor.
        d_in: Recorded width of the residual stream.
        d_sae: Recorded number of features.
        k: Recorded number of features per token.
        name: The file, for the message.
        prefix: What to put before tensor names in the message.
        settings: The file that records the sizes, for the message, if it is another one.

    Raises:
        FormatError: A tensor has another shape, or k is larger than the number of features.
    """
    shapes = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in]}
    for key, shape in shapes.items():
        if described[key]["shape"] != shape:
            raise FormatError(
                name,
                f"{prefix}{key}",
                f"the shape does not fit d_in {d_in} and d_sae {d_sae}",
                expected=shape,
                observed=described[key]["shape"],
                fix="W_enc is [d_in, d_sae] and W_dec is [d_sae, d_in]",
            )
    if k > d_sae:
        raise FormatError(
            settings or name,
            "k",
            f"k is larger than the number of features {d_sae}",
            expected=f"at most {d_sae}",
            observed=k,
            fix="set k to the number of features that may fire per token",
        )
