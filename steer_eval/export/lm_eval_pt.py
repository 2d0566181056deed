"""Files for lm-eval's `steered` model.

Invariant: a file is a dict from the name of a decoder block, as `named_modules()` of the model's `base_model` has it,
to one addition of a multiple of its vector. The names come from the class that transformers, and so lm-eval, loads for
the model's type, built without memory for weights; there is no table of architectures.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from steer_eval.errors import SteerEvalError, first_line
from steer_eval.export.format import Format, Options, VectorSet
from steer_eval.export.torch_file import to_bytes


def render(vectors: VectorSet, options: Options) -> dict[str, bytes]:
    """The vectors as one PyTorch file.

    Raises:
        SteerEvalError: transformers knows no causal language model of that type.
    """
    blocks = blocks_name(options.model_type)
    content = {
        f"{blocks}.{layer}": {
            "steering_vector": vector.values,
            "steering_coefficient": float(options.coefficient),
            "action": "add",
            "bias": None,
            "head_index": None,
        }
        for layer, vector in vectors.vectors.items()
    }
    return {f"{vectors.name}_lm_eval.pt": to_bytes(content)}


def blocks_name(model_type: str) -> str:
    """Name of the list of decoder blocks inside `base_model`, such as `layers`, `h` or `language_model.layers`.

    Args:
        model_type: As in the model's `config.json`.

    Raises:
        SteerEvalError: transformers knows no causal language model of that type.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from steer_eval.model import decoder_blocks

    try:
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type))
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise SteerEvalError(
            f"transformers has no causal language model of type {model_type!r}: {first_line(error)[:200]}",
            "give model_type of the model's config.json with --model-type",
        ) from None
    blocks = decoder_blocks(module)
    name: str = next(name for name, child in module.base_model.named_modules() if child is blocks)
    return name


def _usage(paths: Sequence[Path], vectors: VectorSet, _options: Options) -> str:
    arguments = shlex.quote(f"pretrained={vectors.model or 'MODEL'},steer_path={paths[0]}")
    return f"lm-eval run --model steered --model_args {arguments} --tasks TASK"


LM_EVAL = Format("vectors", render, _usage, needs_model_type=True)
