"""Whether a converted repo holds what its legacy repo holds.

Invariant: the comparison goes from bytes to bytes: tensors as `torch.load` and the safetensors library give them, and
numbers as they stand in the files; nothing that the conversion itself computed is taken for granted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_eval.convert import LEGACY, extras, origin, read_legacy
from steer_eval.convert_plan import COPY, Plan, Step, walk
from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.containment import inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import SCHEMA, repo_files
from steer_eval.formats.sae import TENSORS
from steer_eval.formats.saelens import CONFIG, WEIGHTS, read_saelens
from steer_eval.formats.strict_json import read_json
from steer_eval.formats.torch_file import TorchFile, read_torch
from steer_eval.formats.transfer import read_transfer_map, read_transferred
from steer_eval.formats.vector import read_vector

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "remove the folder and convert again, or convert into another one with --out"


@dataclass(frozen=True)
class Checked:
    """One file of the legacy repo that was compared with what it became.

    Args:
        step: The file and what it became.
        tensors: How many tensors were compared; none for a file that was copied.
        findings: What differs.
    """

    step: Step
    tensors: int
    findings: tuple[Finding, ...]


def check_conversion(
    plan: Plan, out: Path, *, on_file: Callable[[int], None] = lambda _: None
) -> tuple[list[Checked], list[Finding]]:
    """Compare a converted repo with its legacy repo.

    Args:
        plan: What becomes of the legacy repo.
        out: The converted repo.
        on_file: Called with 1 after each file.

    Returns:
        Each file of the plan, and what is wrong with the folder beside them: its manifest, and files that nobody
        planned.
    """
    checked = []
    for step in plan.steps:
        checked.append(_checked(plan, step, out))
        on_file(1)
    planned = {target for step in plan.steps for target in step.targets}
    findings = [
        _differs(_name(out, path), "", "no file of the source becomes this one", None, None)
        for path in walk(out)
        if path not in planned and path != MANIFEST
    ]
    return checked, [*findings, *_manifest(out)]


def first_difference(source: Any, target: Tensor) -> int | None:
    """Index of the first value that has other bits, the smaller dtype widened, or None.

    Args:
        source: A tensor or array of the same shape, float32, float16 or bfloat16.
        target: The tensor of the converted file; its dtype holds every value of the source's.
    """
    import numpy as np
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(source)) if isinstance(source, np.ndarray) else source.detach()
    bits = {2: torch.int16, 4: torch.int32}[target.element_size()]
    # Widening is exact and takes no two values to one, so equal bits after it are equal values before it.
    before = tensor.to(target.dtype).contiguous().view(bits)
    after = target.contiguous().view(bits)
    if torch.equal(before, after):
        return None
    return int((before != after).flatten().to(torch.uint8).argmax())


def _checked(plan: Plan, step: Step, out: Path) -> Checked:
    name = plan.name(step.source.path)
    findings: list[Finding] = []
    tensors = 0
    try:
        places = [inside(out, target, name=_name(out, target)) for target in step.targets]
        absent = [place for place in places if not place.is_file()]
        if absent:
            if step.source.kind != COPY:
                # If the source itself is bad, that is what there is to say.
                read_legacy(plan, step)
            place = absent[0].relative_to(out).as_posix()
            findings.append(_differs(_name(out, place), "", f"the file that {name} becomes is absent", None, None))
        elif step.source.kind == COPY:
            expected, observed = sha256_file(plan.place(step)), sha256_file(places[0])
            if expected != observed:
                message = f"the copy of {name} has another content"
                findings.append(_differs(_name(out, step.targets[0]), "", message, expected, observed))
        else:
            source = read_torch(plan.place(step), name=name)
            compare = _sae if step.source.kind == "sae_pt" else _safetensors
            differences, tensors = compare(plan, step, source, out)
            findings += differences
    except FormatError as error:
        findings.append(Finding.from_error("convert-differs", error))
    except OSError as error:
        findings.append(_differs(name, "", f"the file can't be read: {error.strerror}", None, None))
    return Checked(step, tensors, tuple(findings))


def _safetensors(plan: Plan, step: Step, source: TorchFile, out: Path) -> tuple[list[Finding], int]:
    """Compare a vector, transferred vectors or a map with its source."""
    from safetensors import safe_open

    target, kind = step.targets[0], step.source.kind
    name = _name(out, target)
    _READERS[kind](out / target, name=name)
    legacy = LEGACY[kind]
    with safe_open(out / target, framework="pt") as file:
        recorded = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    findings = list(_tensors(name, {key: source.content[key] for key in legacy.tensors}, tensors))
    expected = {key: source.header[key] for key in legacy.settings} | origin(plan, step)
    findings += [
        _differs(name, key, "the setting is another", value, recorded.get(key))
        for key, value in expected.items()
        if not _says(recorded.get(key), value)
    ]
    more, said = extras(source, kind, name), recorded.get("extra", "{}")
    if not _says(said, more):
        findings.append(_differs(name, "extra", "the values beside the known ones are others", more, said))
    return findings, len(tensors)


def _sae(plan: Plan, step: Step, source: TorchFile, out: Path) -> tuple[list[Finding], int]:
    """Compare an SAE with its source."""
    from safetensors.torch import load_file

    folder = (out / step.targets[0]).parent
    name = _name(out, folder.relative_to(out).as_posix())
    read_saelens(folder, name=name)
    config: Any = read_json(folder / CONFIG, name=f"{name}/{CONFIG}")
    tensors = load_file(folder / WEIGHTS)
    state: Any = source.content["state_dict"]
    findings = list(_tensors(f"{name}/{WEIGHTS}", {key: state[key] for key in TENSORS}, tensors))
    header = source.header
    expected: dict[str, Any] = {
        "d_in": header["d_model"],
        "d_sae": header["d_sae"],
        "k": header["k"],
        "metadata.model_name": header["model_id"],
        "metadata.hook_name": f"blocks.{header['layer']}.hook_resid_post",
    }
    more = {key: repr(value) for key, value in extras(source, step.source.kind, name).items()}
    expected |= {f"metadata.steer_eval.{key}": value for key, value in {**more, **origin(plan, step)}.items()}
    for where, value in expected.items():
        observed: Any = config
        for key in where.split(".", 2):
            observed = observed.get(key) if isinstance(observed, dict) else None
        if observed != value:
            findings.append(_differs(f"{name}/{CONFIG}", where, "the setting is another", value, observed))
    return findings, len(tensors)


def _tensors(name: str, sources: dict[str, Any], targets: dict[str, Tensor]) -> Iterator[Finding]:
    if sources.keys() != targets.keys():
        yield _differs(name, "", "the file has other tensors", sorted(sources), sorted(targets))
    for key in sources.keys() & targets.keys():
        source, target = sources[key], targets[key]
        if tuple(source.shape) != tuple(target.shape):
            yield _differs(name, key, "the tensor has another shape", list(source.shape), list(target.shape))
        elif str(target.dtype) not in {"torch.float32", f"torch.{str(source.dtype).removeprefix('torch.')}"}:
            yield _differs(name, key, "the tensor has a dtype that loses digits", str(source.dtype), str(target.dtype))
        elif (index := first_difference(source, target)) is not None:
            before, after = float(source.reshape(-1)[index]), float(target.reshape(-1)[index])
            yield _differs(name, f"{key}, value {index}", "the tensor has other bits", before, after)


def _manifest(out: Path) -> Iterator[Finding]:
    """What the manifest says that is not so, and what it does not say."""
    name = _name(out, MANIFEST)
    try:
        manifest: Any = read_json(inside(out, MANIFEST, name=name), name=name)
    except FormatError as error:
        yield Finding.from_error("convert-differs", error)
        return
    expected = {
        path: {
            "path": path,
            "sha256": sha256_file(out / path),
            "size": (out / path).stat().st_size,
            "kind": kind_of(path),
        }
        for path in repo_files(out)
    }
    if (
        not isinstance(manifest, dict)
        or manifest.get("schema") != SCHEMA
        or not isinstance(manifest.get("files"), list)
    ):
        yield _differs(name, "schema", "this is no manifest of ours", SCHEMA, None)
        return
    listed = {str(entry.get("path")): entry for entry in manifest["files"] if isinstance(entry, dict)}
    if len(listed) != len(manifest["files"]):
        yield _differs(name, "files", "an entry is no object, or a path stands twice", None, None)
    for path in sorted(expected.keys() | listed.keys()):
        if expected.get(path) != listed.get(path):
            yield _differs(name, path, "the entry is not the file's", expected.get(path), listed.get(path))


def _says(text: str | None, value: object) -> bool:
    """Whether metadata says a value: text as it is, a number as JSON."""
    if text is None or isinstance(value, str):
        return text == value
    try:
        said: object = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return said == value


def _differs(file: str, where: str, message: str, expected: Any, observed: Any) -> Finding:
    return Finding("convert-differs", "error", file, where, message, expected, observed, _AGAIN)


def _name(out: Path, path: str) -> str:
    return f"{out.resolve().name}/{path}"


_READERS: dict[str, Callable[..., Any]] = {
    "vector_pt": read_vector,
    "transferred_pt": read_transferred,
    "transfer_map_pt": read_transfer_map,
}
