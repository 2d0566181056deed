"""The architecture of a model on the Hub.

Invariant: only the model's `config.json` is fetched; nothing in it is run.
"""

from __future__ import annotations

import re
from pathlib import Path

from steer_eval.errors import SteerEvalError
from steer_eval.formats.strict_json import read_json
from steer_eval.hub.errors import hub_errors

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FIX = "give it with --model-type, for example --model-type llama"


def model_type_of(model: str) -> str:
    """`model_type` of a Hub repo's `config.json`.

    Args:
        model: Hub id.

    Raises:
        SteerEvalError: It can't be had; the fix is to state it.
    """
    from huggingface_hub import hf_hub_download

    what = f"the type of the model {model}" if model else "the type of the model, which the vectors do not name,"
    if not _HUB_ID.fullmatch(model):
        raise SteerEvalError(f"{what} is not known", _FIX)
    try:
        with hub_errors(model, "model"):
            path = Path(hf_hub_download(model, "config.json"))
    except SteerEvalError as error:
        raise SteerEvalError(f"{what} can't be had from the Hub: {error.message}", f"{error.fix}; or {_FIX}") from error
    config = read_json(path, name=f"{model}/config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(found, str) or not found:
        raise SteerEvalError(f"{what} does not stand in its config.json", _FIX)
    return found
