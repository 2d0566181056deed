"""Rules on what a card says of files.

Invariant: only statements about files are judged here, and only where their form leaves no doubt: a path in a table, a
size with its unit beside it, a count with its noun. Whether the results hold is for claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.card import Card, Table, TableRow, code_spans, read_card
from steer_eval.formats.features import FeatureTable
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import WEIGHTS, StoredSae, folder_name
from steer_eval.inventory import Artifact, Inventory, Root
from steer_eval.rules.files import unusable
from steer_eval.rules.vector_files import name_parts

MAX_NAMES = 1024
"""Most paths that the braces of one may stand for; in one with more they stand for anything."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"[\w.{},*-]+(/[\w.{},*-]+)*\.(pt|pth|safetensors|json|jsonl|gguf|txt|csv|parquet|yaml)")
_SIZE = re.compile(
    r"(?P<about>[~≈<≤]?)\s*(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?)\s*(?P<unit>[KMG]i?B|bytes)\b", re.IGNORECASE
)
# A cell that is a size and nothing else; in a sentence a size may be that of something else.
_SIZE_ALONE = re.compile(rf"{_SIZE.pattern}(?: (?:each|per file|total|together|in total|altogether))?", re.IGNORECASE)
_SETTING = re.compile(r"\b(?P<key>d_sae|d_model|d_in|k)\s*=\s*(?P<value>[0-9][0-9,]*)")
_TOP = re.compile(r"\btop[- ](?P<count>[0-9]+) features", re.IGNORECASE)
_COUNT = re.compile(r"\b(?P<count>[0-9][0-9,]*) (?:[\w-]+ )?(?P<noun>[a-z]+s)\b", re.IGNORECASE)
_ROWS = frozenset({"rows", "lines", "records"})
_NOUNS = {
    "sweep": {"cells"},
    "comparison": {"cells", "methods"},
    "judge": {"cells"},
    "judge_labels": {"variants"},
    "judge_comparison": {"cells"},
    "transfer_eval": {"variants"},
    "phase_i": {"variants"},
    "contrast_pairs": {"pairs", "scenarios"},
    "eval_prompts": {"prompts", "scenarios"},
    "jsonl": set(),
}
"""What the rows of each kind of table are called, beside rows."""
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3}
_TORCH = frozenset({"pt", "pth", "bin"})
_ABOUT = 0.1
_ABOUT_SIGNS = frozenset("~≈")
_CELL = re.compile(r"\bL\s*=?\s*(?P<layer>[0-9]+)\s*,?\s*c\s*=?\s*(?P<coef>[+-]?[0-9]+(?:\.[0-9]+)?)")
_SIZE_NAME = re.compile(r"[0-9]+(?:\.[0-9]+)?[BM]\b")


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
            fix = error.fix or "mend the YAML between the two lines of `---`; the Hub reads it as well"
            findings.append(Finding("card-metadata", "error", error.file, error.where, error.reason, fix=fix))
            continue
        findings += _metadata(card, artifact, inventory, root)
        unread = unusable(inventory)
        for table in card.tables:
            findings += _inventory_table(table, artifact, inventory, root, unread)
        findings += _feature_coefficients(card, artifact, inventory)
    return findings


def _metadata(card: Card, artifact: Artifact, inventory: Inventory, root: Root) -> Iterator[Finding]:
    """A model card whose dataset repo is at hand names it, so that the Hub links the two."""
    if root.role == "model" and len(inventory.roots) > 1 and "datasets" not in card.metadata:
        message = "the front matter has no `datasets:`, so that neither the Hub nor a program finds the data"
        fix = "add `datasets:` with the id of the dataset repo"
        yield Finding("card-metadata", "note", artifact.file, "front matter", message, fix=fix)


def expanded(path: str) -> list[str]:
    """Paths that one with braces stands for: `a{1,2}.pt` is `a1.pt` and `a2.pt`, and `a{layer}.pt` is `a*.pt`."""
    done: list[str] = []
    todo = [path]
    while todo:
        current = todo.pop()
        found = _BRACES.search(current)
        if found is None:
            done.append(current)
            continue
        parts = found[1].split(",") if "," in found[1] else ["*"]
        if len(done) + len(todo) + len(parts) > MAX_NAMES:
            return [_starred(path)]
        todo += [current[: found.start()] + part + current[found.end() :] for part in reversed(parts)]
    return list(dict.fromkeys(done))


def _starred(path: str) -> str:
    """A path with a star in place of its braces."""
    while _BRACES.search(path):
        path = _BRACES.sub("*", path)
    return path


def size_agrees(stated: str, size: int) -> bool:
    """Whether a size as printed (`~10 KB`, `24 MB`, `<10 KB`) is that of a file, in decimal or binary units.

    Args:
        stated: A text with a size in it.
        size: Bytes.
    """
    match = _SIZE.search(stated)
    if match is None:
        return True
    number, power = float(match["number"].replace(",", "")), _POWERS[match["unit"][0].lower()]
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
        if match["about"] in _ABOUT_SIGNS and abs(value - number) <= _ABOUT * number:
            return True
    return False


def _inventory_table(
    table: Table, card: Artifact, inventory: Inventory, root: Root, unread: frozenset[str]
) -> Iterator[Finding]:
    """A table with a column of paths: each is there, and has the size and the counts that stand beside it."""
    column = table.column("path", "file", "files", "name", "artifact", "artifacts")
    if column is None:
        return
    own = {each.path: each for each in inventory.artifacts if each.file == f"{root.prefix}{each.path}"}
    # Cards name the files of the other repo as well, and what is behind a link is not absent.
    elsewhere = {each.path for each in inventory.artifacts if each.path not in own}
    links = [name.removeprefix(root.prefix) for name in unread if name.startswith(root.prefix)]
    for row in table.rows:
        spans = code_spans(row.cells[column]) if column < len(row.cells) else []
        files: dict[str, Artifact] = {}
        for path in [path for span in spans if _PATH.fullmatch(span) for path in expanded(span.removeprefix("./"))]:
            present = {name: file for name, file in own.items() if _names(path, name)}
            files |= present
            hidden = any(_names(path, link) or fnmatchcase(path, f"{link}/*") for link in links)
            if not present and not hidden and not any(_names(path, name) for name in elsewhere):
                yield _absent(path, own, card, row.line)
        yield from _sizes(row, column, list(files.values()), card)
        for file in files.values():
            yield from _described(row, column, file, card)


def _absent(path: str, own: Iterable[str], card: Artifact, line: int) -> Finding:
    """A path that a card names and that is not there, though what was converted from it may be."""
    where = f"line {line}"
    now = _converted(path, own)
    if now is not None:
        message = f"the card names {path}, which is now at {now}"
        return Finding("card-file-absent", "note", card.file, where, message, fix="name the new path")
    message, fix = f"the card names {path}, and there is no such file", "publish the file, or take it off the card"
    return Finding("card-file-absent", "warning", card.file, where, message, fix=fix)


def _converted(path: str, own: Iterable[str]) -> str | None:
    """Where a PyTorch file is since its conversion: a safetensors file of its stem, or the SAELens folder of its name.

    Args:
        path: The path that the card names, perhaps with stars.
        own: Paths of the repo's files.
    """
    stem, _, ending = path.rsplit("/", 1)[-1].rpartition(".")
    if ending not in _TORCH:
        return None
    parts = name_parts(f"{stem}.{ending}") if stem.endswith("_sae") else None
    for name in own:
        folder, _, file = name.rpartition("/")
        if parts is not None and file == WEIGHTS and fnmatchcase(folder, folder_name(*parts)):
            return folder
        if fnmatchcase(file, f"{stem}.safetensors"):
            return name
    return None


def _names(pattern: str, path: str) -> bool:
    """Whether a card that says `pattern` means a path; it may leave the folder out."""
    return fnmatchcase(path, pattern) or ("/" not in pattern and fnmatchcase(path.rsplit("/", 1)[-1], pattern))


def _sizes(row: TableRow, column: int, files: list[Artifact], card: Artifact) -> Iterator[Finding]:
    """The size in a row is that of each of its files, or of all of them together."""
    cells = [cell.strip(" *") for index, cell in enumerate(row.cells) if index != column]
    stated = next((cell for cell in cells if _SIZE_ALONE.fullmatch(cell)), None)
    if stated is None or size_agrees(stated, sum(file.size for file in files)):
        return
    for file in files:
        # A file that is refused is not the one that the card was written for.
        if not file.troubles and not size_agrees(stated, file.size):
            where, message = f"line {row.line}", f"{file.path} has another size than the card says"
            fix = "write the size that the file has"
            yield Finding("card-size", "warning", card.file, where, message, stated, f"{file.size} bytes", fix)


def _described(row: TableRow, column: int, file: Artifact, card: Artifact) -> Iterator[Finding]:
    words = " ".join(cell for index, cell in enumerate(row.cells) if index != column)
    for stated, there, what in _counts(words, file):
        if stated != there:
            where, message = f"line {row.line}", f"{file.path} has another {what} than the card says"
            fix = "write what the file has"
            yield Finding("card-count", "warning", card.file, where, message, stated, there, fix)


def _counts(words: str, file: Artifact) -> Iterator[tuple[int, int, str]]:
    """Counts that a card states of a file: as stated, as they are, and of what."""
    if file.value is None:
        return
    value = file.value
    if isinstance(value, TopKSae | StoredSae):
        sae = value
        there = {"d_sae": sae.d_sae, "d_model": sae.d_in, "d_in": sae.d_in, "k": sae.k}
        for match in _SETTING.finditer(words):
            yield _number(match["value"]), there[match["key"]], match["key"]
    elif isinstance(value, FeatureTable):
        if top := _TOP.search(words):
            yield _number(top["count"]), len(value.rows), "number of features"
    elif file.kind in _NOUNS and not file.troubles:
        nouns = _ROWS | _NOUNS[file.kind]
        counts = [_number(match["count"]) for match in _COUNT.finditer(words) if match["noun"].lower() in nouns]
        # Of several counts only one need be that of the rows ("15 of 40 prompts").
        if counts:
            yield next((count for count in counts if count == len(value)), counts[0]), len(value), "number of rows"


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)


def _feature_coefficients(card: Card, artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """A feature table of a model and layer for which the card gives results, but only at other coefficients."""
    stated: list[tuple[str, int, float, int]] = []
    for row in (row for table in card.tables for row in table.rows):
        cell, size = _CELL.search(" ".join(row.cells)), _SIZE_NAME.search(row.cells[0] if row.cells else "")
        if cell and size:
            stated.append((size[0], int(cell["layer"]), float(cell["coef"]), row.line))
    for table in inventory.of("features"):
        features: FeatureTable = table.value
        same = [
            (coefficient, line)
            for size, layer, coefficient, line in stated
            if layer == features.layer and re.search(rf"(?<![0-9.]){re.escape(size)}(?![0-9A-Za-z])", features.model)
        ]
        if same and features.coefficient not in [coefficient for coefficient, _ in same]:
            coefficient, line = same[0]
            message = (
                f"line {line} of {artifact.path} gives results of layer {features.layer} at c={coefficient:g}, but the "
                f"features were measured at c={features.coefficient:g}"
            )
            fix = "measure the features at the coefficient that the card reports, or state theirs beside every claim"
            yield Finding(
                "feature-coefficient", "warning", table.file, "coef", message, coefficient, features.coefficient, fix
            )
