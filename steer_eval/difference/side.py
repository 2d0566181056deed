"""Reading one side of a comparison.

Invariant: everything that a comparison needs of a study is read here, once; what can't be read is kept as a trouble and
hides nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.audit import audit_text
from steer_eval.claims.verdict import Verdict, judge
from steer_eval.difference.changes import Place
from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError
from steer_eval.formats import strict_yaml
from steer_eval.formats.containment import inside
from steer_eval.formats.saelens import StoredSae
from steer_eval.formats.strict_json import MAX_FILE_BYTES, scan_json
from steer_eval.formats.text import read_text
from steer_eval.inventory import Artifact, Inventory, Root
from steer_eval.published import published_results
from steer_eval.repository import Repositories, StudyRepositories
from steer_eval.validate import Validation, validate

CARD = "README.md"
_JSON = frozenset({"config", "environment", "sae_config"})
_YAML = frozenset({"study", "yaml"})


@dataclass(frozen=True, eq=False)
class Entry:
    """One file of a side.

    Args:
        artifact: What the inventory says of it.
        sha256: Of its bytes; empty if it can't be read.
        value: Its content; None if it has none that is compared.
        troubles: Why it can't be read, or not wholly.
    """

    artifact: Artifact
    sha256: str
    value: Any
    troubles: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    Args:
        place: What it is.
        entries: Its files by repo (`model` or `dataset`) and path.
        claims: Its claims as the published data judges them, by what they are found by.
    """

    place: Place
    entries: Mapping[tuple[str, str], Entry]
    claims: Mapping[tuple[Any, ...], Verdict]

    def card(self, repo: str) -> str:
        """The text of a repo's card; empty where there is none."""
        entry = self.entries.get((repo, CARD))
        return entry.value if entry is not None and isinstance(entry.value, str) else ""


def read_side(target: Repositories | StudyRepositories) -> Side:
    """Read a study or a repo without one.

    Args:
        target: Its opened repos.
    """
    validation = validate(target, with_cards=False)
    inventory = validation.inventory
    data = target.data
    place = Place(
        target.model.name,
        target.model.revision,
        data.name if data else None,
        data.revision if data else None,
    )
    entries = {(root.role, artifact.path): _entry(root, artifact) for root, artifact in _by_root(inventory)}
    return Side(place, entries, _claims(target, validation))


def _by_root(inventory: Inventory) -> Iterator[tuple[Root, Artifact]]:
    # Of two roots one of which lies in the other, the artifact is the longer prefix's.
    roots = sorted(inventory.roots, key=lambda root: len(root.prefix), reverse=True)
    for artifact in inventory.artifacts:
        for root in roots:
            if artifact.file == root.prefix + artifact.path:
                yield root, artifact
                break


def _entry(root: Root, artifact: Artifact) -> Entry:
    value, troubles = artifact.value, [str(trouble) for trouble in artifact.troubles]
    try:
        path = inside(root.folder, artifact.path, name=artifact.file)
        digest = sha256_file(path)
        if artifact.kind in _JSON:
            value, errors = scan_json(path, name=artifact.file)
            troubles += map(str, errors)
        elif artifact.kind in _YAML:
            value = strict_yaml.parse(read_text(path, artifact.file, limit=MAX_FILE_BYTES), artifact.file)
            if artifact.kind == "study" and isinstance(value, dict):
                # Claims are compared one by one, with their verdicts.
                value = {key: part for key, part in value.items() if key != "claims"}
        elif isinstance(value, StoredSae):
            value = value.read()
    except FormatError as error:
        return Entry(artifact, "", None, (*troubles, str(error)))
    except OSError as error:
        return Entry(artifact, "", None, (*troubles, f"{artifact.file}: {error.strerror}"))
    return Entry(artifact, digest, value, tuple(troubles))


def _claims(target: Repositories | StudyRepositories, validation: Validation) -> dict[tuple[Any, ...], Verdict]:
    """The study's claims by their ids; of a repo without one, those of its card by what they are about."""
    inventory = validation.inventory
    found: dict[tuple[Any, ...], Verdict] = {}
    if isinstance(target, StudyRepositories):
        for verdict in judge(target.study, published_results(target, validation), None):
            found["study", verdict.claim.id] = verdict
        if not target.words:
            return found
    card = next((each for root, each in _by_root(inventory) if root.role == "model" and each.path == CARD), None)
    if card is not None and isinstance(card.value, str):
        times: Counter[tuple[Any, ...]] = Counter()
        for verdict in audit_text(card.value, card.file, inventory, validation.findings).verdicts:
            claim = verdict.claim
            if claim.measure:
                key = ("card", claim.measure, claim.select)
                # One number can be said in several places.
                found[(*key, times[key])] = verdict
                times[key] += 1
    return found
