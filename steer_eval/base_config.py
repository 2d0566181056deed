"""What is known of a base model without fetching anything.

Invariant: only files that are on this machine already are read: a checker of files never waits for the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.formats.strict_json import read_json


@dataclass(frozen=True)
class BaseConfig:
    """Sizes of a model.

    Args:
        hidden_size: Width of the residual stream; None where the configuration does not say.
        layers: Number of decoder blocks; None where the configuration does not say.
    """

    hidden_size: int | None
    layers: int | None


def base_config(model: str) -> BaseConfig | None:
    """Sizes of a model whose `config.json` is in the Hub's cache; None if it is not.

    Args:
        model: Hub id.
    """
    from huggingface_hub import constants

    try:
        # The client takes longer to import than most repos to check, and a folder that is not there holds nothing.
        if not (Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}").is_dir():
            return None
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(model, "config.json")
    except (OSError, ValueError):  # A name that no file system or no Hub takes.
        return None
    if not isinstance(path, str):
        return None
    try:
        config: Any = read_json(Path(path))
    except FormatError:
        return None
    if not isinstance(config, dict):
        return None
    # Multimodal wrappers keep the language model's sizes one level down.
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    return BaseConfig(
        _first(text, "hidden_size", "n_embd", "d_model"), _first(text, "num_hidden_layers", "n_layer", "num_layers")
    )


def _first(config: dict[str, Any], *keys: str) -> int | None:
    return next((value for key in keys if isinstance(value := config.get(key), int)), None)
