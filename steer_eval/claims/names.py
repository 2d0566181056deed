"""What a text may call the models of a study.

Invariant: a name means at most one model, and how it was understood can be shown: nothing is guessed where two models
fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from steer_eval.inventory import Inventory
from steer_eval.rules.vector_files import vectors_by_model

_SIZE = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)?[BM](?![A-Za-z0-9])")


@dataclass(frozen=True)
class ModelNames:
    """Models by what a text may call them.

    Args:
        base_models: Hub id by name of the model in file names.
    """

    base_models: Mapping[str, str]

    def resolve(self, text: str) -> str | None:
        """The model that a name means.

        That is its name in files or the last part of it, its Hub id or the last part of it, or its size.

        Args:
            text: The name, perhaps with Markdown around it.

        Returns:
            The model's name in files; None if no model or several fit.
        """
        wanted = text.strip(" *`_:")
        fitting = [name for name in self.base_models if wanted in self._names(name)]
        return fitting[0] if len(fitting) == 1 else None

    def mentioned(self, text: str) -> list[str]:
        """Models that a text mentions by Hub id or by size, in order of their first mention."""
        found: dict[str, int] = {}
        for name, base in self.base_models.items():
            spellings = [re.escape(base), re.escape(base.rsplit("/", 1)[-1]), *map(re.escape, _SIZE.findall(base))]
            match = re.search(rf"(?<![\w.]){'|'.join(f'(?:{each})' for each in spellings)}(?![\w])", text)
            if match:
                found[name] = match.start()
        return sorted(found, key=lambda name: found[name])

    def how(self, name: str) -> str:
        """How a model's name is understood, for a reader."""
        return f"{name} is {self.base_models.get(name, 'not known')}"

    def _names(self, name: str) -> set[str]:
        base = self.base_models[name]
        return {name, name.rsplit("_", 1)[-1], base, base.rsplit("/", 1)[-1], *_SIZE.findall(base)}


def model_names(inventory: Inventory) -> ModelNames:
    """Names of the models of some repos, as the vectors state them.

    Args:
        inventory: What the repos hold.
    """
    found: dict[str, str] = {}
    for name, vectors in vectors_by_model(inventory).items():
        bases = {vector.value.provenance.get("model", "") for vector in vectors.values()}
        if len(bases) == 1 and (base := bases.pop()):
            found[name] = base
    return ModelNames(found)
