"""The study: what is done, on which models and texts, and what is claimed.

Invariant: a `Study` is a frozen value that satisfies `schemas/study.schema.json` and whose parts agree with each other
(claims name models and layers that the study has). Reading one touches nothing but `study.yaml`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steer_eval.chat_templates import syntax_error
from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.printed import Printed
from steer_eval.comparison.plan import ComparisonPlan, comparison_plan, has_other_orders
from steer_eval.errors import FormatError
from steer_eval.formats import schema, strict_yaml
from steer_eval.formats.text import read_text
from steer_eval.model_reference import ModelReference, model_reference
from steer_eval.sae.plan import SaePlan, sae_plan
from steer_eval.transfer.plan import TransferPlan, transfer_plan

FILE = "study.yaml"
MAX_BYTES = 4 * 2**20


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
    """Which cells are measured, on which prompts, and what counts as collapse.

    Args:
        prompts: File of the evaluation prompts.
        layers: Layers that are steered.
        coefficients: Coefficients at each layer.
        zero: Whether coefficient 0 is measured through the same hook.
        random_seed: Seed of the random directions; None without that control.
        random_text_coefficients: Coefficients at which random directions have text.
        anchor: System prompt of the anchor; None without that control.
        max_new_tokens: Longest text, in tokens.
        collapse_ratio: Perplexity ratio above which a cell counts as collapsed.
        n_prompts: How many of the prompts, from the first on, have text; None for all.
    """

    prompts: str
    layers: tuple[int, ...]
    coefficients: tuple[float, ...]
    zero: bool = True
    random_seed: int | None = None
    random_text_coefficients: tuple[float, ...] = ()
    anchor: str | None = None
    max_new_tokens: int = 80
    collapse_ratio: float = 3.0
    n_prompts: int | None = None


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
    saes: tuple[SaePlan, ...] = ()
    transfers: tuple[TransferPlan, ...] = ()
    comparisons: tuple[ComparisonPlan, ...] = ()
    text: str = field(default="", repr=False, compare=False)

    @property
    def chosen_names(self) -> dict[str, str]:
        """Kinds of the data files whose names are the study's to choose, by path."""
        return {
            self.extraction.pairs: "contrast_pairs",
            self.sweep.prompts: "eval_prompts",
            self.perplexity.corpus: "perplexity_corpus",
        }

    def vector_layers(self, model: str) -> tuple[int, ...]:
        """Layers that a model has vectors of."""
        return self.models[model].layers or self.extraction.layers

    def layers(self, model: str) -> tuple[int, ...]:
        """Layers that are steered in a model's sweep."""
        return self.models[model].layers or self.sweep.layers

    def coefficients(self, model: str) -> tuple[float, ...]:
        """Coefficients of a model's sweep."""
        return self.models[model].coefficients or self.sweep.coefficients

    def transferred_layers(self, model: str) -> frozenset[int]:
        """Layers of a model that its transfers lead from or to."""
        ends = [end for plan in self.transfers for end in (plan.source, plan.target)]
        return frozenset(end.layer for end in ends if end.model == model)

    def comparison(self, model: str) -> ComparisonPlan | None:
        """The comparison of methods on a model, if there is one."""
        return next((plan for plan in self.comparisons if plan.model == model), None)


def load_study(path: Path, *, name: str | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: The `study.yaml`.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, is no YAML, breaks the schema or contradicts itself.
    """
    name = name or str(path)
    if not os.path.lexists(path):
        raise FormatError(name, "", "the file is absent", fix="a study's model repo has a study.yaml at its root")
    text = read_text(path, name, limit=MAX_BYTES)
    document = strict_yaml.parse(text, name)
    if document is None:
        raise FormatError(name, "", "the file is empty", fix="docs/study-format.md shows what a study says")
    schema.check(document, "study", file=name)
    study = _from_document(document, text)
    _check_agreement(study, name)
    return study


def _from_document(document: dict[str, Any], text: str) -> Study:
    extraction = document["extraction"]
    sweep = document["sweep"]
    controls = sweep.get("controls", {})
    random, anchor = controls.get("random"), controls.get("anchor")
    layers = tuple(extraction["layers"])
    return Study(
        name=document["name"],
        title=document["title"],
        data=document["data"],
        models={name: model_reference(name, value) for name, value in document["models"].items()},
        extraction=Extraction(**{**extraction, "layers": layers}),
        perplexity=PerplexityProtocol(**document["perplexity"]),
        sweep=SweepPlan(
            prompts=sweep["prompts"],
            layers=tuple(sweep.get("layers", layers)),
            coefficients=tuple(float(c) for c in sweep["coefficients"]),
            zero=controls.get("zero", True),
            random_seed=random["seed"] if random else None,
            random_text_coefficients=tuple(float(c) for c in random["text_coefficients"]) if random else (),
            anchor=anchor["system_prompt"].strip() if anchor else None,
            max_new_tokens=sweep.get("max_new_tokens", SweepPlan.max_new_tokens),
            collapse_ratio=float(sweep.get("collapse_ratio", SweepPlan.collapse_ratio)),
            n_prompts=sweep.get("n_prompts"),
        ),
        tolerances={measure: Tolerance(**value) for measure, value in document["tolerances"].items()},
        claims=tuple(_claim(value) for value in document["claims"]),
        saes=tuple(sae_plan(value) for value in document.get("saes", ())),
        transfers=tuple(transfer_plan(value) for value in document.get("transfers", ())),
        comparisons=tuple(comparison_plan(value) for value in document.get("comparisons", ())),
        text=text,
        **{
            key: document[key].strip()
            for key in ("description", "persona", "license", "language", "repo")
            if key in document
        },
    )


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
    def refuse(where: str, message: str, fix: str, expected: object, observed: object) -> None:
        raise FormatError(file, where, message, expected=expected, observed=observed, fix=fix)

    for name, reference in study.models.items():
        complaint = None if reference.chat_template is None else syntax_error(reference.chat_template)
        if complaint is not None:
            where, why = f"models.{name}.chat_template", f"the template can't be read: {complaint}"
            raise FormatError(file, where, why, fix="mend it, or leave it out where the tokenizer has one")
    layers = list(study.extraction.layers)
    strays = sorted(set(study.sweep.layers) - set(layers))
    if strays:
        message = f"a swept layer has no vector: {_listed(strays)}"
        refuse("sweep.layers", message, "add it to extraction.layers, or take it out here", layers, strays)
    _check_saes(study, refuse)
    _check_transfers(study, refuse)
    _check_comparisons(study, refuse)
    coefficients = list(study.sweep.coefficients)
    strays_c = sorted(set(study.sweep.random_text_coefficients) - set(coefficients))
    if strays_c:
        message = f"a coefficient is not swept: {_listed(strays_c)}"
        fix = "add it to sweep.coefficients, or take it out here"
        refuse("sweep.controls.random.text_coefficients", message, fix, coefficients, strays_c)
    for name, tolerance in study.tolerances.items():
        reproduced, drifted = tolerance.reproduced, tolerance.drifted
        if drifted < reproduced:
            message, fix = f"{drifted:g} lies below `reproduced`, {reproduced:g}", "take at least that"
            refuse(f"tolerances.{name}.drifted", message, fix, reproduced, drifted)
    seen: set[str] = set()
    for index, claim in enumerate(study.claims):
        if claim.id in seen:
            message = f"the id {claim.id!r} stands twice"
            refuse(f"claims[{index}].id", message, "give each claim an id of its own", "one claim per id", claim.id)
        seen.add(claim.id)
        if claim.select.model is not None:
            _check_model(study, f"claims[{index}].select.model", claim.select.model, refuse)


_Refuse = Callable[[str, str, str, object, object], None]
"""Raises an error: where, what is wrong, how to mend it, what would be right and what is there."""


def _listed(values: Iterable[object]) -> str:
    """Values in words, for messages."""
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values) or "none"


def _check_one_of(where: str, message: str, allowed: Sequence[object], observed: object, refuse: _Refuse) -> None:
    """Refuse what is not among the values that a study has."""
    if observed not in allowed:
        fix = f"take one of {_listed(allowed)}" if allowed else "plan one first, or leave it out"
        refuse(where, f"{message}: {_listed([observed])}", fix, list(allowed), observed)


def _check_model(study: Study, where: str, model: str, refuse: _Refuse) -> None:
    _check_one_of(where, "the study has no such model", sorted(study.models), model, refuse)


def _check_saes(study: Study, refuse: _Refuse) -> None:
    """Refuse SAEs of what the study does not have."""
    for number, sae in enumerate(study.saes):
        place = f"saes.{number}"
        _check_model(study, f"{place}.model", sae.model, refuse)
        if sae.k > sae.features:
            message, fix = f"k {sae.k} is larger than the number of features, {sae.features}", "take a smaller k"
            refuse(f"{place}.k", message, fix, f"<= {sae.features}", sae.k)
        if sae.table:
            _check_one_of(
                f"{place}.table",
                "the sweep has no cell at the SAE's layer, of which a table could be",
                study.layers(sae.model),
                sae.layer,
                refuse,
            )
            _check_one_of(
                f"{place}.table.coefficient",
                "the sweep has no such coefficient",
                study.coefficients(sae.model),
                sae.table.coefficient,
                refuse,
            )
    if len({(sae.model, sae.layer) for sae in study.saes}) < len(study.saes):
        refuse("saes", "two SAEs of one model and layer", "take one of them out, or train it at another layer", 1, 2)


def _check_transfers(study: Study, refuse: _Refuse) -> None:
    """Refuse transfers from or to where the study has no vector."""
    for number, transfer in enumerate(study.transfers):
        place = f"transfers.{number}"
        for key, end in (("source", transfer.source), ("target", transfer.target)):
            _check_model(study, f"{place}.{key}.model", end.model, refuse)
            layers = study.vector_layers(end.model)
            _check_one_of(f"{place}.{key}.layer", f"{end.model} has no vector there", layers, end.layer, refuse)
        if transfer.source == transfer.target:
            fix = "name another model or layer as its target"
            refuse(place, f"a transfer to where it is from: {transfer.name}", fix, "two places", transfer.name)
    if len({transfer.name for transfer in study.transfers}) < len(study.transfers):
        refuse("transfers", "two transfers from one place to the same other", "take one of them out", 1, 2)


def _check_comparisons(study: Study, refuse: _Refuse) -> None:
    """Refuse comparisons of what the study does not plan."""
    for number, plan in enumerate(study.comparisons):
        place = f"comparisons.{number}"
        _check_model(study, f"{place}.model", plan.model, refuse)
        layers = list(study.vector_layers(plan.model))
        _check_one_of(f"{place}.layer", "the model has no vector there", layers, plan.layer, refuse)
        strays = sorted(set(plan.stack) - set(layers))
        if strays:
            message = f"the model has no vector at a stacked layer: {_listed(strays)}"
            refuse(f"{place}.stack", message, f"stack some of {_listed(layers)}", layers, strays)
        coefficients, message = study.coefficients(plan.model), "the sweep has no such coefficient"
        _check_one_of(f"{place}.coefficient", message, coefficients, plan.coefficient, refuse)
        if plan.features is not None:
            _check_features(study, plan, place, refuse)
        if plan.transfer is not None:
            carried = [transfer.name for transfer in study.transfers if transfer.target.model == plan.model]
            message = "the study plans no such transfer to the model"
            _check_one_of(f"{place}.transfer", message, carried, plan.transfer, refuse)
        most = study.sweep.n_prompts
        if plan.prompts is not None and most is not None and plan.prompts > most:
            message = f"more prompts than the sweep has text on: {plan.prompts}"
            refuse(f"{place}.prompts", message, f"take at most {most}", f"<= {most}", plan.prompts)
    if len({plan.model for plan in study.comparisons}) < len(study.comparisons):
        refuse("comparisons", "two comparisons on one model", "take one of them out", "one", "two")
    anchor = study.sweep.anchor
    if study.comparisons and anchor is not None and not has_other_orders(anchor):
        why = "a comparison's control is the anchor with its words in another order, and there is none"
        fix = "write an anchor of at least two different words"
        refuse("sweep.controls.anchor.system_prompt", why, fix, "at least two different words", anchor)


def _check_features(study: Study, plan: ComparisonPlan, place: str, refuse: _Refuse) -> None:
    """Refuse to clamp features that no table lists."""
    tables = {sae.layer: sae.table for sae in study.saes if sae.model == plan.model and sae.table is not None}
    table = tables.get(plan.layer)
    if table is None:
        message = f"saes plans no feature table at that layer, {plan.layer}"
        fix = "plan a `table` of an SAE there, or leave features out"
        refuse(f"{place}.features", message, fix, sorted(tables), plan.layer)
    elif plan.features is not None and plan.features > table.top:
        message = f"more features than the table has: {plan.features}"
        refuse(f"{place}.features", message, f"take at most {table.top}", f"<= {table.top}", plan.features)
