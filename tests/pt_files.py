"""PyTorch files for tests: of exactly the shape of the study's, and such as nobody honest would write.

A hostile pickle is put together from the small functions below, each of which gives the instructions that push one
value; `program` makes a pickle of them and `write_archive` a file that `torch.load` would open.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
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
    version: bytes | None = b"3\n",
    more: Sequence[tuple[str, bytes]] = (),
    **options: Any,
) -> Path:
    """Write an archive as `torch.save` lays it out.

    Args:
        path: Where.
        pickle: What stands in `data.pkl`.
        records: What stands in `data/0`, `data/1` and so on.
        byteorder: What stands in `byteorder`; None for no such member.
        version: What stands in `version`; None for no such member.
        more: Further members, by their whole names.
        options: For `write_zip`.
    """
    members = [(f"{FOLDER}/data.pkl", pickle)]
    members += [(f"{FOLDER}/{name}", part) for name, part in (("byteorder", byteorder), ("version", version)) if part]
    members += [(f"{FOLDER}/data/{index}", record) for index, record in enumerate(records)]
    return write_zip(path, [*members, *more], **options)


def write_zip(
    path: Path, members: Sequence[tuple[str, bytes]], *, align: int = 64, deflate: bool = False, comment: bytes = b""
) -> Path:
    """Write a zip archive whose members begin at multiples of `align`, as those of `torch.save` do."""
    content, directory = b"", b""
    for name, plain in members:
        squeezer = zlib.compressobj(wbits=-15)
        data = squeezer.compress(plain) + squeezer.flush() if deflate else plain
        encoded = name.encode()
        filling = -(len(content) + 30 + len(encoded) + 4) % align
        about = (8 * deflate, 0, 0x21, zlib.crc32(plain), len(data), len(plain), len(encoded))
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, *about, 0, 0, 0, 0, 0, len(content)) + encoded
        content += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, *about, filling + 4) + encoded
        content += struct.pack("<2sH", b"FB", filling) + bytes(filling) + data
    count = len(members)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(content), len(comment))
    path.write_bytes(content + directory + end + comment)
    return path


def with_pickle(path: Path, old: bytes, new: bytes) -> Path:
    """Replace text in the pickle of a file by `torch.save`, leaving all other members as they are."""
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    assert any(name.endswith("/data.pkl") and old in content for name, content in members)
    return write_zip(
        path,
        [(name, content.replace(old, new) if name.endswith("/data.pkl") else content) for name, content in members],
    )


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


def same(first: object, second: object) -> bool:
    """Whether two values are equal, to the bit."""
    if isinstance(first, torch.Tensor | np.ndarray | np.generic):
        return described(first) == described(second) and bits(first) == bits(second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


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


_DIRECTORY_FIELDS = {
    "flags": (8, "<H"),
    "compressed": (20, "<I"),
    "size": (24, "<I"),
    "offset": (42, "<I"),
}


def with_directory(path: Path, member: str, **fields: int) -> Path:
    """Change what the directory of an archive says of a member, leaving the member itself as it is.

    Args:
        path: The archive.
        member: Name of the member below its folder.
        fields: New values of `flags`, `compressed`, `size` or `offset`.
    """
    content = bytearray(path.read_bytes())
    start = content.rfind(b"PK\x01\x02", 0, content.rindex(f"{FOLDER}/{member}".encode()))
    for field, value in fields.items():
        place, form = _DIRECTORY_FIELDS[field]
        struct.pack_into(form, content, start + place, value)
    path.write_bytes(content)
    return path


def with_member_inside(path: Path) -> Path:
    """An archive of which the record `data/1` lies inside the record `data/0`, local header and all."""
    inner = floats(5, 6)
    name = f"{FOLDER}/data/1".encode()
    header = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0x21, zlib.crc32(inner), 8, 8, len(name), 0) + name
    # In the middle of the record, so that the numbers are aligned in both readings.
    outer = bytes(-len(header) % 8) + header + inner
    pickle = program(mapping(a=tensor([len(outer) // 4], [1]), b=tensor([2], [1], record=text("1"))))
    write_archive(path, pickle, outer, inner)
    return with_directory(path, "data/1", offset=path.read_bytes().index(header))
