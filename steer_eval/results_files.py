"""Results on disk: a dataset repo and the vectors of a model repo, and back.

Invariant: what is written here is read back as an equal value. Reading never stops at a bad file: the rest is loaded
and the file's trouble is kept in `Results.unusable`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from steer_eval.cells import Cell
from steer_eval.contrast import ContrastPair
from steer_eval.environment import Environment
from steer_eval.errors import FormatError
from steer_eval.evaluation.perplexity import Floats, Interval
from steer_eval.formats import schema
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import (
    MAX_FILE_BYTES,
    Row,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from steer_eval.formats.text import read_text
from steer_eval.formats.vector import SteeringVector, file_name, read_vector
from steer_eval.judge.tables import judge_tables
from steer_eval.results import Results, Sweep, SweepRow, Text
from steer_eval.sae.results import read_outlines, read_saes, read_tables
from steer_eval.study import Study
from steer_eval.table_configs import study_tables
from steer_eval.transfer.results import read_transfers

ENVIRONMENT = "environment.json"
ENVIRONMENT_SCHEMA = "steer-eval/environment/1"
NLL_DECIMALS = 6

Value = TypeVar("Value")


def sweep_file(model: str) -> str:
    """Path of a model's sweep inside a dataset repo."""
    return f"sweep_{model}.jsonl"


def comparison_file(model: str) -> str:
    """Path of a model's comparison of methods inside a dataset repo."""
    return f"comparison_{model}.jsonl"


def load_results(study: Study, *, model_repo: Path, data_repo: Path) -> Results:
    """Read everything that a study's repos hold.

    Args:
        study: Says which files to expect.
        model_repo: Folder with `vectors/`.
        data_repo: Folder with the tables.
    """
    unusable: dict[str, str] = {}

    def attempt(file: str, read: Callable[[], Value]) -> Value | None:
        try:
            return read()
        except FormatError as error:
            unusable[file] = f"{error.where}: {error.reason}" if error.where else error.reason
            return None

    sweeps: dict[str, Sweep] = {}
    comparisons: dict[str, Sweep] = {}
    vectors: dict[tuple[str, int], SteeringVector] = {}
    vector_files: dict[tuple[str, int], str] = {}
    for model in study.models:
        file = sweep_file(model)
        sweep = attempt(file, partial(read_sweep, data_repo, model))
        if sweep is not None:
            sweeps[model] = sweep
        if study.comparison(model) is not None:
            compared = attempt(comparison_file(model), partial(read_comparison, data_repo, model))
            if compared is not None:
                comparisons[model] = compared
        for layer in study.vector_layers(model):
            path = vector_path(model_repo, model, layer)
            vector = attempt(path, partial(_read_vector, model_repo, path))
            if vector is not None:
                vectors[model, layer] = vector
                vector_files[model, layer] = path
    measured = attempt(ENVIRONMENT, lambda: read_environments(data_repo)) or {}
    return Results(
        sweeps=sweeps,
        vectors=vectors,
        vector_files=vector_files,
        pairs=attempt(study.extraction.pairs, lambda: read_pairs(data_repo, study)),
        prompts=attempt(study.sweep.prompts, lambda: read_prompts(data_repo, study)),
        corpus=attempt(study.perplexity.corpus, lambda: read_corpus(data_repo, study)),
        environments={model: Environment.from_json(value) for model, value in measured.items()},
        weights={model: value["weights_sha256"] for model, value in measured.items()},
        unusable=unusable,
        tables=study_tables(data_repo, study.chosen_names, study.models),
        judges=judge_tables(data_repo, study.models),
        comparisons=comparisons,
        saes=read_saes(study, model_repo, attempt),
        sae_outlines=read_outlines(study, model_repo),
        feature_tables=read_tables(study, model_repo, attempt),
        transfers=read_transfers(study, model_repo, attempt),
    )


def vector_path(model_repo: Path, model: str, layer: int) -> str:
    """Path of a vector inside a model repo: our format, or the study's own where only that is there."""
    ours = file_name(model, layer)
    theirs = str(PurePosixPath(ours).with_suffix(".pt"))
    return theirs if not os.path.lexists(model_repo / ours) and os.path.lexists(model_repo / theirs) else ours


def _read_vector(model_repo: Path, path: str) -> SteeringVector:
    place = inside(model_repo, path)
    if place.suffix == ".pt":
        from steer_eval.formats.caa_pt import read_caa_pt

        return read_caa_pt(place, name=path)
    return read_vector(place, name=path)


def read_table(data_repo: Path, file: str, *, schema: str) -> list[Row]:
    """Read a table of a dataset repo that must be good throughout.

    Raises:
        FormatError: The file leaves the repo, is absent, or a row of it is bad.
    """
    return read_jsonl(inside(data_repo, file), schema=schema, name=file)


def read_sweep(data_repo: Path, model: str) -> Sweep:
    """Read a model's sweep.

    Raises:
        FormatError: The file is absent or a row of it is bad.
    """
    file = sweep_file(model)
    rows = read_table(data_repo, file, schema="sweep_row")
    return Sweep(file, tuple(row_from_json(row.value, model, row.line) for row in rows))


def write_sweep(data_repo: Path, model: str, rows: Sequence[SweepRow]) -> None:
    """Write a model's sweep, atomically."""
    write_jsonl(data_repo / sweep_file(model), (row_to_json(row) for row in rows))


def read_comparison(data_repo: Path, model: str) -> Sweep:
    """Read a model's comparison of methods.

    Raises:
        FormatError: The file is absent or a row of it is bad.
    """
    file = comparison_file(model)
    rows = read_table(data_repo, file, schema="comparison_row")
    return Sweep(file, tuple(comparison_row_from_json(row.value, model, row.line) for row in rows))


def write_comparison(data_repo: Path, model: str, rows: Sequence[SweepRow]) -> None:
    """Write a model's comparison of methods, atomically."""
    write_jsonl(data_repo / comparison_file(model), (row_to_json(row) for row in rows))


def read_pairs(data_repo: Path, study: Study) -> tuple[ContrastPair, ...]:
    """Read the contrast pairs.

    Raises:
        FormatError: The file is absent, or a row lacks a reply that the study names.
    """
    file = study.extraction.pairs
    pairs = []
    for row in read_table(data_repo, file, schema="contrast_pair"):
        for key in (study.extraction.positive, study.extraction.negative):
            if key not in row.value:
                raise FormatError(file, f"line {row.line}", f"the pair has no {key!r}", fix="the study names this key")
        pairs.append(
            ContrastPair(
                row.value["scenario"], row.value[study.extraction.positive], row.value[study.extraction.negative]
            )
        )
    return tuple(pairs)


def read_prompts(data_repo: Path, study: Study) -> tuple[str, ...]:
    """Read the evaluation prompts.

    Raises:
        FormatError: The file is absent or a row of it is bad.
    """
    file = study.sweep.prompts
    return tuple(row.value["scenario"] for row in read_table(data_repo, file, schema="eval_prompt"))


def read_corpus(data_repo: Path, study: Study) -> str:
    """Read the perplexity corpus.

    Raises:
        FormatError: The file is absent, empty, too large or not UTF-8.
    """
    file = study.perplexity.corpus
    text = read_text(inside(data_repo, file), file, limit=MAX_FILE_BYTES)
    # The corpus is cut into tokens, so it must not depend on how a platform ends its lines.
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise FormatError(file, "", "the file is empty", fix="give a neutral passage of at least 600 words")
    return text


def read_environments(data_repo: Path) -> dict[str, dict[str, Any]]:
    """Read what each model's sweep was measured on, as `write_environments` was given it.

    Raises:
        FormatError: The file is absent or bad.
    """
    document = read_json(inside(data_repo, ENVIRONMENT), name=ENVIRONMENT)
    schema.check(document, "environment", file=ENVIRONMENT)
    models: dict[str, dict[str, Any]] = document["models"]
    return models


def write_environments(data_repo: Path, models: Mapping[str, dict[str, Any]]) -> None:
    """Write what each model's sweep was measured on, atomically."""
    document = {"schema": ENVIRONMENT_SCHEMA, "models": dict(models)}
    schema.check(document, "environment", file=ENVIRONMENT)
    write_json(data_repo / ENVIRONMENT, document)


def row_from_json(value: dict[str, Any], model: str, line: int | None) -> SweepRow:
    """A sweep row from its JSON object, which satisfies `schemas/sweep_row.schema.json`."""
    interval = value.get("ppl_ratio_interval")
    nll, tokens = value.get("sentence_nll"), value.get("sentence_tokens")
    return SweepRow(
        cell=Cell(model, value.get("label", "steered"), value["layer"], float(value["coef"])),
        base_ppl=float(value["base_ppl"]),
        ppl=float(value["ppl"]),
        ppl_ratio=float(value["ppl_ratio"]),
        collapsed=value["collapsed"],
        generations=tuple(
            Text(**{key: text[key] for key in Text.__dataclass_fields__ if key in text})
            for text in value["generations"]
            if text["gen"] is not None
        ),
        interval=None if interval is None else Interval(float(interval[0]), float(interval[1])),
        undecided=value.get("collapse_undecided"),
        sentence_nll=None if nll is None else np.array(nll, dtype=np.float64),
        sentence_tokens=None if tokens is None else np.array(tokens, dtype=np.int64),
        system_prompt=value.get("system_prompt"),
        line=line,
    )


def comparison_row_from_json(value: dict[str, Any], model: str, line: int | None) -> SweepRow:
    """A comparison's row from its JSON object, which satisfies `schemas/comparison_row.schema.json`."""
    row, base_nll = row_from_json(value, model, line), value.get("base_sentence_nll")
    return replace(
        row,
        cell=replace(row.cell, variant=value["variant"]),
        edits=tuple(value["edits"]),
        corpus_after=value.get("corpus_after"),
        base_sentence_nll=None if base_nll is None else np.array(base_nll, dtype=np.float64),
    )


def row_to_json(row: SweepRow) -> dict[str, Any]:
    """A row of a sweep or a comparison as a JSON object; what is not known is left out."""
    value: dict[str, Any] = {
        **({} if row.cell.variant is None else {"variant": row.cell.variant}),
        "label": row.cell.label,
        "layer": row.cell.layer,
        "coef": row.cell.coef,
        **({} if row.edits is None else {"edits": [dict(edit) for edit in row.edits]}),
        "base_ppl": row.base_ppl,
        "ppl": row.ppl,
        "ppl_ratio": row.ppl_ratio,
    }
    if row.interval is not None:
        value["ppl_ratio_interval"] = [row.interval.low, row.interval.high]
    value["collapsed"] = row.collapsed
    if row.undecided is not None:
        value["collapse_undecided"] = row.undecided
    if row.system_prompt is not None:
        value["system_prompt"] = row.system_prompt
    if row.sentence_nll is not None and row.sentence_tokens is not None:
        value["sentence_nll"] = _rounded(row.sentence_nll)
        value["sentence_tokens"] = [int(tokens) for tokens in row.sentence_tokens]
    if row.corpus_after is not None:
        value["corpus_after"] = row.corpus_after
    if row.base_sentence_nll is not None:
        value["base_sentence_nll"] = _rounded(row.base_sentence_nll)
    value["generations"] = [
        {key: part for key in Text.__dataclass_fields__ if (part := getattr(text, key)) is not None}
        for text in row.generations
    ]
    return value


def _rounded(nll: Floats) -> list[float]:
    return [round(float(value), NLL_DECIMALS) for value in nll]
