"""Tables of a dataset repo as the front matter of its card lists them, for `datasets.load_dataset`.

Invariant: a listed table can be loaded by its name, one split per file, and its numbers come back as they stand in the
file. Types are stated only where the `datasets` library would infer others: where files of one table differ, where a
file is read in several pieces, or where objects inside rows have different keys. Of the last it would make JSON texts
of its own, with floats cut to ten decimals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_eval.errors import FormatError

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

    from steer_eval.inventory import Artifact, Root
    from steer_eval.legacy.tables import Table, Tree

DEFAULT = "sweep"
"""The table that is loaded where none is named."""
ONE_PIECE_BYTES = 8 * 2**20
"""Files up to this size are read at once by `datasets`, whose types then fit all rows."""


@dataclass(frozen=True)
class TableConfig:
    """One configuration of a dataset repo.

    Args:
        name: Its name.
        files: Paths by split.
        columns: Type of each column, where they are stated.
    """

    name: str
    files: Mapping[str, str]
    columns: Mapping[str, Tree] | None = None


def table_config(table: Table) -> TableConfig:
    """The configuration of a table of files that were read."""
    large = any(artifact.size > ONE_PIECE_BYTES for artifact in table.files.values())
    files = {split: artifact.path for split, artifact in table.files.items()}
    return TableConfig(table.name, files, table.columns if large or not table.alike or not table.even else None)


def study_tables(data_repo: Path, kinds: Mapping[str, str], models: Collection[str]) -> tuple[TableConfig, ...]:
    """The tables of a study's dataset repo, the sweep last.

    Args:
        data_repo: The dataset repo.
        kinds: Kinds of the files whose names the study chose; their configurations are called after the kinds.
        models: The models; their splits stand in this order.
    """
    from steer_eval.inventory import Inventory, Root
    from steer_eval.legacy.tables import tables

    root = Root(data_repo, "", "dataset", kinds)
    artifacts = tuple(_artifacts(root))
    swept = [each.name.removeprefix("sweep_").removesuffix(".jsonl") for each in artifacts if each.kind == "sweep"]
    found = [table_config(table) for table in tables(Inventory((root,), artifacts), swept)]
    order = {model: index for index, model in enumerate(models)}
    named = []
    for config in found:
        splits = sorted(config.files.items(), key=lambda item: order.get(item[0], len(order)))
        name = kinds.get(splits[0][1], config.name)
        named.append(replace(config, name=name, files=dict(splits)))
    return tuple(sorted(named, key=lambda config: (config.name == DEFAULT, config.name)))


def _artifacts(root: Root) -> Iterator[Artifact]:
    """The tables of a repo. Whether rows satisfy their schema is not asked: it does not matter for loading them."""
    from steer_eval.formats.kinds import kind_of
    from steer_eval.formats.manifest import repo_files
    from steer_eval.formats.strict_json import MAX_FILE_BYTES, Row, parse
    from steer_eval.formats.text import read_text
    from steer_eval.inventory import TABLES, Artifact

    for path in repo_files(root.folder):
        kind = root.kinds.get(path) or kind_of(path)
        if kind in TABLES:
            try:
                text = read_text(root.folder / path, path, limit=MAX_FILE_BYTES)
                lines = enumerate(text.removesuffix("\n").split("\n"), start=1)
                rows = tuple(Row(number, parse(line, path, f"line {number}")) for number, line in lines)
            except FormatError:
                # `datasets` could not load it either; the file is a finding elsewhere.
                continue
            yield Artifact(path, path, kind, len(text.encode()), rows)


def list_tables(data: DatasetCardData, configs: Iterable[TableConfig]) -> None:
    """Put tables into the front matter of a dataset card.

    Args:
        data: The front matter.
        configs: The tables.
    """
    configs = tuple(configs)
    data["configs"] = [_listed(config) for config in configs] or None
    stated = {config.name: config.columns for config in configs if config.columns is not None}
    if stated:
        # As `datasets` writes it itself (a test holds this to it); importing it takes longer than all else here.
        infos = [
            {"config_name": name, "features": _typed(dict(columns))["struct"]}
            for name, columns in sorted(stated.items())
        ]
        data["dataset_info"] = infos if len(infos) > 1 else infos[0]


def _listed(config: TableConfig) -> dict[str, Any]:
    splits = [{"split": split, "path": path} for split, path in config.files.items()]
    return {
        "config_name": config.name,
        "data_files": splits,
        **({"default": True} if config.name == DEFAULT else {}),
    }


def _typed(tree: Tree) -> dict[str, Any]:
    """A type in the form that cards have it in."""
    if isinstance(tree, dict):
        return {"struct": [{"name": name, **_typed(each)} for name, each in tree.items()]}
    if isinstance(tree, list):
        item = _typed(tree[0])
        # Only a list of lists keeps the word for what is inside.
        return {"list": item if "list" in item else next(iter(item.values()))}
    return {"dtype": tree}
