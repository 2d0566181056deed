"""SAELens folders: `cfg.json` and `sae_weights.safetensors`.

Invariant: what is written is loaded by SAELens 6 with the same values, which it computes with in float32, and is read
back here as an equal value, bit by bit. What is read is a Top-K SAE that computes what `TopKSae` says; any setting that
would make it another function is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError
from steer_eval.formats.atomic import write_bytes
from steer_eval.formats.containment import inside
from steer_eval.formats.finite import check_finite
from steer_eval.formats.mapped_tensors import MappedTensors
from steer_eval.formats.sae import TENSORS, SaeOutline, TopKSae, check_shapes
from steer_eval.formats.safetensors_file import read_header, write_header
from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import read_json

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SAE_LENS_VERSION = "6.54.12"
"""Release whose layout this is; SAELens drops the metadata of files that name none."""

# A block's output goes by TransformerLens' name, or by the block's path in the model when that was hooked directly.
_HOOK = re.compile(
    r"blocks\.(?P<layer>[0-9]{1,4})\.hook_resid_post"
    r"|((model|language_model|transformer|gpt_neox)\.)*(layers|h)\.(?P<block>[0-9]{1,4})"
)
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_UNIT_NORM = 1e-6
"""How far float32 norms may be from 1 after SAELens divided by them; measured: 6e-8."""


def folder_name(model: str, layer: int) -> str:
    """Path of an SAE's folder inside a model repo; its last part is the module whose output is encoded."""
    return f"saes/{model}/layers.{layer}"


def read_saelens(folder: Path, *, name: str | None = None) -> TopKSae:
    """Read an SAELens folder, of release 6 or, with its settings all in one object, of an earlier one.

    Args:
        folder: The folder.
        name: What to call it in messages; its path by default.

    Raises:
        FormatError: A file is absent or bad, or the SAE is no Top-K SAE on the output of a block.
    """
    return look_at_saelens(folder, name=name).read()


def look_at_saelens(folder: Path, *, name: str | None = None) -> StoredSae:
    """Check an SAELens folder as `read_saelens` does, and leave its values where they are.

    Args:
        folder: The folder.
        name: What to call it in messages; its path by default.

    Raises:
        FormatError: A file is absent or bad, or the SAE is no Top-K SAE on the output of a block.
    """
    name = name or str(folder)
    settings = _read_settings(folder, name)
    weights_name = f"{name}/{WEIGHTS}"
    weights = inside(folder, WEIGHTS, name=weights_name)
    header = read_header(weights, name=weights_name)
    _check_header(header, settings.config, name)
    stored = MappedTensors(weights, header)
    try:
        for key in TENSORS:
            check_finite(stored.values(key), name=weights_name, where=key)
        if settings.rescales:
            _check_unit_norm(stored.values("W_dec"), name=f"{name}/{CONFIG}")
    except (OSError, ValueError) as error:
        raise FormatError(weights_name, "", f"not safetensors: {error}") from None
    config, model = settings.config, settings.config["metadata"]["model_name"]
    known = (config["d_in"], config["d_sae"], config["k"], settings.layer, model, _recorded(settings), settings.block)
    return StoredSae(*known, stored=stored, name=weights_name)


def read_settings(folder: Path, *, name: str | None = None) -> SaeOutline:
    """What the `cfg.json` of an SAELens folder says of its SAE; its weights are not looked at.

    Args:
        folder: The folder.
        name: What to call it in messages; its path by default.

    Raises:
        FormatError: `cfg.json` is absent or bad.
    """
    return _outline(_read_settings(folder, name or str(folder)))


def outline_saelens(folder: Path, header: dict[str, Any], *, name: str) -> SaeOutline:
    """What an SAELens folder says of its SAE without the values.

    Args:
        folder: The folder, which has `cfg.json`.
        header: Of its weights.
        name: What to call the folder in messages.

    Raises:
        FormatError: A file is absent or bad, or the SAE is no Top-K SAE on the output of a block.
    """
    settings = _read_settings(folder, name)
    _check_header(header, settings.config, name)
    return _outline(settings)


@dataclass(frozen=True, eq=False)
class StoredSae(SaeOutline):
    """An SAE whose values were looked at and are known to be good, and stay in their file.

    Args:
        stored: The tensors in the file.
        name: What to call the file in messages.
    """

    stored: MappedTensors = field(kw_only=True)
    name: str = field(kw_only=True)
    # One folder that was read, not all that say the same.
    __hash__ = object.__hash__

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The tensors under the names that they have in files, as float32."""
        return {key: self.stored.values(key) for key in TENSORS}

    def read(self) -> TopKSae:
        """The SAE itself; its tensors stay mapped to the file.

        Raises:
            FormatError: The file has changed and can't be read any more.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.stored.path)
        except (SafetensorError, OSError, ValueError) as error:
            raise FormatError(self.name, "", f"not safetensors: {error}") from None
        w_enc, b_enc, w_dec, b_dec = (tensors[key] for key in TENSORS)
        return TopKSae(w_enc, b_enc, w_dec, b_dec, self.k, self.layer, self.model, self.provenance, self.block)


@dataclass(frozen=True)
class _Settings:
    """A good `cfg.json`, under the names of release 6."""

    config: dict[str, Any]
    layer: int
    rescales: bool
    block: str


def _read_settings(folder: Path, name: str) -> _Settings:
    file = f"{name}/{CONFIG}"
    config: Any = _as_in_release_6(read_json(inside(folder, CONFIG, name=file), name=file))
    rescales = _take_rescaling(config)
    _check_architecture(config, name=file)
    check(config, "saelens_cfg", file=file)
    hook = _HOOK.fullmatch(config["metadata"]["hook_name"])
    if hook is None:
        raise FormatError(
            file,
            "metadata.hook_name",
            "only SAEs on the output of a block are read",
            expected="blocks.<layer>.hook_resid_post",
            observed=config["metadata"]["hook_name"],
            fix="give an SAE that was trained on the residual stream after a block",
        )
    layer = int(hook["layer"] or hook["block"])
    path = hook[0] if hook["block"] else config["metadata"].get("hf_hook_name", "")
    # One that is no path of this block says nothing.
    return _Settings(config, layer, rescales, path if path.endswith(f".{layer}") else "")


def _outline(settings: _Settings) -> SaeOutline:
    config, model = settings.config, settings.config["metadata"]["model_name"]
    sizes = (config["d_in"], config["d_sae"], config["k"])
    return SaeOutline(*sizes, settings.layer, model, _recorded(settings), settings.block)


def _recorded(settings: _Settings) -> dict[str, str]:
    recorded = settings.config["metadata"].get("steer_eval", {})
    return {str(key): str(value) for key, value in recorded.items()}


def _check_header(header: dict[str, Any], config: dict[str, Any], name: str) -> None:
    weights, settings = f"{name}/{WEIGHTS}", f"{name}/{CONFIG}"
    check(header, "saelens_weights", file=weights, where="header")
    check_shapes(header, config["d_in"], config["d_sae"], config["k"], name=weights, settings=settings)
    _check_dtypes(header, config.get("dtype", "float32"), name=settings)


def write_saelens(folder: Path, sae: TopKSae) -> None:
    """Write an SAELens folder.

    Its old `cfg.json`, without which nobody loads the rest, goes first and the new one comes last; so a folder that has
    one is whole, also after a write that was cut short.

    Args:
        folder: The folder; created if need be.
        sae: The SAE.
    """
    (folder / CONFIG).unlink(missing_ok=True)
    for file, content in saelens_files(sae).items():
        write_bytes(folder / file, content)


def saelens_files(sae: TopKSae) -> dict[str, bytes]:
    """The files of an SAELens folder, `cfg.json` last; equal SAEs have equal files."""
    return {WEIGHTS: safetensors_of(sae.tensors()), CONFIG: config_file(config_of(sae))}


def safetensors_of(named: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of some tensors, in their order and with their dtypes."""
    header, content, position = {}, [], 0
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    for key, tensor in named.items():
        data = _bytes(tensor)
        code = codes[str(tensor.dtype).removeprefix("torch.")]
        header[key] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [position, position + len(data)]}
        content.append(data)
        position += len(data)
    return b"".join([write_header({}, header), *content])


def config_file(config: dict[str, Any]) -> bytes:
    """A `cfg.json` with some settings."""
    return (json.dumps(config, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def config_of(sae: TopKSae) -> dict[str, Any]:
    """What `cfg.json` says of an SAE."""
    return {
        "architecture": "topk",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        # The dtype that SAELens computes in after widening what is stored: ours, and exact for every stored one.
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "sae_lens_version": SAE_LENS_VERSION,
            # SAELens claims the training for itself where this is absent.
            "sae_lens_training_version": None,
            "model_name": sae.model,
            "hook_name": f"blocks.{sae.layer}.hook_resid_post",
            **({"hf_hook_name": sae.block} if sae.block else {}),
            "steer_eval": dict(sorted(sae.provenance.items())),
        },
    }


def _as_in_release_6(config: Any) -> Any:
    """Settings of any release under the names that they have since SAELens 6."""
    if not isinstance(config, dict):
        return config
    config = dict(config)
    if isinstance(config.get("dtype"), str):
        config["dtype"] = config["dtype"].removeprefix("torch.")
    if "metadata" in config:
        return config
    arguments = config.get("activation_fn_kwargs")
    if config.get("activation_fn_str", config.get("activation_fn")) == "topk" and isinstance(arguments, dict):
        config["architecture"] = "topk"
        if "k" in arguments:
            config["k"] = arguments["k"]
    if config.get("normalize_activations") in (False, None):
        config["normalize_activations"] = "none"
    names = {"model_name": config.get("model_name"), "hook_name": config.get("hook_name", config.get("hook_point"))}
    config["metadata"] = {key: value for key, value in names.items() if value is not None}
    return config


def _check_architecture(config: Any, *, name: str) -> None:
    # First, as those of other architectures also lack settings that only Top-K SAEs have.
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if isinstance(architecture, str) and architecture != "topk":
        raise FormatError(
            name,
            "architecture",
            f"only Top-K SAEs are read, not {architecture[:40]!r}",
            expected="topk",
            observed=architecture[:40],
            fix="give a Top-K SAE",
        )


def _take_rescaling(config: Any) -> bool:
    """Take the rescaling by decoder norms out of the settings; it is nothing once the norms are known to be 1."""
    if isinstance(config, dict) and config.get("rescale_acts_by_decoder_norm") is True:
        config["rescale_acts_by_decoder_norm"] = False
        return True
    return False


def _check_unit_norm(w_dec: NDArray[np.float32], *, name: str) -> None:
    # SAELens folds the norms when it saves for inference, and leaves the setting on.
    off = np.abs(np.sqrt(np.einsum("fd,fd->f", w_dec, w_dec, dtype=np.float64)) - 1)
    if not bool((off <= _UNIT_NORM).all()):
        feature = int(off.argmax())
        raise FormatError(
            name,
            "rescale_acts_by_decoder_norm",
            f"activations are multiplied by the decoder's norms, and that of feature {feature} is not 1",
            expected=False,
            observed=True,
            fix="fold the norms in SAELens and save again: sae.fold_W_dec_norm(); sae.save_model(FOLDER)",
        )


def _check_dtypes(header: dict[str, Any], dtype: str, *, name: str) -> None:
    for key in TENSORS:
        stored = _DTYPES[header[key]["dtype"]]
        if dtype not in (stored, "float32"):
            raise FormatError(
                name,
                "dtype",
                f"SAELens would round {key} from {stored} to {dtype}, which makes another SAE",
                expected=stored,
                observed=dtype,
                fix="set dtype to float32, which holds every stored value",
            )


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, not copied: an SAE can be most of the memory there is."""
    import torch

    # Flat first: along a dimension of size 1 a contiguous tensor has any stride, which a view in bytes refuses.
    values: memoryview = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data
    return values
