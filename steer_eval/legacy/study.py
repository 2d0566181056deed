"""A study without `study.yaml`, gathered from its repos.

Invariant: a `LegacyStudy` is what its files say and nothing else: it does not depend on where the repos stand, on what
the present cards claim, or on what was rendered into the repos before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

from steer_eval.cards import CONFIG, DATASET_CARD, MODEL_CARD, heatmap_file
from steer_eval.claims.facts import Facts, facts_of
from steer_eval.claims.names import ModelNames, model_names
from steer_eval.findings import Finding
from steer_eval.formats.card import code_spans, read_tables
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.inventory import Artifact, Inventory
from steer_eval.legacy.best import Judgement, judgements
from steer_eval.legacy.identity import Asked, Identity, identify
from steer_eval.legacy.tables import Table, tables
from steer_eval.repository import Repositories, Repository
from steer_eval.rules.card_files import expanded
from steer_eval.rules.sweep_files import SweepFile, collapse_ratio_of, sweep_files
from steer_eval.rules.vector_files import vectors_by_model
from steer_eval.validate import Validation

_CARD_FILES = frozenset({MODEL_CARD, DATASET_CARD, CONFIG, MANIFEST})
_MANIFEST_RULES = frozenset({"file-unlisted", "file-absent"})
"""Rules on a manifest, which is written anew together with the cards."""
_PATH_COLUMNS = ("path", "file", "files", "name", "artifact", "artifacts")


@dataclass(frozen=True, eq=False)
class LegacyStudy:
    """A study without `study.yaml`.

    Args:
        identity: What it is called.
        inventory: What its repos hold.
        found: All that a check of the repos found.
        card: Text of the present model card; empty without one.
    """

    identity: Identity
    inventory: Inventory
    found: tuple[Finding, ...]
    card: str = ""

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in the files, with paths inside their repos; nothing about the present cards."""
        return tuple(_of_files(self.inventory, self.found))

    @cached_property
    def names(self) -> ModelNames:
        """What the models are called."""
        return model_names(self.inventory)

    @cached_property
    def facts(self) -> Facts:
        """Every number of the files."""
        return facts_of(self.inventory, self.names)

    @cached_property
    def sweeps(self) -> dict[str, SweepFile]:
        """The sweeps, by model."""
        return sweep_files(self.inventory)

    @cached_property
    def vectors(self) -> dict[str, dict[int, Artifact]]:
        """The vectors, by model and layer."""
        found = vectors_by_model(self.inventory)
        return {model: dict(sorted(layers.items())) for model, layers in found.items()}

    @cached_property
    def models(self) -> list[str]:
        """Names of the models in file names, narrow models first."""

        def width(model: str) -> float:
            own = self.vectors.get(model)
            return max((each.value.values.shape[0] for each in own.values()), default=0) if own else math.inf

        return sorted({*self.sweeps, *self.vectors}, key=lambda model: (width(model), model))

    @cached_property
    def judgements(self) -> list[Judgement]:
        """What each judge says of each model."""
        return judgements(self.facts, self.models)

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of the dataset repo."""
        return tables(self.inventory, self.sweeps)

    @property
    def collapse_ratio(self) -> float:
        """The ratio above which a cell counts as collapsed."""
        return collapse_ratio_of(self.sweeps)

    def base_model(self, model: str) -> str:
        """Hub id of a model; its name in file names where no vector says the id."""
        return self.names.base_models.get(model, model)

    def files(self, role: str) -> Iterator[Artifact]:
        """Files of one of the repos, without what is rendered into it."""
        rendered = {heatmap_file(model) for model in self.models}
        for root in self.inventory.roots:
            for artifact in self.inventory.artifacts:
                own = root.role == role and artifact.file == f"{root.prefix}{artifact.path}"
                if own and artifact.path not in _CARD_FILES | rendered:
                    yield artifact

    @cached_property
    def absent(self) -> list[str]:
        """Paths that the tables of the present model card name and neither repo has."""
        present = [artifact.path for artifact in self.inventory.artifacts]
        found: dict[str, None] = {}
        for table in read_tables(self.card):
            column = table.column(*_PATH_COLUMNS)
            cells = [row.cells[column] for row in table.rows if column is not None and column < len(row.cells)]
            for path in (path for cell in cells for span in code_spans(cell) for path in expanded(span)):
                # A pattern that fits nothing names no file.
                if not any(fnmatchcase(each, path) for each in present) and "/" in path and "*" not in path:
                    found[path] = None
        return sorted(found)


def gather(repositories: Repositories, validation: Validation, asked: Asked) -> LegacyStudy:
    """Gather a study from its repos.

    Args:
        repositories: The model repo and the dataset repo.
        validation: What a check of both found.
        asked: What the user says.

    Raises:
        SteerEvalError: Nothing says what the repos are called.
    """
    inventory = validation.inventory
    texts = {artifact.file: str(artifact.value) for artifact in inventory.of("card")}
    cards = {root.role: texts.get(f"{root.prefix}{MODEL_CARD}", "") for root in inventory.roots}
    model, data = repositories.model, repositories.data or repositories.model
    identity = identify(
        asked,
        cards.get("model", ""),
        cards.get("dataset", ""),
        folder=_name(model),
        data_folder=_name(data),
        ids=(_hub_id(model), _hub_id(data)),
    )
    return LegacyStudy(identity, inventory, validation.findings, cards.get("model", ""))


def _name(repository: Repository) -> str:
    return repository.title


def _hub_id(repository: Repository) -> str | None:
    return None if repository.address is None else repository.address.id


def _of_files(inventory: Inventory, findings: tuple[Finding, ...]) -> Iterator[Finding]:
    """Findings that are not about cards or what is written with them, with paths inside their repos."""
    prefixes = [root.prefix for root in inventory.roots]
    for finding in findings:
        prefix = max((each for each in prefixes if finding.file.startswith(each)), key=len, default="")
        path = finding.file.removeprefix(prefix)
        about_card = path in _CARD_FILES or MODEL_CARD in finding.message
        if path and not about_card and finding.rule not in _MANIFEST_RULES:
            yield replace(finding, file=path)
