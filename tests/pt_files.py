"""PyTorch files for tests: of exactly the shape of the study's, and such as nobody honest would write.

A hostile pickle is put together from the small functions below, each of which gives the instructions that push one
value; `program` makes a pickle of them and `write_archive` a file that `torch.load` would open.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = "archive"
LITTLE = b"little"


def floats(*values: float) -> bytes:
    """Values as a float32 record."""
    return struct.pack(f"<{len(values)}f", *values)


def text(value: str) -> bytes:
    """Push a text."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: float | int) -> bytes:
    """Push a number."""
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def named(name: str) -> bytes:
    """Push a global, by its dotted name."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def row(*parts: bytes) -> bytes:
    """Push a tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(name: str, *arguments: bytes) -> bytes:
    """Call a global and push what it gives."""
    return named(name) + row(*arguments) + b"R"


def mapping(**items: bytes) -> bytes:
    """Push a dict."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def sizes(values: Sequence[int]) -> bytes:
    """Push a tuple of numbers."""
    return row(*map(number, values))


def storage(
    elements: int, *, kind: str = "torch.FloatStorage", record: bytes | None = None, location: str = "cpu"
) -> bytes:
    """Push a storage of the record `data/0`."""
    key = text("0") if record is None else record
    return row(text("storage"), named(kind), key, text(location), number(elements)) + b"Q"


def tensor(
    shape: Sequence[int],
    stride: Sequence[int],
    *,
    elements: int | None = None,
    offset: int = 0,
    more: bytes = b"",
    **of_storage: Any,
) -> bytes:
    """Push a tensor.

    Args:
        shape: Its shape.
        stride: Its strides, in elements.
        elements: Of its storage; as many as the shape needs by default.
        offset: Of its first element in the storage.
        more: Further arguments of the function that makes it.
        of_storage: For `storage`.
    """
    kept = storage(math.prod(shape) if elements is None else elements, **of_storage)
    hooks = named("collections.OrderedDict") + b")R"
    arguments = (kept, number(offset), sizes(shape), sizes(stride), b"\x89", hooks, more)
    return call("torch._utils._rebuild_tensor_v2", *arguments)


def latin(content: bytes) -> bytes:
    """Push bytes, as protocol 2 has them."""
    return call("_codecs.encode", text(content.decode("latin-1")), text("latin1"))


def numpy_dtype(
    code: str = "f4", *, order: str = "<", rest: bytes = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0"
) -> bytes:
    """Push a numpy dtype; `rest` is its state after the byte order."""
    return call("numpy.dtype", text(code), b"\x89", b"\x88") + row(number(3), text(order), rest) + b"b"


def numpy_array(
    shape: Sequence[int], content: bytes, *, dtype: bytes | None = None, kind: bytes | None = None
) -> bytes:
    """Push a numpy array."""
    made = call(
        "numpy._core.multiarray._reconstruct",
        named("numpy.ndarray"),
        sizes([0]),
        latin(b"b") if kind is None else kind,
    )
    return made + row(number(1), sizes(shape), dtype or numpy_dtype(), b"\x89", latin(content)) + b"b"


def program(*instructions: bytes) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + b"".join(instructions) + b"."


def dict_of(value: bytes) -> bytes:
    """The pickle of a dict with one value, under the key `value`."""
    return program(mapping(value=value))


def write_archive(
    path: Path,
    pickle: bytes,
    *records: bytes,
    byteorder: bytes | None = LITTLE,
    more: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    comment: bytes = b"",
) -> Path:
    """Write an archive as `torch.save` lays it out.

    Args:
        path: Where.
        pickle: What stands in `data.pkl`.
        records: What stands in `data/0`, `data/1` and so on.
        byteorder: What stands in `byteorder`; None for no such member.
        more: Further members, by their whole names.
        compression: Of all members.
        comment: Of the archive.
    """
    members = {f"{FOLDER}/data.pkl": pickle, f"{FOLDER}/version": b"3\n"}
    if byteorder is not None:
        members[f"{FOLDER}/byteorder"] = byteorder
    members.update((f"{FOLDER}/data/{index}", record) for index, record in enumerate(records))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**members, **(more or {})}.items():
            archive.writestr(name, content)
        archive.comment = comment
    return path


def with_pickle(path: Path, old: bytes, new: bytes) -> Path:
    """Replace text in the pickle of a file by `torch.save`, leaving all other members as they are."""
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    found = False
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            if name.endswith("/data.pkl"):
                found = old in content
                content = content.replace(old, new)
            archive.writestr(name, content)
    assert found, f"{old!r} stands nowhere in the pickle"
    return path


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def caa(hidden: int = 8, *, layer: int = 14, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Any]:
    """A steering vector, of the shape of the study's."""
    vector = torch.randn(hidden, generator=generator(seed)).to(dtype)
    return {
        "vector": vector,
        "norm": vector.float().norm().item(),
        "layer": layer,
        "model": "lab/tiny-base",
        "n_pairs": 80,
    }


def transferred(small: int = 6, large: int = 9, *, seed: int = 0) -> dict[str, Any]:
    """Transferred vectors, of the shape of the study's."""
    rng = generator(seed)
    names = ("v_ridge", "v_procrustes", "v_random", "v_small_native")
    return {
        **{name: torch.randn(small, generator=rng) for name in names},
        "v_large_source": torch.randn(large, generator=rng),
        "L_small": 14,
        "c_small": 1.0,
    }


def transfer_map(large: int = 6, small: int = 4, *, seed: int = 0) -> dict[str, Any]:
    """Transfer maps as numpy arrays, of the shape of the study's: `R` has orthonormal columns."""
    rng = np.random.default_rng(seed)
    orthogonal, _ = np.linalg.qr(rng.standard_normal((large, small)))
    return {
        "W": rng.standard_normal((large, small)).astype(np.float32),
        "b": rng.standard_normal(small).astype(np.float32),
        "R": orthogonal.astype(np.float32),
        "L_large": 14,
        "L_small": 12,
        "alpha": 100.0,
    }


def sae(
    d_model: int = 4, d_sae: int = 12, *, k: int = 3, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Any]:
    """A Top-K SAE, of the shape of the study's."""
    rng = generator(seed)
    shapes = {"W_enc": (d_model, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_model), "b_dec": (d_model,)}
    return {
        "state_dict": {name: torch.randn(shape, generator=rng).to(dtype) for name, shape in shapes.items()},
        "d_model": d_model,
        "d_sae": d_sae,
        "k": k,
        "layer": 14,
        "model_id": "lab/tiny-base",
        "final_recon": 0.25,
        "steps": 4000,
    }


def saved(path: Path, value: Any, **options: Any) -> Path:
    """Write a value with `torch.save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path, **options)
    return path


def described(value: Any) -> Any:
    """What a header must say of a value that `torch.load` gave."""
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    if isinstance(value, np.ndarray | np.generic):
        return {"dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return value


def bits(values: torch.Tensor | np.ndarray) -> bytes:
    """The bytes of a tensor or array, in the order of its elements."""
    if isinstance(values, torch.Tensor):
        return values.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return values.tobytes()


def features(*, rows: int = 3) -> dict[str, Any]:
    """A feature table, of the shape of the study's."""
    top = [
        {
            "feature_id": 7 * index,
            "delta": 0.5 - index,
            "steered_mean": 2.0 + index,
            "base_mean": 1.5 + 2 * index,
            "steered_freq": 1.0,
            "base_freq": 0.5,
        }
        for index in range(rows)
    ]
    return {"model": "lab/tiny-base", "layer": 14, "coef": 2, "n_prompts": 30, "top_features": top}


def write_document(path: Path, value: Any) -> Path:
    """Write a JSON document as Python does by default: with NaN where a number is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
