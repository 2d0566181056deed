"""What a text may call the models of a study.

Invariant: a name means at most one model, and how it was understood can be shown: nothing is guessed where two models
fit, or where a text speaks of a model that the study does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from steer_eval.inventory import Inventory
from steer_eval.rules.vector_files import vectors_by_model

_SIZE = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)?[BM](?![A-Za-z0-9])")
# A size in prose, with the word that it is the end of: `2B`, `Qwen3.5-2B`. Amounts of other things are none.
_SIZE_NAME = re.compile(
    r"(?<![\w./-])(?P<family>[A-Za-z][\w.]{0,31}(?:-[A-Za-z][\w.]{0,31}){0,3}-)?(?P<size>[0-9]{1,4}(?:\.[0-9]{1,3})?[BM])"
    r"(?!\w)(?!\s(?:tokens?|words?|samples?|texts?|rows?|param\w*|bytes)\b)"
)


@dataclass(frozen=True)
class ModelMention:
    """A model that a text mentions, and where."""

    start: int
    end: int
    model: str


@dataclass(frozen=True)
class ModelNames:
    """Models by what a text may call them.

    Args:
        base_models: Hub id by name of the model in file names.
        unnamed: Names in file names of models whose Hub id no file gives.
    """

    base_models: Mapping[str, str]
    unnamed: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """The names of all models in file names."""
        return (*self.base_models, *self.unnamed)

    def resolve(self, text: str) -> str | None:
        """The model that a name means.

        That is its name in files or the last part of it, its Hub id or the last part of it, or its size.

        Args:
            text: The name, perhaps with Markdown around it.

        Returns:
            The model's name in files; None if no model or several fit.
        """
        wanted = text.strip(" *`_:").casefold()
        exact = [name for name in self.known if wanted == name.casefold()]
        fitting = exact or [name for name in self.known if wanted in self._names(name)]
        return fitting[0] if len(fitting) == 1 else None

    def mentioned(self, text: str) -> list[str]:
        """Models that a text mentions by name in files, by Hub id or by size, in order of their first mention."""
        return list(dict.fromkeys(mention.model for mention in self.mentions(text)))

    def mentions(self, text: str) -> list[ModelMention]:
        """The places at which a text mentions models, in order; one name inside another counts once."""
        found = [
            ModelMention(match.start(), match.end(), name) for name in self.known for match in self._named(name, text)
        ]
        found += self._sizes(text)
        found.sort(key=lambda mention: (mention.start, -mention.end))
        kept: list[ModelMention] = []
        for mention in found:
            if not kept or mention.start >= kept[-1].end:
                kept.append(mention)
        return kept

    def strangers(self, text: str) -> list[str]:
        """Sizes and names with a size in a text that are those of no model of the study."""
        return [match[0] for match in _SIZE_NAME.finditer(text) if not self._of_size(match)]

    def how(self, name: str) -> str:
        """How a model's name is understood, for a reader."""
        return f"{name} is {self.base_models.get(name, 'not known')}"

    def _named(self, name: str, text: str) -> Iterator[re.Match[str]]:
        """Where a text has a model's name in files or its Hub id."""
        return self._patterns[name].finditer(text)

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        found = {}
        for name in self.known:
            base = self.base_models.get(name, "")
            spellings = {name, base, base.rsplit("/", 1)[-1]} - {""}
            words = "|".join(re.escape(each) for each in sorted(spellings, key=len, reverse=True))
            found[name] = re.compile(rf"(?<![\w.-])(?:{words})(?!\w)", re.IGNORECASE)
        return found

    def _sizes(self, text: str) -> Iterator[ModelMention]:
        """Places of sizes that are one model's."""
        for match in _SIZE_NAME.finditer(text):
            models = self._of_size(match)
            if len(models) == 1:
                yield ModelMention(match.start(), match.end(), models[0])

    def _of_size(self, match: re.Match[str]) -> list[str]:
        """Models of the size, and of the family if the text names one, that a match holds."""
        family = (match["family"] or "").rstrip("-").casefold()
        return [
            name
            for name, base in self.base_models.items()
            if match["size"] in _SIZE.findall(base) and family in base.rsplit("/", 1)[-1].casefold()
        ]

    def _names(self, name: str) -> set[str]:
        base = self.base_models.get(name, "")
        spellings = {name, name.rsplit("_", 1)[-1], base, base.rsplit("/", 1)[-1], *_SIZE.findall(base)}
        return {each.casefold() for each in spellings} - {""}


def model_names(inventory: Inventory) -> ModelNames:
    """Names of the models of some repos, as the vectors state them; sweeps may be of others.

    Args:
        inventory: What the repos hold.
    """
    found: dict[str, str] = {}
    unnamed: dict[str, None] = {}
    for name, vectors in vectors_by_model(inventory).items():
        bases = {vector.value.provenance.get("model", "") for vector in vectors.values()}
        if len(bases) == 1 and (base := bases.pop()):
            found[name] = base
        else:
            unnamed[name] = None
    for artifact in inventory.of("sweep"):
        name = artifact.name.removeprefix("sweep_").removesuffix(".jsonl")
        if name not in found:
            unnamed[name] = None
    return ModelNames(found, tuple(unnamed))
