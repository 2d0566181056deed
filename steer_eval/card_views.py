"""What cards say beside vectors and sweeps: SAEs, their features, transfers, and the comparison of methods.

Invariant: a view is a pure function of the study and its results, and empty where a study has no such part, so that its
card is then the same as if these parts did not exist. Numbers are as measured; templates only round them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from steer_eval.comparison.cells import ADDITION, ROTATION, UNSTEERED
from steer_eval.comparison.table import Line, Measured, margins_of, table
from steer_eval.formats.sae import SaeOutline
from steer_eval.formats.saelens import folder_name
from steer_eval.results import Results, SweepRow
from steer_eval.sae.belongs import recorded_text
from steer_eval.sae.plan import SaePlan
from steer_eval.sae.recipe import RECIPES
from steer_eval.sae.text import OfflineText
from steer_eval.study import Study
from steer_eval.transfer.plan import TransferPlan

TOP = 10
"""Features of a table that a card shows; all of them stand in the file."""
CONTEXTS_OF = 5
"""Features whose strongest context a card shows."""
_BEFORE, _AFTER = 48, 24
_AT_ONE_LAYER = (ADDITION, ROTATION)
"""Methods that edit one layer by one direction, as cells of the sweep do."""
_LICENCES = {"wikipedia-sample": "English Wikipedia, CC BY-SA 3.0"}
"""Whose words a context quotes, and under which licence, of texts that others wrote and we name."""

_OF_MAPS = {"held_out_r2": "held-out R²", "cosine_to_native": "cosine", "retrieval": "retrieval"}
_OF_STREAMS = {"debiased_cka": "CKA", "svcca": "SVCCA"}
"""What the card calls the tested statistics of a map, and of the two streams."""

_WORDS = {
    "addition": "adds the vector",
    "rotation": "turns towards the vector, norms kept",
    "stack": "adds the vectors of several layers, in all as long as one",
    "features": "holds features of the SAE",
    "anchor": "a system prompt, no edit",
    "anchor+addition": "the system prompt, and adds the vector",
    "patch": "residuals of the prompt after the system prompt",
    "patch-identity": "the prompt's own residuals: changes nothing",
    "carried-ridge": "adds the vector that the ridge map carried",
    "carried-procrustes": "adds the vector that the Procrustes map carried",
}
"""What each method does, in few words; one that is not known here goes by its name."""


@dataclass(frozen=True)
class SaeView:
    """An SAE.

    Args:
        layer: Its layer.
        folder: Where it is.
        features: How many it has; None where it is not there to say so.
        k: How many of them may fire per token; None as before.
        without_sinks: Whether its training left attention sinks out.
        quality: How good it is.
    """

    layer: int
    folder: str
    features: int | None
    k: int | None
    without_sinks: bool
    quality: Mapping[str, Any]


@dataclass(frozen=True)
class FeatureView:
    """A feature table.

    Args:
        layer: Layer of the SAE.
        file: The file.
        table: What it says.
        rows: The first features of it.
        contexts: Where some of them fire most: the feature, and the text around the token, which stands in brackets.
        credit: Whose words these are, and their licence; empty where that is not known.
    """

    layer: int
    file: str
    table: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    contexts: tuple[tuple[int, str], ...]
    credit: str


@dataclass(frozen=True)
class TransferView:
    """A transfer.

    Args:
        plan: What the study says of it.
        document: Its diagnostics.
        measured: What was measured under the planned protocol.
        nulls: Draws of the nulls, and whose they are: the statistics in the words of the card.
    """

    plan: TransferPlan
    document: Mapping[str, Any]
    measured: Mapping[str, Any]
    nulls: tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True)
class MethodView:
    """One method of a comparison beside its control.

    Args:
        name: The method.
        does: What it does.
        where: At which layer and with which coefficient.
        own: What was measured of it.
        control: The same of its control; None where it has none.
    """

    name: str
    does: str
    where: str
    own: Measured
    control: Measured | None


@dataclass(frozen=True)
class ComparisonView:
    """The comparison of methods on a model.

    Args:
        file: The file.
        cells: Rows of the file.
        methods: The methods, in the order of the file.
        judges: Judges that scored any of them.
        prompts: Prompts that each had text on.
        held: Indices of the features that were held; empty without that method.
        stacked: Layers that were steered together; empty without that method.
        after: Whether some rows were measured on the corpus after a prompt.
        drawn: Methods whose control is a direction that the sweep has at the same cell as another draw.
    """

    file: str
    cells: int
    methods: tuple[MethodView, ...]
    judges: tuple[str, ...]
    prompts: int
    held: tuple[int, ...]
    stacked: tuple[int, ...]
    after: bool
    drawn: tuple[str, ...]


def sae_views(study: Study, results: Results, model: str) -> list[SaeView]:
    """The SAEs of a model that were measured, in the order of the study; what they are, they say themselves."""
    found = []
    for plan in study.saes:
        quality = results.saes.get((model, plan.layer)) if plan.model == model else None
        if quality is None:
            continue
        its = results.sae_outlines.get((model, plan.layer))
        features, k = (None, None) if its is None else (its.d_sae, its.k)
        recipe = None if its is None else RECIPES.get(its.provenance.get("recipe", ""))
        without_sinks = recipe is not None and recipe.drop_sinks
        found.append(SaeView(plan.layer, folder_name(model, plan.layer), features, k, without_sinks, quality))
    return found


def feature_views(study: Study, results: Results, model: str) -> list[FeatureView]:
    """The feature tables of a model, in the order of the study."""
    from steer_eval.sae.results import features_file

    found = []
    for plan in study.saes:
        table = results.feature_tables.get((model, plan.layer)) if plan.model == model else None
        if table is not None and "format" in table:
            rows = tuple(table["top_features"][:TOP])
            contexts = tuple(_contexts(rows[:CONTEXTS_OF]))
            credit = _credit(plan, results.sae_outlines.get((model, plan.layer)))
            found.append(FeatureView(plan.layer, features_file(model, plan.layer), table, rows, contexts, credit))
    return found


def _credit(plan: SaePlan, sae: SaeOutline | None) -> str:
    """Whose words an SAE was trained on, as it records; of one that does not, those that the study plans."""
    planned = recorded_text(plan.text)
    text = planned if sae is None else sae.provenance.get("text", planned)
    return next((credit for name, credit in _LICENCES.items() if text == recorded_text(OfflineText(name))), "")


def _contexts(rows: tuple[Mapping[str, Any], ...]) -> Iterator[tuple[int, str]]:
    for row in rows:
        for context in row.get("contexts", ())[:1]:
            before, after = context["before"][-_BEFORE:], context["after"][:_AFTER]
            yield row["feature_id"], f"{before}[{context['token']}]{after}"


def transfer_views(study: Study, results: Results) -> list[TransferView]:
    """The transfers that were diagnosed under the protocol that the study plans."""
    found = []
    for plan in study.transfers:
        document = results.transfers.get(plan.name)
        measured = document["protocols"].get(plan.protocol) if document is not None else None
        if document is not None and measured is not None:
            found.append(TransferView(plan, document, measured, _nulls(measured)))
    return found


def _nulls(measured: Mapping[str, Any]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Draws and the statistics that have so many, fewest first: they bound how small a p-value can be."""
    tests = [(name, each[key]) for each in measured["maps"].values() for key, name in _OF_MAPS.items()]
    tests += [(name, measured[key]) for key, name in _OF_STREAMS.items()]
    by_draws: dict[int, dict[str, None]] = {}
    for name, test in tests:
        by_draws.setdefault(test["draws"], {})[name] = None
    return tuple((draws, tuple(names)) for draws, names in sorted(by_draws.items()))


def comparison_view(study: Study, results: Results, model: str) -> ComparisonView | None:
    """The comparison of methods on a model; None where there is none."""
    compared = results.comparisons.get(model)
    if compared is None or not compared.rows:
        return None
    lines = [
        line for line in table(compared.rows, margins_of(results.judges, compared.rows)) if line.method != UNSTEERED
    ]
    measured = [each for line in lines for each in (line.steered, line.control) if each is not None]
    edits = {line.method: line.steered.row.edits or () for line in lines}
    return ComparisonView(
        compared.file,
        len(compared.rows),
        tuple(
            MethodView(line.method, _WORDS.get(line.method, ""), _place(line.steered.row), line.steered, line.control)
            for line in lines
        ),
        tuple(dict.fromkeys(judge for each in measured for judge in each.margins)),
        max((len(row.generations) for row in compared.rows), default=0),
        tuple(feature for edit in edits.get("features", ()) for feature in edit.get("features", ())),
        tuple(edit["layer"] for edit in edits.get("stack", ())),
        any(row.corpus_after is not None for row in compared.rows),
        tuple(_drawn_again(study, results, lines, model)),
    )


def _place(row: SweepRow) -> str:
    """Where a method acts; methods stand in one table at different layers and coefficients."""
    edits = row.edits or ()
    if len(edits) != 1:
        return "several layers" if edits else "–"
    [edit] = edits
    coefficient = f" c={edit['coefficient']:+g}" if "coefficient" in edit else ""
    return f"L={edit['layer']}{coefficient}"


def _drawn_again(study: Study, results: Results, lines: Iterable[Line], model: str) -> Iterator[str]:
    """Methods that add to one layer, whose control is another draw than the sweep's at the same layer and coefficient.

    The ratios of two draws differ, and a reader who sees both has to know that they are of two directions.
    """
    plan, sweep = study.comparison(model), results.sweeps.get(model)
    if plan is None or sweep is None or plan.seed == study.sweep.random_seed:
        return
    for line in lines:
        control = line.control.row.cell if line.control else None
        if control and line.method in _AT_ONE_LAYER and sweep.find(replace(control, variant=None)):
            yield line.method
