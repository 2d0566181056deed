"""Rules on files as such: what a reader refused, and what no repo should lack.

Invariant: every trouble that the inventory kept is one finding, under a rule that says what sort of trouble it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.findings import Finding
from steer_eval.inventory import TABLES, Artifact, Inventory

_VECTORS = frozenset({"vector", "vector_pt"})
_TEXTS = frozenset({"perplexity_corpus", "jsonl"})


def file_findings(inventory: Inventory) -> list[Finding]:
    """What readers had to say.

    Args:
        inventory: What the repos hold.
    """
    return [finding for artifact in inventory.artifacts for finding in _troubles(artifact)]


def _troubles(artifact: Artifact) -> Iterator[Finding]:
    for error in artifact.troubles:
        yield _finding(artifact, error)


def _finding(artifact: Artifact, error: FormatError) -> Finding:
    if isinstance(error, NotFiniteError):
        found = Finding.from_error("not-finite", error)
    elif artifact.kind in _VECTORS:
        found = Finding.from_error("vector", error)
    elif artifact.kind in TABLES or artifact.kind in _TEXTS:
        found = Finding.from_error("table", error)
    else:
        found = Finding.from_error("file-refused", error)
    return replace(found, file=found.file or artifact.file)


def absent_cards(inventory: Inventory) -> Iterator[Finding]:
    """Repos without a card.

    Args:
        inventory: What the repos hold.
    """
    present = {artifact.file for artifact in inventory.artifacts}
    for root in inventory.roots:
        file = f"{root.prefix}README.md"
        if file not in present:
            message = f"the {root.role} repo has no card: nobody can tell what its files are"
            yield Finding("card-absent", "warning", file, "", message, fix="write one, with a table of the files")
