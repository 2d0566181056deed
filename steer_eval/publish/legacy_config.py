"""`config.json` of the repos of a study without `study.yaml`.

Invariant: it says where the artifacts are and which repo is paired with which; what an author's own `config.json` says
beside that is kept. The Hub counts downloads by this file, so both repos have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steer_eval.formats.pin import DATA, DATA_REVISION
from steer_eval.legacy.study import LegacyStudy

TEXTS = ("contrast_pairs", "eval_prompts", "perplexity_corpus")


def model_config(study: LegacyStudy, present: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of the model repo, without a pin.

    Args:
        study: The study.
        present: What the file says now.
    """
    vectors = [
        {"model": study.base_model(model), "layer": layer, "file": artifact.path}
        for model in study.models
        for layer, artifact in study.vectors.get(model, {}).items()
    ]
    saes = [
        {"model": study.base_model(name) if name else None, "layer": artifact.value.layer, "file": artifact.path}
        for artifact in study.inventory.of("sae")
        for name in (_folder_model(artifact.path),)
    ]
    identity = study.identity
    return {
        **{key: value for key, value in present.items() if key != DATA_REVISION},
        "library_name": "steer-eval",
        "study": identity.name,
        "repo": identity.repo,
        DATA: identity.data,
        "vectors": vectors,
        **({"saes": saes} if saes else {}),
    }


def data_config(study: LegacyStudy, present: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of the dataset repo.

    Args:
        study: The study.
        present: What the file says now.
    """
    texts = {kind: artifact.path for kind in TEXTS for artifact in study.inventory.of(kind)}
    tables = {table.name: {split: each.path for split, each in table.files.items()} for table in study.tables}
    identity = study.identity
    return {
        **present,
        "library_name": "steer-eval",
        "study": identity.name,
        "repo": identity.data,
        "model_repo": identity.repo,
        "tables": {**tables, **texts},
    }


def _folder_model(path: str) -> str:
    """The model in the path of an SAE: `saes/<model>/layers.<layer>/sae_weights.safetensors`."""
    parts = path.split("/")
    return parts[-3] if len(parts) >= 3 else ""
