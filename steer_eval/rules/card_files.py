"""Rules on what a card says of files.

Invariant: only statements about files are judged here, and only where their form leaves no doubt: a path in a table, a
size with its unit beside it, a count with its noun. Whether the results hold is for claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import product

from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.card import Card, Table, TableRow, code_spans, read_card
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.sae import TopKSae
from steer_eval.inventory import Artifact, Inventory, Root

_BRACES = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"[\w.{},*-]+(/[\w.{},*-]+)*\.(pt|pth|safetensors|json|jsonl|gguf|txt|csv|parquet|yaml)")
_SIZE = re.compile(r"(?P<about>[~≈<≤]?)\s*(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[KMG]i?B|bytes)\b", re.IGNORECASE)
_SETTING = re.compile(r"\b(?P<key>d_sae|d_model|d_in|k)\s*=\s*(?P<value>[0-9][0-9,]*)")
_TOP = re.compile(r"\btop[- ](?P<count>[0-9]+) features", re.IGNORECASE)
_COUNT = re.compile(
    r"(?P<count>[0-9][0-9,]*) (?:[\w-]+ )?(?:rows|pairs|prompts|cells|scenarios|lines|records)\b", re.IGNORECASE
)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3}
_ABOUT = 0.1
_FEATURE_COEFFICIENT = re.compile(r"\bL\s*=?\s*(?P<layer>[0-9]+)\s*,?\s*c\s*=?\s*(?P<coef>[+-]?[0-9]+(?:\.[0-9]+)?)")
_SIZE_NAME = re.compile(r"[0-9]+(?:\.[0-9]+)?[BM]\b")
_TABLES = ("sweep", "judge", "judge_labels", "transfer_eval", "phase_i", "contrast_pairs", "eval_prompts", "jsonl")


def card_file_findings(inventory: Inventory) -> list[Finding]:
    """What cards say of files that the files do not bear out.

    Args:
        inventory: What the repos hold.
    """
    findings: list[Finding] = []
    for root in inventory.roots:
        artifact = next((each for each in inventory.of("card") if each.file == f"{root.prefix}README.md"), None)
        if artifact is None:
            continue
        try:
            card = read_card(artifact.value, artifact.file)
        except FormatError as error:
            findings.append(Finding("card-metadata", "error", error.file, error.where, error.reason, fix=error.fix))
            continue
        findings += _metadata(card, artifact, inventory, root)
        for table in card.tables:
            findings += _inventory_table(table, artifact, inventory, root)
            findings += _feature_coefficients(table, artifact, inventory)
    return findings


def _metadata(card: Card, artifact: Artifact, inventory: Inventory, root: Root) -> Iterator[Finding]:
    """A model card whose dataset repo is at hand names it, so that the Hub links the two."""
    if root.role == "model" and len(inventory.roots) > 1 and "datasets" not in card.metadata:
        message = "the front matter has no `datasets:`, so that neither the Hub nor a program finds the data"
        fix = "add `datasets:` with the id of the dataset repo"
        yield Finding("card-metadata", "note", artifact.file, "front matter", message, fix=fix)


def expanded(path: str) -> list[str]:
    """Paths that one with braces stands for: `a{1,2}.pt` is `a1.pt` and `a2.pt`."""
    parts = _BRACES.split(path)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(combination) for combination in product(*choices)]


def size_agrees(stated: str, size: int) -> bool:
    """Whether a size as printed (`~10 KB`, `24 MB`, `<10 KB`) is that of a file, in decimal or binary units.

    Args:
        stated: A text with a size in it.
        size: Bytes.
    """
    match = _SIZE.search(stated)
    if match is None:
        return True
    number, power = float(match["number"]), _POWERS[match["unit"][0].lower()]
    decimals = len(match["number"].partition(".")[2])
    step = 10.0**-decimals
    for base in (1000, 1024):
        value = size / base**power
        if match["about"] in ("<", "≤"):
            if value <= number:
                return True
        # `ls -h` and `du -h` round up, most others to the nearest.
        elif -step < value - number <= 0.5 * step:
            return True
        if match["about"] and abs(value - number) <= _ABOUT * number:
            return True
    return False


def _inventory_table(table: Table, card: Artifact, inventory: Inventory, root: Root) -> Iterator[Finding]:
    """A table with a column of paths: each is there, and has the size and the counts that stand beside it."""
    column = table.column("path", "file", "files", "name", "artifact", "artifacts")
    if column is None:
        return
    files = {each.path: each for each in inventory.artifacts if each.file == f"{root.prefix}{each.path}"}
    for row in table.rows:
        spans = code_spans(row.cells[column]) if column < len(row.cells) else []
        for span in spans:
            if not _PATH.fullmatch(span):
                continue
            for path in expanded(span):
                present = [file for name, file in files.items() if fnmatchcase(name, path)]
                if not present:
                    fix = "publish the file, or take it off the card"
                    message = "the card names this file and it is absent"
                    yield Finding(
                        "card-file-absent", "warning", card.file, f"line {row.line}", f"{path}: {message}", fix=fix
                    )
                for file in present:
                    yield from _described(row, column, file, card)


def _described(row: TableRow, column: int, file: Artifact, card: Artifact) -> Iterator[Finding]:
    where = f"line {row.line}"
    words = " ".join(cell for index, cell in enumerate(row.cells) if index != column)
    stated = _SIZE.search(words)
    if stated and not size_agrees(stated[0], file.size):
        message = f"{file.path} has another size than the card says"
        fix = "render sizes, do not type them"
        yield Finding("card-size", "warning", card.file, where, message, stated[0].strip(), f"{file.size} bytes", fix)
    for expected, observed, what in _counts(words, file):
        if expected != observed:
            message = f"{file.path} has another {what} than the card says"
            fix = "render counts, do not type them"
            yield Finding("card-count", "warning", card.file, where, message, expected, observed, fix)


def _counts(words: str, file: Artifact) -> Iterator[tuple[int, int, str]]:
    """Counts that a card states of a file: as stated, as they are, and of what."""
    if file.value is None:
        return
    value = file.value
    if isinstance(value, TopKSae):
        sae = value
        there = {"d_sae": sae.d_sae, "d_model": sae.d_in, "d_in": sae.d_in, "k": sae.k}
        for match in _SETTING.finditer(words):
            yield _number(match["value"]), there[match["key"]], match["key"]
    elif isinstance(value, FeatureTable):
        if top := _TOP.search(words):
            yield _number(top["count"]), len(value.rows), "number of features"
    elif file.kind in _TABLES and not file.troubles and (count := _COUNT.search(words)):
        yield _number(count["count"]), len(value), "number of rows"


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)


def _feature_coefficients(table: Table, card: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """A feature table of the layer that the card calls best, but steered with another coefficient."""
    for row in table.rows:
        words = " ".join(row.cells)
        cell, size = _FEATURE_COEFFICIENT.search(words), _SIZE_NAME.search(row.cells[0] if row.cells else "")
        if cell is None or size is None:
            continue
        for artifact in inventory.of("features"):
            features: FeatureTable = artifact.value
            stated = float(cell["coef"])
            same_model = re.search(rf"(?<![0-9.]){re.escape(size[0])}(?![0-9A-Za-z])", features.model) is not None
            if same_model and features.layer == int(cell["layer"]) and features.coefficient != stated:
                message = (
                    f"line {row.line} of {card.path} gives results of layer {features.layer} at c={stated:g}, but the "
                    f"features were measured at c={features.coefficient:g}"
                )
                fix = "measure the features at the coefficient that the card reports, or state theirs"
                yield Finding(
                    "feature-coefficient", "warning", artifact.file, "coef", message, stated, features.coefficient, fix
                )
