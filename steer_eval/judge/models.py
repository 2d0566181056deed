"""Which model a judge uses, from how the user names it.

Invariant: a name stands for one model: a folder with `config.json`, a folder with a study (its only model), or a repo
of the Hub.
"""

from __future__ import annotations

from pathlib import Path

from steer_eval.errors import SteerEvalError
from steer_eval.hub.address import parse_address
from steer_eval.model_reference import HubSource, LocalSource, ModelReference
from steer_eval.study import FILE, load_study

_FIX = "give a model's folder, the folder of a study with one model, or a Hub repo as NAMESPACE/NAME[@REVISION]"


def model_named(text: str) -> tuple[ModelReference, Path]:
    """The model that a name stands for, and the folder that its source is relative to.

    Raises:
        SteerEvalError: The name stands for none, or for several.
        FormatError: The study is bad.
    """
    folder = Path(text)
    if (folder / "config.json").is_file() and not (folder / FILE).is_file():
        return ModelReference("judge", text, "float32", LocalSource(str(folder.resolve()))), folder
    if (folder / FILE).is_file():
        study = load_study(folder / FILE)
        if len(study.models) != 1:
            raise SteerEvalError(f"{text} has several models: {', '.join(study.models)}", _FIX)
        return next(iter(study.models.values())), folder
    address = None if folder.exists() else parse_address(text)
    if address is None:
        raise SteerEvalError(f"{text} names no model", _FIX)
    return ModelReference("judge", address.id, "float32", HubSource(address.id, address.revision or "main")), folder
