"""What repos hold: every file with its kind, and its content or its trouble.

Invariant: each file is read once, by the one reader of its kind. A bad file or row is kept as a `FormatError` and never
hides another: the good rows of a bad table are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.formats import schema
from steer_eval.formats.containment import inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.manifest import repo_files
from steer_eval.formats.strict_json import MAX_FILE_BYTES, Row, scan_json, scan_jsonl
from steer_eval.formats.text import read_text
from steer_eval.left_file import LeftFile

MAX_CARD_BYTES = 8 * 2**20
"""The largest card that is read: people write them, and every rule about cards goes through the whole text."""

TABLES = {
    "contrast_pairs": "contrast_pair",
    "eval_prompts": "eval_prompt",
    "sweep": "sweep_row",
    "comparison": "comparison_row",
    "judge": "judge_row",
    "judge_comparison": "judge_comparison_row",
    "judge_labels": "judge_label_row",
    "transfer_eval": "transfer_row",
    "phase_i": "phase_i_row",
}
"""Schema of the rows of each kind of table."""

DOCUMENTS = {
    "sae_quality": "sae_quality",
    "latent_diff": "latent_diff",
    "size_comparison": "size_comparison",
    "transfer_diagnostics": "transfer_diagnostics",
}
"""Schema of each kind of JSON document whose content stays a plain value."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """One file of a repo, or one folder that is read as a whole.

    Args:
        file: Its name in findings: the repo's and its path.
        path: Its path inside the repo.
        kind: What it is.
        size: Bytes.
        value: What it holds, as the reader of its kind gives it; None where it can't be used at all.
        troubles: What is wrong with it.
        unread: What was not read of it, because it was left where it is; empty if it is here.
    """

    file: str
    path: str
    kind: str
    size: int
    value: Any = None
    troubles: tuple[FormatError, ...] = ()
    unread: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Root:
    """A repo whose files are listed.

    Args:
        folder: Where it is.
        prefix: What to put before paths in findings.
        role: `model` or `dataset`.
        kinds: Kinds of files whose names a study chose.
        left: Files that are not in the folder, of which the beginning can be read, by path.
    """

    folder: Path
    prefix: str
    role: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, LeftFile] = field(default_factory=dict)

    def files(self) -> Iterator[str]:
        """Paths of the repo's files, sorted; hidden ones, the manifest and links out of it are left out."""
        left = (path for path in self.left if not any(part.startswith(".") for part in path.split("/")))
        return iter(sorted({*repo_files(self.folder), *left}))


@dataclass(frozen=True)
class Inventory:
    """Everything that some repos hold."""

    roots: tuple[Root, ...]
    artifacts: tuple[Artifact, ...]
    _by_kind: dict[str, list[Artifact]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for artifact in self.artifacts:
            self._by_kind.setdefault(artifact.kind, []).append(artifact)

    def of(self, *kinds: str) -> Iterator[Artifact]:
        """Artifacts of some kinds that can be used."""
        return (each for kind in kinds for each in self._by_kind.get(kind, ()) if each.value is not None)

    def named(self, name: str, kind: str) -> Artifact | None:
        """The usable artifact of a kind with a file name."""
        return next((artifact for artifact in self.of(kind) if artifact.name == name), None)


def take_inventory(roots: Iterable[Root]) -> Inventory:
    """Read every file of some repos.

    Args:
        roots: The repos.
    """
    roots = tuple(roots)
    return Inventory(roots, tuple(_artifact(root, path) for root in roots for path in root.files()))


def _artifact(root: Root, path: str) -> Artifact:
    name = f"{root.prefix}{path}"
    kind = root.kinds.get(path) or kind_of(path)
    troubles: list[FormatError] = []
    value = None
    size = 0
    if path in root.left:
        return _left_artifact(root, root.left[path], kind)
    try:
        where = inside(root.folder, path, name=name)
        size = where.stat().st_size
        if kind == "torch":
            kind = torch_kind(where, name)
        elif kind == "transfer":
            kind = _transfer_kind(where, name)
        if kind in TABLES:
            value = _table(where, name, TABLES[kind], troubles)
        elif kind in DOCUMENTS or kind == "json":
            value = _document(where, name, DOCUMENTS.get(kind), troubles)
        else:
            value = _read(kind, where, name)
    except FormatError as error:
        troubles.append(error)
    except OSError as error:
        troubles.append(FormatError(name, "", f"the file can't be read: {error.strerror}"))
    return Artifact(name, path, kind, size, value, tuple(troubles))


def _left_artifact(root: Root, file: LeftFile, kind: str) -> Artifact:
    """What the beginning of a file says that was left where it is."""
    from steer_eval.outline import outline

    name = f"{root.prefix}{file.path}"
    try:
        said = outline(file, kind, root.folder, name=name)
    except FormatError as error:
        return Artifact(name, file.path, kind, file.size, None, (error,))
    return Artifact(name, file.path, said.kind, file.size, said.value, (), said.unread)


def _table(path: Path, name: str, row_schema: str, troubles: list[FormatError]) -> tuple[Row, ...]:
    rows = []
    for item in scan_jsonl(path, schema=row_schema, name=name):
        if isinstance(item, FormatError):
            troubles.append(item)
        else:
            rows.append(item)
    return tuple(rows)


def _document(path: Path, name: str, document_schema: str | None, troubles: list[FormatError]) -> Any:
    value, errors = scan_json(path, name=name)
    troubles += errors
    if document_schema is not None:
        schema.check(value, document_schema, file=name)
    return value


def torch_kind(path: Path, name: str) -> str:
    """What a PyTorch file holds, by the keys of its dict.

    Raises:
        FormatError: The file is refused, or holds nothing that is known.
    """
    from steer_eval.formats import caa_pt, sae, transfer
    from steer_eval.formats.torch_file import read_header

    keys = set(read_header(path, name=name))
    for kind, needed in (
        ("vector_pt", caa_pt.KEYS),
        ("transferred_pt", transfer.VECTOR_KEYS),
        ("transfer_map_pt", transfer.MAP_KEYS),
        ("sae_pt", sae.KEYS),
    ):
        if needed <= keys:
            return kind
    raise FormatError(
        name,
        "",
        "the file is none of the known kinds",
        expected="a vector, transferred vectors, a transfer map or an SAE",
        observed="a value without a dict around it" if keys == {""} else _shown(keys),
        fix="docs/formats.md lists the keys of each kind",
    )


def _shown(keys: set[str]) -> list[str]:
    """Some keys for a message, each shortened."""
    return [key if len(key) <= 80 else f"{key[:79]}…" for key in sorted(keys)[:12]]


def _transfer_kind(path: Path, name: str) -> str:
    from steer_eval.formats.safetensors_file import read_header

    return transfer_kind(read_header(path, name=name), name)


def transfer_kind(header: Mapping[str, Any], name: str) -> str:
    """What a safetensors file of a transfer holds, by the tensors that its header names.

    Raises:
        FormatError: It holds nothing that is known.
    """
    from steer_eval.formats import transfer

    tensors = set(header) - {"__metadata__"}
    for kind, needed in (("transferred", transfer.VECTOR_KEYS), ("transfer_map", transfer.MATRICES)):
        if tensors.issuperset(needed):
            return kind
    raise FormatError(
        name,
        "header",
        "the file is none of the known kinds",
        expected="transferred vectors or a transfer map",
        observed=_shown(tensors),
        fix="schemas/transferred.schema.json and schemas/transfer_map.schema.json name the tensors of each kind",
    )


def _sae_folder(path: Path, *, name: str) -> Any:
    """The SAELens folder around its weights."""
    from steer_eval.formats.saelens import look_at_saelens

    return look_at_saelens(path.parent, name=name.rsplit("/", 1)[0])


def _sae_activity(path: Path, *, name: str) -> Any:
    """The activity beside an SAE, of as many features as the file has; whether the SAE has as many is for a rule."""
    from steer_eval.formats.safetensors_file import read_header
    from steer_eval.sae.feature_activity import read_feature_activity

    shape = read_header(path, name=name).get("maximum", {}).get("shape", [0])
    return read_feature_activity(path.parent, shape[0] if shape else 0, name=name.rsplit("/", 1)[0])


def _card(path: Path, *, name: str) -> str:
    return read_text(path, name, limit=MAX_CARD_BYTES)


def _text(path: Path, *, name: str) -> str:
    return read_text(path, name, limit=MAX_FILE_BYTES)


_READERS: dict[str, str | Callable[..., Any]] = {
    "vector": "formats.vector:read_vector",
    "vector_pt": "formats.caa_pt:read_caa_pt",
    "control_vector": "export.gguf_control_vector:read_control_vector",
    "transferred": "formats.transfer:read_transferred",
    "transferred_pt": "formats.transfer:read_transferred_pt",
    "transfer_map": "formats.transfer:read_transfer_map",
    "transfer_map_pt": "formats.transfer:read_transfer_map_pt",
    "sae": _sae_folder,
    "sae_pt": "formats.sae:read_sae_pt",
    "sae_activity": _sae_activity,
    "features": "formats.features:read_features",
    "card": _card,
    "perplexity_corpus": _text,
}
"""The reader of each kind of file, `module:function` where it is imported only when there is such a file."""


def _read(kind: str, path: Path, name: str) -> Any:
    reader = _READERS.get(kind)
    if isinstance(reader, str):
        module, function = reader.split(":")
        reader = getattr(import_module(f"steer_eval.{module}"), function)
    return None if reader is None else reader(path, name=name)
