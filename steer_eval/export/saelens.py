"""SAELens folders, out of studies and into them.

Invariant: an exported folder is what SAELens' `SAE.load_from_disk` takes, and encodes and decodes with the bits of
`sae/topk.py`; an imported one keeps every bit of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from steer_eval.digest import sha256_file
from steer_eval.errors import SteerEvalError
from steer_eval.export.format import Format, Options
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import CONFIG, WEIGHTS, folder_name, read_saelens, saelens_files, write_saelens
from steer_eval.formats.strict_json import dumps, read_json

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,47}")
_RESTATED = {"model_name", "hook_name", "hf_hook_name", "sae_lens_version", "steer_eval"}
"""What an SAELens folder's metadata says that stands elsewhere in a `TopKSae`, or of the file alone."""


def hookpoint(sae: TopKSae) -> str:
    """What an SAE's folder is called: the block's path below a model's `base_model`, as sparsify looks for it."""
    return f"layers.{sae.layer}"


def in_folder(sae: TopKSae, files: dict[str, bytes]) -> dict[str, bytes]:
    """Files in the SAE's folder; SAELens loads no SAE from the root of a Hub repo."""
    return {f"{hookpoint(sae)}/{file}": content for file, content in files.items()}


def render(sae: TopKSae, _options: Options) -> dict[str, bytes]:
    """The SAE as SAELens saves it: `sae_weights.safetensors` and `cfg.json`."""
    return in_folder(sae, saelens_files(sae))


def usage(paths: Sequence[Path], _sae: TopKSae, _options: Options) -> str:
    """The lines that load it with SAELens."""
    return f"from sae_lens import SAE\nsae = SAE.load_from_disk({str(paths[0].parent)!r})"


SAELENS = Format("sae", render, usage)


def import_saelens(source: Path, repo: Path, name: str) -> Path:
    """Take an SAELens folder into a model repo, weights unchanged.

    Args:
        source: The folder, as SAELens saves one for inference.
        repo: The model repo.
        name: Short name of the model there, as in `study.yaml`.

    Returns:
        The SAE's folder in the repo, `saes/<name>/layers.<layer>`; what it had is replaced. The provenance has the
        SHA-256 of the source's weights, and under keys that begin with `sae_lens.` what SAELens recorded of the
        training.

    Raises:
        FormatError: A file is absent or bad, or the SAE is not one that `formats/saelens.py` reads.
        SteerEvalError: The name can't be one.
    """
    if not _NAME.fullmatch(name):
        raise SteerEvalError(f"{name!r} can't be the short name of a model", "use a-z, 0-9 and _, for example tiny_2b")
    sae = read_saelens(source)
    provenance = {
        **_training(read_json(source / CONFIG)),
        **sae.provenance,
        "imported_weights_sha256": sha256_file(source / WEIGHTS),
    }
    target = inside(repo, folder_name(name, sae.layer))
    write_saelens(target, replace(sae, provenance=provenance))
    return target


def _training(config: dict[str, Any]) -> dict[str, str]:
    # Before release 6 there is no such block: what was recorded stands among the settings of the SAE.
    metadata = config.get("metadata", {})
    kept = {key: value for key, value in metadata.items() if key not in _RESTATED and value is not None}
    return {f"sae_lens.{key}": value if isinstance(value, str) else dumps(value) for key, value in kept.items()}
