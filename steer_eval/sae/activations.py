"""Residuals of a text at one layer, captured once and kept on disk.

Invariant: a folder of activations is a function of the weights, the layer, the text and how it is cut, which its
manifest names by their digests. Shards appear whole or not at all, and each covers a fixed range of sequences, so an
interrupted capture goes on where it stopped and ends in the same files.

The capture stops at the wanted block; the blocks above and the LM head never run. Residuals are stored in bfloat16, 2
bytes per value: with the float32 sums over them, that is all that training needs of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer_eval.errors import FormatError
from steer_eval.evaluation.memory import Budget
from steer_eval.formats import schema
from steer_eval.formats.atomic import write_bytes
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.model import LanguageModel
from steer_eval.sae.cached_tensors import DELETE, load_cached
from steer_eval.steering.hooks import captured, residual

MANIFEST = "activations.json"
SCHEMA = "steer-eval/activations/1"
SEQUENCES_PER_SHARD = 256
TOKENS_PER_BATCH = 2048
HELD_OUT_EVERY = 10
"""One document in so many is kept for measuring and never trained on."""
SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class Passage:
    """A stretch of a document in its tokens.

    Args:
        ids: Token ids; an array of them, where a whole text is cut.
        document: Index of the document.
    """

    ids: Sequence[int]
    document: int

    @property
    def split(self) -> str:
        """Whether it is trained on or measured on; all of a document goes one way."""
        return "held_out" if self.document % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train"


def cut(lm: LanguageModel, texts: Iterable[str], *, context: int, tokens: int) -> list[Passage]:
    """Cut documents into sequences.

    Each begins with the tokenizer's beginning-of-text token, if it adds one. What is left at the end of a document is a
    shorter sequence.

    Args:
        lm: The model, for its tokenizer.
        texts: The documents.
        context: Most tokens of a sequence.
        tokens: Stop once there are so many.
    """
    start = lm.text_ids("", special_tokens=True)
    sequences: list[Passage] = []
    count = 0
    for document, text in enumerate(texts):
        ids = lm.text_ids(text, special_tokens=False)
        room = context - len(start)
        for first in range(0, len(ids), room):
            if count >= tokens:
                return sequences
            # As Python's integers a text would take ten times the memory.
            piece = array("i", (*start, *ids[first : first + room]))
            sequences.append(Passage(piece, document))
            count += len(piece)
    return sequences


@dataclass(frozen=True, eq=False)
class Shard:
    """Residuals of some sequences, and where each comes from.

    Args:
        residuals: bfloat16 `[tokens, hidden_size]`, mapped to the file.
        ids: Token ids, int32 `[tokens]`.
        positions: Place of each token in its sequence, int32 `[tokens]`.
        sequences: Index of its sequence, int32 `[tokens]`.
        documents: Index of its document, int32 `[tokens]`.
    """

    residuals: Tensor
    ids: Tensor
    positions: Tensor
    sequences: Tensor
    documents: Tensor


_FIELDS = tuple(field.name for field in fields(Shard))


class Activations:
    """The residuals of one split, as one long list of rows.

    Args:
        shards: Its shards, in order.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        lengths = torch.tensor([len(shard.ids) for shard in shards])
        self.ends = lengths.cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def rows(self, indices: Tensor) -> Tensor:
        """Some residuals, float32 `[len(indices), hidden_size]`."""
        return self._gathered(indices, "residuals").float()

    def ids(self) -> Tensor:
        """Token ids of all rows."""
        return torch.cat([shard.ids for shard in self.shards])

    def positions(self) -> Tensor:
        """Places of all rows in their sequences."""
        return torch.cat([shard.positions for shard in self.shards])

    def sequences(self) -> Tensor:
        """Sequences of all rows."""
        return torch.cat([shard.sequences for shard in self.shards])

    def passages(self) -> list[Passage]:
        """The text that the rows are of, in its order."""
        found = []
        for shard in self.shards:
            starts = (shard.positions == 0).nonzero().flatten().tolist()
            for start, end in pairwise((*starts, len(shard.ids))):
                found.append(Passage(array("i", shard.ids[start:end].tolist()), int(shard.documents[start])))
        return found

    def batches(self, size: int) -> Iterator[Tensor]:
        """All rows in order, float32, so many at a time."""
        for start in range(0, len(self), size):
            yield self.rows(torch.arange(start, min(start + size, len(self))))

    def _gathered(self, indices: Tensor, field: str) -> Tensor:
        which = torch.searchsorted(self.ends, indices, right=True)
        first = getattr(self.shards[0], field)
        found = torch.empty((len(indices), *first.shape[1:]), dtype=first.dtype)
        for shard in sorted(set(which.tolist())):
            places = (which == shard).nonzero().flatten()
            begin = int(self.ends[shard - 1]) if shard else 0
            found[places] = getattr(self.shards[shard], field)[indices[places] - begin]
        return found


def capture(
    lm: LanguageModel,
    sequences: Sequence[Passage],
    layer: int,
    folder: Path,
    *,
    key: dict[str, Any],
    splits: Sequence[str] = SPLITS,
    on_tokens: Callable[[int], None] = lambda _tokens: None,
) -> None:
    """Capture the output of a block for all sequences of some splits, unless the folder has it already.

    Args:
        lm: The model.
        sequences: The text.
        layer: Index of the block, from 0.
        folder: Where the shards go.
        key: What they are a function of, for the manifest: digests of the weights and the text among them.
        splits: Which part of the text; what the folder has of the other stays.
        on_tokens: Called with the number of tokens just done, those of an earlier capture included.

    Raises:
        FormatError: The folder holds activations of something else.
    """
    manifest: dict[str, Any] = {"schema": SCHEMA, "key": {**key, "layer": layer}, "shards": []}
    if (folder / MANIFEST).exists():
        before = read_manifest(folder)
        if before["key"] != manifest["key"]:
            message = "the folder holds activations of something else"
            raise FormatError(str(folder / MANIFEST), "key", message, fix="name another folder")
        manifest["shards"] = [entry for entry in before["shards"] if entry["split"] not in splits]
    else:
        # An interrupted capture must know its own shards again.
        write_json(folder / MANIFEST, manifest)
    missing = sum(len(sequence.ids) for sequence in sequences if sequence.split in splits)
    with Budget.of(lm, None).kernels(lm, missing)():
        _capture(lm, sequences, layer, folder, manifest["shards"], splits, on_tokens)
    write_json(folder / MANIFEST, manifest)


def _capture(
    lm: LanguageModel,
    sequences: Sequence[Passage],
    layer: int,
    folder: Path,
    shards: list[dict[str, Any]],
    splits: Sequence[str],
    on_tokens: Callable[[int], None],
) -> None:
    """Write what is missing of some splits, and list all of it."""
    for split in splits:
        numbered = [(number, sequence) for number, sequence in enumerate(sequences) if sequence.split == split]
        pieces = iter(numbered)
        for index in range(-(-len(numbered) // SEQUENCES_PER_SHARD)):
            piece = list(islice(pieces, SEQUENCES_PER_SHARD))
            file = f"{split}-{index:05d}.safetensors"
            rows = sum(len(sequence.ids) for _, sequence in piece)
            shards.append({"file": file, "split": split, "rows": rows})
            if not (folder / file).exists():
                write_bytes(folder / file, _shard(lm, piece, layer))
            on_tokens(rows)


def holds(folder: Path, layer: int, key: Mapping[str, Any], splits: Sequence[str]) -> bool:
    """Whether a folder has all residuals of some splits of a text.

    Args:
        folder: The folder.
        layer: Index of the block, from 0.
        key: What they are a function of, as for `capture`.
        splits: Which part of the text.

    Raises:
        FormatError: The manifest is bad.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    if manifest["key"] != {**key, "layer": layer}:
        return False
    shards = [entry for entry in manifest["shards"] if entry["split"] in splits]
    complete = {entry["split"] for entry in shards} == set(splits)
    return complete and all((folder / entry["file"]).exists() for entry in shards)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of activations.

    Raises:
        FormatError: It is absent or bad.
    """
    name = str(folder / MANIFEST)
    manifest: dict[str, Any] = read_json(folder / MANIFEST, name=name)
    schema.check(manifest, "activations", file=name)
    return manifest


def load_split(folder: Path, split: str) -> Activations:
    """The residuals of one split, mapped from their shards.

    Raises:
        FormatError: The manifest is absent or bad, or a shard does not fit it.
    """
    shards = []
    for entry in read_manifest(folder)["shards"]:
        if entry["split"] != split:
            continue
        tensors = load_cached(folder / entry["file"], _FIELDS)
        for field in _FIELDS:
            if len(tensors[field]) != entry["rows"]:
                raise FormatError(
                    str(folder / entry["file"]),
                    field,
                    "the shard has another number of tokens",
                    expected=entry["rows"],
                    observed=len(tensors[field]),
                    fix=DELETE,
                )
        shards.append(Shard(**{field: tensors[field] for field in _FIELDS}))
    return Activations(shards)


@torch.no_grad()
def _shard(lm: LanguageModel, piece: Sequence[tuple[int, Passage]], layer: int) -> bytes:
    """A shard as a file: sequences of one length are read together, and stand in the order of the text."""
    from safetensors.torch import save

    found: dict[int, Tensor] = {}
    by_length = sorted(piece, key=lambda numbered: len(numbered[1].ids))
    for length, group in groupby(by_length, key=lambda numbered: len(numbered[1].ids)):
        same = list(group)
        step = max(1, TOKENS_PER_BATCH // length)
        for start in range(0, len(same), step):
            batch = same[start : start + step]
            ids = torch.tensor([sequence.ids for _, sequence in batch], device=lm.device)
            with captured(lm.blocks, [layer], stop=True) as outputs:
                lm.final_hidden(ids)
            hidden = residual(outputs[layer]).to("cpu", torch.bfloat16)
            found |= {number: hidden[row] for row, (number, _) in enumerate(batch)}
    lengths = torch.tensor([len(sequence.ids) for _, sequence in piece])

    def per_token(values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int32).repeat_interleave(lengths)

    content: bytes = save(
        {
            "residuals": torch.cat([found[number] for number, _ in piece]),
            "ids": torch.tensor([token for _, sequence in piece for token in sequence.ids], dtype=torch.int32),
            "positions": torch.cat([torch.arange(length, dtype=torch.int32) for length in lengths.tolist()]),
            "sequences": per_token(number for number, _ in piece),
            "documents": per_token(sequence.document for _, sequence in piece),
        }
    )
    return content
