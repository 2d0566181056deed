"""GGUF weights as a folder that transformers can load.

Invariant: a GGUF file is converted once, to float32 safetensors in the user's cache. The conversion appears there in
one step, carries the checksums of its files, and they are verified again before every use. A file that comes in parts
is joined only while it is converted, inside the conversion's own folder, and no copy of it stays.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock

from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.strict_json import read_json, write_json

CONVERSION = "steer-eval/gguf-float32/1"
_RECORD = "source.json"
_BLOCK = 2**20
_PATCHING = threading.Lock()


def converted(parts: Sequence[Path], folder: Path, sha256: str) -> Path:
    """Convert a GGUF file, unless that was done before.

    Args:
        parts: The file, or its parts in order; their digest has been verified.
        folder: Where the conversion goes.
        sha256: SHA-256 of the whole file.

    Returns:
        The folder, with `config.json`, the tokenizer and float32 safetensors weights.

    Raises:
        SteerEvalError: The cache can't be written, or transformers can't read the file.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SteerEvalError(f"the cache {folder.parent} can't be written: {error}", "set STEER_EVAL_CACHE") from error
    with FileLock(f"{folder}.lock"):
        if is_intact(folder, sha256):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        for path in folder.parent.iterdir():
            # A process that was killed left it; nobody else works on this folder while we hold the lock.
            if path.name.startswith(f".{folder.name}."):
                shutil.rmtree(path, ignore_errors=True)
        with _staged(folder) as staging:
            with _whole(parts, staging) as gguf:
                _convert(gguf, staging)
            record = {
                "schema": CONVERSION,
                "source": " + ".join(part.name for part in parts),
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


@contextmanager
def _whole(parts: Sequence[Path], staging: Path) -> Iterator[Path]:
    """A GGUF file in one piece: a single part as it is, several joined for as long as the block lasts."""
    if len(parts) == 1:
        yield parts[0]
        return
    with tempfile.TemporaryDirectory(dir=staging) as scratch:
        # transformers knows the format by the ending, which parts carry on (`model.gguf.part00`).
        path = Path(scratch) / f"{parts[0].name.partition('.gguf')[0]}.gguf"
        with path.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, _BLOCK)
        yield path


def is_intact(folder: Path, sha256: str) -> bool:
    """Whether a folder is a finished conversion, byte for byte as it was written.

    Args:
        folder: The folder; it need not exist.
        sha256: SHA-256 of the whole GGUF file.
    """
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


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise a GGUF file to a float32 model folder."""
    try:
        import accelerate  # noqa: F401
        import gguf as library
    except ImportError as error:
        raise SteerEvalError(
            f"reading {gguf.name} needs the package {error.name}", "pip install 'steer-eval[gguf]'"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        # transformers reads the header for each part of the model, and maps names anew for each module: seconds each.
        with _remembered(library, "GGUFReader", "get_tensor_name_map"):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, struct.error) as error:
        raise SteerEvalError(
            f"{gguf.name}: transformers can't read this GGUF file: {error}",
            "the study pins a file that is damaged or of an architecture that transformers doesn't convert",
        ) from error
    # transformers refuses to save a model that it knows as quantised, although loading left plain float32 layers; the
    # same weights in another model of the same class are not refused. That one has no numbers of its own.
    config = loaded.config
    del config.quantization_config
    config.architectures = [type(loaded).__name__]
    with torch.device("meta"):
        plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextmanager
def _remembered(module: ModuleType, *names: str) -> Iterator[None]:
    """Let functions of a module, which depend on nothing but their arguments, compute once per argument.

    One thread at a time: a second one would take the first one's functions for the module's, and leave them there.
    """
    with _PATCHING:
        originals = {name: getattr(module, name) for name in names}
        try:
            for name, original in originals.items():
                setattr(module, name, cache(original))
            yield
        finally:
            for name, original in originals.items():
                setattr(module, name, original)
