"""Text that SAEs and maps are fitted on: a Hub dataset, local files, or a sample that comes with a package.

Invariant: a source yields the same documents in the same order every time, and its digest changes with what they are
read from: a Hub dataset is pinned by its commit, files by their SHA-256, the sample by that of its prose, which depends
on the code below and its parser; a test holds them to it. Documents are streamed.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from steer_eval.digest import sha256_file, sha256_value
from steer_eval.errors import FormatError, SteerEvalError, first_line
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import MAX_LINE_BYTES, parse
from steer_eval.transfer import neutral

if TYPE_CHECKING:
    from mwparserfromhell.nodes import Node
    from mwparserfromhell.wikicode import Wikicode

WIKIPEDIA = "wikipedia-sample"
_PACKAGE, _PARSER = "gensim", "mwparserfromhell"
_FILE = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
PROSE_SHA256 = "1e60e43a96a74f841349bd912f75d0597153d0bf096dc7b6ff82f4dd550349b0"
"""SHA-256 over the sample's articles as they come out, with NUL between them."""
_ROWS = "a .txt file is UTF-8 text, a .jsonl file has one object per line"
_DROPPED_TAGS = frozenset({"ref", "table", "gallery", "math", "timeline"})
_DROPPED_LINKS = ("file:", "image:", "category:")
_POSSESSIVE = re.compile(r"(?<=\w)'''(?=s\b)")
_EMPHASIS = re.compile(r"'{2,}")


@dataclass(frozen=True)
class HubText:
    """A column of a Hub dataset, streamed.

    Args:
        id: Hub id of the dataset.
        revision: Commit, in full, which pins it.
        config: Configuration, if it has several.
        split: Split.
        column: Column with the text.
    """

    id: str
    revision: str
    config: str | None = None
    split: str = "train"
    column: str = "text"


@dataclass(frozen=True)
class FileText:
    """Files of the dataset repo: a `.txt` file is one document, a `.jsonl` file has one per row.

    Args:
        files: Paths inside the repo.
        column: Field of a row with the text.
    """

    files: tuple[str, ...]
    column: str = "text"


@dataclass(frozen=True)
class OfflineText:
    """A sample that a PyPI package carries.

    Args:
        name: Which one: `wikipedia-sample`, 106 articles of the English Wikipedia whose titles begin with A (CC BY-SA
            3.0 and GFDL), from the test data of gensim; or `neutral-sentences`, 60 plain statements of our own.
    """

    name: str


TextSource = HubText | FileText | OfflineText


def documents(source: TextSource, folder: Path) -> Iterator[str]:
    """The documents of a source that are not empty.

    Args:
        source: The source.
        folder: The dataset repo, for files.

    Raises:
        SteerEvalError: The source can't be read.
    """
    match source:
        case HubText():
            texts = _of_hub(source)
        case FileText():
            texts = _of_files(source, folder)
        case OfflineText(name=neutral.NAME):
            texts = neutral.sentences()
        case OfflineText():
            texts = _of_wikipedia(_wikipedia_file())
    return (text for text in texts if text.strip())


def source_digest(source: TextSource, folder: Path) -> str:
    """SHA-256 over what pins a source.

    Raises:
        FormatError: A file of it is absent.
    """
    match source:
        case HubText():
            pin: object = [source.id, source.revision, source.config, source.split, source.column]
        case FileText():
            pin = [[sha256_file(_file(folder, file)) for file in source.files], source.column]
        case OfflineText(name=neutral.NAME):
            pin = [source.name, sha256_file(neutral.FILE)]
        case OfflineText():
            pin = [source.name, _SHA256, PROSE_SHA256]
    return sha256_value({"kind": type(source).__name__, "pin": pin})


def _of_hub(source: HubText) -> Iterator[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(source.id, source.config, split=source.split, revision=source.revision, streaming=True)
        for row in rows:
            yield _text_of(row, source.column, source.id)
    except (OSError, ValueError) as error:
        raise SteerEvalError(
            f"the dataset {source.id} can't be streamed: {first_line(error)}",
            "check its name, configuration, split and revision, the network, and `hf auth whoami`",
        ) from error


def _file(folder: Path, file: str) -> Path:
    path = inside(folder, file)
    if not path.is_file():
        raise FormatError(file, "", "the file is absent", fix="mend text.files in study.yaml")
    return path


def _of_files(source: FileText, folder: Path) -> Iterator[str]:
    for file in source.files:
        path = _file(folder, file)
        try:
            if path.suffix != ".jsonl":
                yield path.read_text(encoding="utf-8")
            else:
                for row in _rows(path, file):
                    yield _text_of(row, source.column, file)
        except (OSError, ValueError) as error:
            raise FormatError(file, "", f"the file can't be read: {first_line(error)}", fix=_ROWS) from error


def _rows(path: Path, file: str) -> Iterator[dict[str, object]]:
    """Rows of a file, one at a time. It may be a stranger's: `datasets` would end the process over a line of `null`."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), ""), start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            if len(line) == MAX_LINE_BYTES:
                raise FormatError(file, where, f"the line has {MAX_LINE_BYTES} characters or more", fix=_ROWS)
            row = parse(line, file, where)
            if not isinstance(row, dict):
                raise FormatError(file, where, "the row is no object", fix=_ROWS)
            yield row


def _text_of(row: dict[str, object], column: str, name: str) -> str:
    text = row.get(column)
    if not isinstance(text, str):
        raise FormatError(
            name, column, "a row has no text there", expected="a string", observed=text, fix="name the column with text"
        )
    return text


def _wikipedia_file() -> Path:
    install = "install it with `pip install 'steer-eval[sae]'`"
    try:
        files = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise SteerEvalError(
            f"{WIKIPEDIA} comes with the package {_PACKAGE}, which is not installed", install
        ) from None
    if find_spec(_PARSER) is None:
        raise SteerEvalError(f"{WIKIPEDIA} is read with the package {_PARSER}, which is not installed", install)
    path = Path(str(files.locate_file(_FILE)))
    if not path.is_file() or sha256_file(path) != _SHA256:
        raise SteerEvalError(f"the installed {_PACKAGE} has another {Path(_FILE).name}, or none", install)
    return path


def _of_wikipedia(path: Path) -> Iterator[str]:
    """Articles of a dump, redirects and talk left out, as plain text."""
    from xml.etree import ElementTree

    with bz2.open(path) as file:
        # The file is the one with the pinned digest, so its XML is known.
        for _, element in ElementTree.iterparse(file):  # noqa: S314
            space, _, tag = element.tag.rpartition("}")
            if tag != "page":
                continue
            prefix = f"{space}}}"
            markup = element.findtext(f"{prefix}revision/{prefix}text") or ""
            if element.findtext(f"{prefix}ns") == "0" and not markup.lower().startswith("#redirect"):
                yield plain_text(markup)
            element.clear()


def plain_text(markup: str) -> str:
    """The prose of an article in wiki markup: no templates, tables, notes or pictures."""
    import mwparserfromhell

    # On Wikipedia emphasis ends with its line. The parser takes an open one for plain text with all that is around it,
    # and one cell with an unclosed bold would leave a table in the prose as it is written.
    code = mwparserfromhell.parse(markup, skip_style_tags=True)
    _prune(code)
    lines = (line.strip() for line in code.strip_code(normalize=True, collapse=True).splitlines())
    return "\n".join(line for line in lines if line)


def _prune(code: Wikicode) -> None:
    """Take out of parsed markup, at all depths, what is no prose; its own `remove` searches all of it for each node."""
    from mwparserfromhell.nodes import Text

    code.nodes = [node for node in code.nodes if not _is_dropped(node)]
    for node in code.nodes:
        if isinstance(node, Text):
            node.value = _without_emphasis(node.value)
        for inner in node.__children__():
            _prune(inner)


def _without_emphasis(text: str) -> str:
    """A text without the marks of bold and italics; of four marks, or more than five, the others are apostrophes."""

    def kept(marks: re.Match[str]) -> str:
        count = len(marks[0])
        return "'" * (1 if count == 4 else max(0, count - 5))

    return _EMPHASIS.sub(kept, _POSSESSIVE.sub("'", text))


def _is_dropped(node: Node) -> bool:
    from mwparserfromhell.nodes import Tag, Wikilink

    match node:
        case Tag():
            return str(node.tag).lower() in _DROPPED_TAGS
        case Wikilink():
            return str(node.title).strip().lower().startswith(_DROPPED_LINKS)
        case _:
            return False
