"""Rules on files as such: what a reader refused, and what no repo should lack.

Invariant: every trouble that the inventory kept is one finding, under a rule that says what sort of trouble it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.findings import Finding
from steer_eval.formats.containment import links_out
from steer_eval.inventory import DOCUMENTS, TABLES, Artifact, Inventory

_VECTORS = frozenset({"vector", "vector_pt"})
_TEXTS = frozenset({"perplexity_corpus", "jsonl"})
_OF_MODELS = frozenset({"vector", "vector_pt", "sae", "sae_pt", "features"})
_OF_DATA = frozenset({*TABLES, *DOCUMENTS, "perplexity_corpus"}) - {"sae_quality", "transfer_diagnostics"}


def file_findings(inventory: Inventory) -> list[Finding]:
    """What readers had to say.

    Args:
        inventory: What the repos hold.
    """
    return [finding for artifact in inventory.artifacts for finding in _troubles(artifact)]


def unread_findings(inventory: Inventory) -> Iterator[Finding]:
    """Files that were left on the Hub, and what is open because of that.

    Args:
        inventory: What the repos hold.
    """
    for artifact in inventory.artifacts:
        if artifact.unread:
            fix = "fetch the whole file with `steer-eval validate --download`"
            yield Finding("values-not-read", "note", artifact.file, "", artifact.unread, fix=fix)


def unusable(inventory: Inventory) -> frozenset[str]:
    """Files that are there and say nothing: refused ones, and links out of their repo. What they hold is open.

    Args:
        inventory: What the repos hold.
    """
    refused = {artifact.file for artifact in inventory.artifacts if artifact.value is None and artifact.troubles}
    links = {f"{root.prefix}{link}" for root in inventory.roots for link in links_out(root.folder)}
    return frozenset(refused | links)


def _troubles(artifact: Artifact) -> Iterator[Finding]:
    not_finite = [error.where for error in artifact.troubles if isinstance(error, NotFiniteError)]
    for error in artifact.troubles:
        # Where a number is none the schema misses one as well; that is one trouble, not two.
        if isinstance(error, NotFiniteError) or not any(where.endswith(f": {error.where}") for where in not_finite):
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
    """Repos without a card, or without anything.

    Args:
        inventory: What the repos hold.
    """
    present = {artifact.file for artifact in inventory.artifacts}
    hidden = unusable(inventory)
    for root in inventory.roots:
        file = f"{root.prefix}README.md"
        if not any(name.startswith(root.prefix) for name in present | hidden):
            message = "there are no files here, so nothing was checked"
            fix = "name the folder that holds the files"
            yield Finding("repo-empty", "error", root.prefix.rstrip("/"), "", message, fix=fix)
        elif file not in present:
            # Of a folder that is checked alone, nobody knows which of the two it is.
            which = f"the {root.role} repo" if len(inventory.roots) > 1 else "the repo"
            message = f"{which} has no card: nobody can tell what its files are"
            fix = "write a README.md with a table of the files"
            yield Finding("card-absent", "warning", file, "", message, fix=fix)


def absent_data(inventory: Inventory) -> Iterator[Finding]:
    """Steering vectors, SAEs or feature tables that were checked without the data that they were measured on.

    A folder that holds tables as well is a dataset repo, or both in one.

    Args:
        inventory: What the repos hold, of a target without a study.
    """
    kinds = {artifact.kind for artifact in inventory.artifacts}
    if len(inventory.roots) == 1 and kinds & _OF_MODELS and not kinds & _OF_DATA:
        message = "no dataset repo was given or found: only the model repo was checked"
        yield Finding(
            "data-absent", "note", inventory.roots[0].prefix.rstrip("/"), "", message, fix="name it with --data"
        )
