"""Formats of other tools that artifacts are exported to, by name.

Invariant: a name stands for one `Format` in one module of this package, imported when it is used. To add a format,
write its module and name it here, as `module:CONSTANT`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steer_eval.export.format import Format

FORMATS = {
    "llama-cpp": "gguf_control_vector:LLAMA_CPP",
    "repeng": "gguf_control_vector:REPENG",
    "steering-vectors": "steering_vectors:STEERING_VECTORS",
    "lm-eval": "lm_eval_pt:LM_EVAL",
    "caa-pt": "caa_pt:CAA_PT",
    "saelens": "saelens:SAELENS",
    "sparsify": "sparsify:SPARSIFY",
    "sae-both": "sparsify:SAE_BOTH",
}


def load_format(name: str) -> Format:
    """The format of a name in `FORMATS`."""
    module, constant = FORMATS[name].split(":")
    result: Format = getattr(import_module(f"steer_eval.export.{module}"), constant)
    return result
