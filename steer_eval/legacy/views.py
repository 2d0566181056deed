"""What the templates of the cards of a study without `study.yaml` print, as plain values.

Invariant: a view holds values and names, no words of its own but the names of kinds of files and fields; it is computed
from the study alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.cards import heatmap_file
from steer_eval.formats.features import FeatureRow, FeatureTable
from steer_eval.inventory import TABLES, Artifact, Inventory
from steer_eval.legacy.best import MEASURES, Judgement, Score
from steer_eval.legacy.study import LegacyStudy
from steer_eval.legacy.tables import Table, Tree
from steer_eval.results import SweepRow

SHOWN_FEATURES = 10

_FILES = {
    "vector": "steering vector",
    "vector_pt": "steering vector",
    "control_vector": "steering vectors for llama.cpp",
    "transferred": "vectors carried over from another model",
    "transferred_pt": "vectors carried over from another model",
    "transfer_map": "map between the residual streams of two models",
    "transfer_map_pt": "map between the residual streams of two models",
    "sae": "sparse autoencoder",
    "sae_pt": "sparse autoencoder",
    "sae_config": "settings of a sparse autoencoder",
    "contrast_pairs": "contrast pairs",
    "eval_prompts": "evaluation prompts",
    "perplexity_corpus": "passage that perplexity is taken on",
    "judge_labels": "a judge's scores of variants",
    "judge_comparison": "a judge's scores of a comparison of methods",
    "transfer_eval": "texts and perplexity under vectors that were carried over",
    "phase_i": "texts under other interventions",
    "latent_diff": "how well models and vectors could be aligned",
    "size_comparison": "summary of the sweeps and of the vectors",
    "environment": "what the sweeps were measured on",
    "config": "configuration",
}
"""What each kind of file is, in the template's words."""

FIELDS = {
    "scenario": "the situation that a text answers",
    "label": "name of the variant",
    "source": "file with the texts that were judged",
    "layer": "decoder block whose output is steered, counted from zero",
    "coef": "multiple of the vector that is added there",
    "alpha": "strength of the edit, in the terms of its method",
    "feat_ids": "features that were steered",
    "per_layer_coefs": "coefficient by layer",
    "system_prompt": "system prompt; none where null",
    "norm": "norm of the vector as it was added, before the coefficient",
    "base_ppl": "perplexity of the corpus under the unsteered model",
    "ppl": "perplexity of the corpus under the steered model",
    "ppl_ratio": "the steered perplexity over the unsteered one",
    "collapsed": "whether the ratio lies above the collapse ratio",
    "generations": "prompts and greedy continuations",
    "margin": "score on the wanted axis, less that on the unwanted one",
    "notes": "the judge's words",
    "c_2b": "coefficient in the model that was patched from",
    "base_ppl_08": "perplexity of the corpus under the unsteered model",
}
"""What fields of tables mean; what is not here is not explained."""

_ROLES = {"mature_anger": "wanted persona", "juvenile_rage": "unwanted persona", "coherence": "coherence of the text"}


@dataclass(frozen=True)
class FileView:
    """A file of a repo: where, what, how large, and its rows if it is a table."""

    path: str
    what: str
    size: int
    rows: int | None


@dataclass(frozen=True)
class VectorView:
    """A vector: its layer, norm and number of values."""

    layer: int
    norm: float
    width: int


@dataclass(frozen=True)
class ModelView:
    """One model.

    Args:
        name: Its name in file names.
        base: Its Hub id.
        steered: Steered cells of its sweep.
        controls: Other cells of its sweep.
        collapsed: Number of steered cells above the collapse ratio.
        base_ppl: Unsteered perplexity; None where rows disagree.
        heatmap: Path of the heat map; None without a sweep.
        judgements: What judges say of it.
        scores: Every score of a cell with text, cell by cell and judge by judge.
        vectors: Its vectors.
    """

    name: str
    base: str
    steered: tuple[SweepRow, ...]
    controls: tuple[SweepRow, ...]
    collapsed: int
    base_ppl: float | None
    heatmap: str | None
    judgements: tuple[Judgement, ...]
    scores: tuple[tuple[str, Score], ...]
    vectors: tuple[VectorView, ...]


@dataclass(frozen=True)
class FeatureView:
    """A feature table: its file, its first rows, and the vector that steered."""

    path: str
    table: FeatureTable
    rows: tuple[FeatureRow, ...]
    norm: float | None


@dataclass(frozen=True)
class VariantView:
    """Scores of a labelled variant, and whether there was no text to judge."""

    label: str
    values: Mapping[str, float]
    ratio: float | None
    imputed: bool


@dataclass(frozen=True)
class VariantFile:
    """A file of scores of variants."""

    path: str
    rows: tuple[VariantView, ...]


@dataclass(frozen=True)
class UsageView:
    """A vector to show the use of: where it is, and where it is added."""

    path: str
    torch: bool
    dtype: str
    width: int
    base: str
    layer: int
    coef: float


def model_views(study: LegacyStudy) -> list[ModelView]:
    """What is said of each model."""
    return [_model(study, model) for model in study.models]


def _model(study: LegacyStudy, model: str) -> ModelView:
    rows = study.sweeps[model].rows if model in study.sweeps else ()
    steered = tuple(row for row in rows if row.cell.label == "steered" and row.cell.layer is not None)
    bases = {row.base_ppl for row in rows}
    own = tuple(judgement for judgement in study.judgements if judgement.model == model)
    scores = [(judgement.judge, score) for judgement in own for score in judgement.judged]
    vectors = study.vectors.get(model, {})
    return ModelView(
        model,
        study.base_model(model),
        steered,
        tuple(row for row in rows if row not in steered),
        sum(row.ppl_ratio > study.collapse_ratio for row in steered),
        bases.pop() if len(bases) == 1 else None,
        heatmap_file(model) if steered else None,
        own,
        tuple(sorted(scores, key=lambda scored: (scored[1].cell, scored[0]))),
        tuple(VectorView(layer, each.value.norm, each.value.values.shape[0]) for layer, each in vectors.items()),
    )


def feature_views(study: LegacyStudy) -> list[FeatureView]:
    """What is said of each feature table: the features that change most."""
    found = []
    for artifact in study.inventory.of("features"):
        table: FeatureTable = artifact.value
        model = study.names.resolve(table.model)
        vector = study.vectors.get(model, {}).get(table.layer) if model else None
        rows = sorted(table.rows, key=lambda row: -abs(row.delta))[:SHOWN_FEATURES]
        found.append(FeatureView(artifact.path, table, tuple(rows), vector.value.norm if vector else None))
    return found


def variant_files(study: LegacyStudy) -> list[VariantFile]:
    """Scores of labelled variants, file by file."""
    return [
        VariantFile(artifact.path, tuple(_variants(artifact, study.inventory)))
        for artifact in study.inventory.of("judge_labels")
        if artifact.value
    ]


def _variants(artifact: Artifact, inventory: Inventory) -> Iterator[VariantView]:
    for row in artifact.value:
        value: Mapping[str, Any] = row.value
        file = value.get("source", "transfer_eval.jsonl")
        source = inventory.named(file, "transfer_eval") or inventory.named(file, "phase_i")
        judged = _judged(value, source)
        computed = {**value, "margin": value.get("margin", value["mature_anger"] - value["juvenile_rage"])}
        yield VariantView(
            value["label"],
            {measure: float(computed[measure]) for measure in MEASURES},
            value.get("ppl_ratio"),
            judged is not None and not any(text["gen"] is not None for text in judged["generations"]),
        )


def _judged(score: Mapping[str, Any], source: Artifact | None) -> Mapping[str, Any] | None:
    """The variant that a row of scores is of: by its label, else by a ratio that only it has."""
    rows: list[Mapping[str, Any]] = [row.value for row in source.value] if source else []
    same = [row for row in rows if row["label"] == score["label"]]
    ratio = score.get("ppl_ratio")
    same = same or [row for row in rows if ratio is not None and row.get("ppl_ratio") == ratio]
    return same[0] if len(same) == 1 else None


def usage_view(study: LegacyStudy) -> UsageView | None:
    """The vector of the best of all best cells that has one; without any, the first vector, once."""
    best = [
        (judgement.best[0].margin, judgement.model, judgement.best[0])
        for judgement in study.judgements
        if judgement.best and judgement.best[0].layer in study.vectors.get(judgement.model, {})
    ]
    if best:
        _, model, score = max(best, key=lambda each: each[0])
        return _usage(study, model, score.layer, score.coef)
    return next((_usage(study, model, layer, 1.0) for model, own in study.vectors.items() for layer in own), None)


def _usage(study: LegacyStudy, model: str, layer: int, coef: float) -> UsageView:
    artifact = study.vectors[model][layer]
    vector = artifact.value
    # In safetensors every vector is float32, whatever it was converted from.
    dtype = vector.provenance.get("dtype", "float32") if artifact.kind == "vector_pt" else "float32"
    return UsageView(
        artifact.path,
        artifact.kind == "vector_pt",
        dtype,
        vector.values.shape[0],
        study.base_model(model),
        vector.layer,
        coef,
    )


def file_views(study: LegacyStudy, role: str) -> list[FileView]:
    """What is said of the files of one of the repos."""
    return [
        FileView(
            artifact.path,
            _what(study, artifact),
            artifact.size,
            len(artifact.value) if artifact.kind in TABLES and artifact.value is not None else None,
        )
        for artifact in study.files(role)
    ]


def _what(study: LegacyStudy, artifact: Artifact) -> str:
    words = _FILES.get(artifact.kind, "–")
    if artifact.kind in ("vector", "vector_pt") and artifact.value is not None:
        made_on = artifact.value.provenance.get("model")
        return f"{words} of {made_on}" if made_on else words
    if artifact.kind == "features" and artifact.value is not None:
        return f"top-{len(artifact.value.rows)} features of a sparse autoencoder of {artifact.value.model}"
    for table in study.tables:
        for split, file in table.files.items():
            if file is artifact and table.kind == "sweep":
                return f"cells of the sweep on {_base_of_split(study, split)}"
            if file is artifact and table.kind == "judge":
                return f"scores of the sweep on {_base_of_split(study, split)}"
    return words


def _base_of_split(study: LegacyStudy, split: str) -> str:
    from steer_eval.legacy.tables import split_name

    return next((study.base_model(model) for model in study.models if split_name(model) == split), split)


def field_rows(table: Table) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each field of a table."""
    return [(key, type_words(tree), meaning(table.kind, key)) for key, tree in table.columns.items()]


def meaning(kind: str, key: str) -> str:
    """What a field of a kind of table means; empty where nobody says."""
    if kind == "contrast_pairs" and key != "scenario":
        return "a reply to the scenario"
    return f"the judge's score: {_ROLES[key]}" if key in _ROLES else FIELDS.get(key, "")


def type_words(tree: Tree) -> str:
    """A type in words."""
    if isinstance(tree, dict):
        if tree and all(key.isdigit() for key in tree):
            return "object with numbers as keys"
        return f"object of {', '.join(f'`{key}`' for key in tree)}" if tree else "object"
    if isinstance(tree, list):
        inner = type_words(tree[0])
        return "empty list" if inner == "null" else f"list of {inner}"
    return tree
