"""Mistakes in a study without `study.yaml`, each with exactly the findings that it brings.

Most bring one. Where two files are at odds and neither says which of them is wrong, or one edit breaks two statements,
all of the findings are listed. Those in its tensors are in `legacy_tensor_mistakes`.
"""

from __future__ import annotations

import legacy_contents as contents
from legacy_edits import (
    ANCHOR,
    CARD,
    CELL,
    CORPUS,
    DATA_CARD,
    FEATURE_STEERING,
    FEATURES,
    HARE,
    LARGE_2,
    LARGE_FEATURES,
    LAYERED,
    NAN,
    OWL,
    OWL_TRANSFER,
    PAIRS,
    PATCH,
    PHASE_I,
    PLACE,
    PROMPTS,
    SAE,
    SCORES,
    SMALL_SWEEP,
    SUMMARY,
    SWEEP,
    TRANSFER,
    Edit,
    Expected,
    absent,
    appended,
    both,
    converted,
    document,
    error,
    every_line,
    first_pair,
    line,
    note,
    of_cell,
    of_vector,
    put,
    repeated_line,
    reworded,
    same_texts,
    scaled,
    warning,
    without_line,
    words,
)
from legacy_tensor_mistakes import SAES, TRANSFERS, VECTORS

SWEEPS: dict[str, tuple[Edit, Expected]] = {
    "cell lost": (
        without_line(SWEEP, CELL),
        [error("sweep-missing", SWEEP, "L=5 c=1"), warning("card-count", DATA_CARD, "line 8")],
    ),
    "collapsed cell lost": (
        without_line(SWEEP, 12),
        [error("sweep-missing", SWEEP, "L=9 c=6"), warning("card-count", DATA_CARD, "line 8")],
    ),
    "cell twice": (
        repeated_line(SWEEP, CELL),
        [error("sweep-duplicate", SWEEP, "line 13"), warning("card-count", DATA_CARD, "line 8")],
    ),
    "mark of collapse": (
        line(SWEEP, CELL, put("collapsed", True)),
        [error("sweep-arithmetic", SWEEP, "line 6: collapsed")],
    ),
    "mark of collapse left out": (
        line(SWEEP, 12, put("collapsed", False)),
        [error("sweep-arithmetic", SWEEP, "line 12: collapsed")],
    ),
    "ratio": (line(SWEEP, CELL, scaled("ppl_ratio")), [error("sweep-arithmetic", SWEEP, "line 6: ppl_ratio")]),
    "perplexity": (line(SWEEP, CELL, scaled("ppl")), [error("sweep-arithmetic", SWEEP, "line 6: ppl_ratio")]),
    "perplexity that a transfer row shares": (
        line(SMALL_SWEEP, CELL, scaled("ppl")),
        [error("sweep-arithmetic", SMALL_SWEEP, "line 6: ppl_ratio")],
    ),
    "unsteered perplexity": (line(SWEEP, CELL, scaled("base_ppl")), [error("sweep-base", SWEEP, "line 6: base_ppl")]),
    "NaN in a sweep": (line(SWEEP, CELL, put("ppl", NAN)), [error("not-finite", SWEEP, "line 6")]),
    "row against its schema": (line(SWEEP, CELL, put("ppl", -1.0)), [error("table", SWEEP, "line 6: ppl")]),
    "sweep that is no text": (
        lambda place: place.path(SWEEP).write_bytes(b"\xff\n"),
        [error("table", SWEEP, "byte 0")],
    ),
    "text lost": (
        line(SWEEP, CELL, lambda row: row["generations"].pop()),
        [error("sweep-texts", SWEEP, "line 6: generations")],
    ),
    "prompt of a sweep": (
        line(SWEEP, CELL, lambda row: row["generations"][1].update(prompt="Another.")),
        [error("sweep-prompt", SWEEP, "line 6: generations")],
    ),
    "perplexity of the summary": (
        document(SUMMARY, of_cell("large", 5, 1.0, ppl=20.0)),
        [error("summary-differs", SUMMARY, f"{PLACE}.ppl")],
    ),
    "ratio of the summary": (
        document(SUMMARY, of_cell("large", 5, 1.0, ppl_ratio=1.4)),
        [error("summary-differs", SUMMARY, f"{PLACE}.ppl_ratio")],
    ),
    "mark of the summary": (
        document(SUMMARY, of_cell("large", 5, 1.0, collapsed=True)),
        [error("summary-differs", SUMMARY, f"{PLACE}.collapsed")],
    ),
    "cell of the summary that there is not": (
        document(
            SUMMARY, lambda value: value["large"]["per_layer"].update({"7": value["large"]["per_layer"].pop("5")})
        ),
        [
            error("summary-differs", SUMMARY, f"large.per_layer.7.{coefficient}")
            for coefficient in (-1.5, 1.0, 2.5, 6.0)
        ],
    ),
    "norm of the summary": (
        document(SUMMARY, of_vector("small", 2, norm=1.5)),
        [error("summary-differs", SUMMARY, "small.vectors.2.norm")],
    ),
    "shape of the summary": (
        document(SUMMARY, of_vector("small", 2, shape=[16])),
        [error("summary-differs", SUMMARY, "small.vectors.2.shape")],
    ),
    "NaN in the summary": (
        document(SUMMARY, of_cell("large", 5, 1.0, ppl=NAN)),
        [error("not-finite", SUMMARY, f"line 33: {PLACE}.ppl")],
    ),
    "prompt among the pairs": (
        line(PROMPTS, 9, put("scenario", "parcel 3  was LEFT in the rain.")),
        [error("prompt-leak", PROMPTS, "line 9")],
    ),
}
TEXTS: dict[str, tuple[Edit, Expected]] = {
    # The number of pairs stays, so that nothing else is wrong.
    "pair twice": (
        line(PAIRS, 5, lambda row: row.update({key: value.upper() for key, value in first_pair().items()})),
        [warning("pair-duplicate", PAIRS, "line 5")],
    ),
    "replies of a pair the same": (
        line(PAIRS, 2, lambda row: row.update(plain=f" {row['composed']}")),
        [error("pair-equal", PAIRS, "line 2")],
    ),
    # Beyond the prompts of every row of texts.
    "prompt twice": (
        line(PROMPTS, 9, put("scenario", contents.PROMPTS[7].lower())),
        [warning("prompt-duplicate", PROMPTS, "line 9")],
    ),
    "corpus empty": (
        lambda place: place.path(CORPUS).write_text(" \n", encoding="utf-8"),
        [error("corpus-empty", CORPUS)],
    ),
}
JUDGES: dict[str, tuple[Edit, Expected]] = {
    "margin": (
        line(OWL, 2, lambda row: row.update(margin=row["margin"] + 0.5)),
        [error("judge-margin", OWL, "line 2: margin")],
    ),
    "axis": (
        line(OWL, 2, lambda row: row.update(juvenile_rage=6.0 - row["juvenile_rage"])),
        [error("judge-margin", OWL, "line 2: margin")],
    ),
    "axis off the scale": (line(OWL, 2, put("coherence", 2.3)), [error("table", OWL, "line 2: coherence")]),
    "NaN as a margin": (line(OWL, 2, put("margin", NAN)), [error("not-finite", OWL, "line 2")]),
    "score lost": (without_line(OWL, 2), [error("judge-missing", OWL, "L=2 c=1")]),
    "score of a variant lost": (without_line(OWL_TRANSFER, 3), [error("judge-missing", OWL_TRANSFER, "procrustes")]),
    "score of a method lost": (without_line(PHASE_I, 3), [error("judge-missing", PHASE_I, "sae_feat_steer_a1.0")]),
    "score for no cell": (
        appended(HARE, {"layer": 2, "coef": 9.0, **SCORES}),
        [error("judge-unmatched", HARE, "line 12")],
    ),
    "score twice": (repeated_line(OWL, 2), [error("judge-duplicate", OWL, "line 12")]),
    "score of a variant twice": (repeated_line(PHASE_I, 3), [error("judge-duplicate", PHASE_I, "line 11")]),
    "mark of collapse of a score": (
        line(OWL, 2, put("collapsed", True)),
        [error("judge-collapsed", OWL, "line 2: collapsed")],
    ),
    "score of no text": (
        appended(OWL, {"layer": 9, "coef": 6.0, **SCORES, "collapsed": True}),
        [warning("judge-imputed", OWL, "line 12")],
    ),
    "score of a variant without text": (
        appended(PHASE_I, {"label": "multi_layer_a3.50", "source": "multi_layer_eval.jsonl", **SCORES}),
        [warning("judge-imputed", PHASE_I, "line 11")],
    ),
    "judge of a model without a sweep": (
        lambda place: place.path(OWL).rename(place.path("data/judge_owl_giant.jsonl")),
        [error("judge-unmatched", "data/judge_owl_giant.jsonl")],
    ),
    "label, with the ratio of another": (
        line(PHASE_I, 3, put("label", "sae_a1")),
        [error("judge-label", PHASE_I, "line 3: label")],
    ),
    "label, without a ratio": (
        line(PHASE_I, 1, put("label", "patch_with_ridge")),
        [error("judge-label", PHASE_I, "line 1: label")],
    ),
    "ratio of a score": (
        line(OWL_TRANSFER, 2, scaled("ppl_ratio")),
        [error("judge-ratio", OWL_TRANSFER, "line 2: ppl_ratio")],
    ),
    "rounded ratio of a score": (
        line("data/judge_transfer.jsonl", 2, put("ppl_ratio", 1.15)),
        [error("judge-ratio", "data/judge_transfer.jsonl", "line 2: ppl_ratio")],
    ),
    # The scores may be those of the row that can't be read.
    "NaN in judged texts": (line(TRANSFER, 2, put("norm", NAN)), [error("not-finite", TRANSFER, "line 2")]),
    "texts absent": (
        absent(PATCH),
        [error("judge-unmatched", PHASE_I, "line 1"), warning("card-file-absent", DATA_CARD, "line 11")],
    ),
}
EVALUATIONS: dict[str, tuple[Edit, Expected]] = {
    "perplexity of a variant": (
        line(FEATURE_STEERING, 1, scaled("ppl")),
        [error("evaluation-arithmetic", FEATURE_STEERING, "line 1: ppl_ratio")],
    ),
    "perplexity of a transferred vector": (
        line(TRANSFER, 2, scaled("ppl")),
        [error("evaluation-base", TRANSFER, "line 2: ppl_ratio")],
    ),
    "mark of collapse of a variant": (
        line(LAYERED, 2, put("collapsed", True)),
        [error("evaluation-arithmetic", LAYERED, "line 2: collapsed")],
    ),
    "collapse unmarked": (
        line(LAYERED, 4, lambda row: row.pop("collapsed")),
        [note("collapse-unmarked", LAYERED, "line 4: collapsed")],
    ),
    "unsteered perplexity of a variant": (
        line(ANCHOR, 2, scaled("base_ppl")),
        [error("evaluation-base", ANCHOR, "line 2: base_ppl")],
    ),
    "unsteered perplexity under another name": (
        line(PATCH, 2, scaled("base_ppl_08")),
        [error("evaluation-base", PATCH, "line 2: base_ppl_08")],
    ),
    "unsteered perplexity of a model without a sweep": (
        every_line(ANCHOR, 3, put("base_ppl", 30.123456)),
        [warning("evaluation-base", ANCHOR, "line 1: base_ppl")],
    ),
    "coefficient of a layer": (
        line(LAYERED, 2, lambda row: scaled("5")(row["per_layer_coefs"])),
        [error("evaluation-coefficient", LAYERED, "line 2: per_layer_coefs.5")],
    ),
    "alpha": (line(LAYERED, 2, scaled("alpha")), [error("evaluation-coefficient", LAYERED, "line 2: alpha")]),
    # Its score now stands for a label that the file lacks.
    "variant twice": (
        line(PATCH, 2, put("label", "patch_ridge")),
        [
            error("judge-label", PHASE_I, "line 2: label"),
            error("evaluation-duplicate", PATCH, "line 2: label"),
        ],
    ),
    "prompt of a variant": (
        line(PATCH, 2, lambda row: row["generations"][3].update(prompt="Nobody knows.")),
        [error("evaluation-prompt", PATCH, "line 2: generations[3].prompt")],
    ),
    "identical texts": (line(PATCH, 2, same_texts), [warning("texts-identical", PATCH, "line 2: generations")]),
    "features that no table lists": (
        every_line(FEATURE_STEERING, 2, put("feat_ids", [1, 3])),
        [note("feature-unlisted", FEATURE_STEERING, "feat_ids")],
    ),
}
CARDS: dict[str, tuple[Edit, Expected]] = {
    "file of braces absent": (absent(LARGE_2), [warning("card-file-absent", CARD, "line 12")]),
    "files of a star absent": (
        both(absent(FEATURES), absent(LARGE_FEATURES)),
        [warning("card-file-absent", CARD, "line 18")],
    ),
    "vector converted": (
        converted(LARGE_2, "vectors/fox_large_L2_caa.safetensors"),
        [note("card-file-absent", CARD, "line 12")],
    ),
    "SAE converted": (converted(SAE, "saes/fox_large/layers.5"), [note("card-file-absent", CARD, "line 16")]),
    "size about": (reworded(CARD, "~[0-9.]+ KB each", "~90 KB each"), [warning("card-size", CARD, "line 12")] * 3),
    "size below": (reworded(CARD, "<[0-9]+ KB", "<1 KB"), [warning("card-size", CARD, "line 13")] * 3),
    "size in KiB": (reworded(CARD, "[0-9.]+ KiB", "9.17 KiB"), [warning("card-size", CARD, "line 15")]),
    "size in bytes": (reworded(CARD, "([0-9])[0-9] bytes", r"\g<1>00 bytes"), [warning("card-size", CARD, "line 14")]),
    "size that is not even rounded up": (
        reworded(CARD, r"\| [0-9]+ KB \|", "| 90 KB |"),
        [warning("card-size", CARD, "line 16")],
    ),
    "number of features of an SAE": (
        words(CARD, "(d_sae=40, k=4)", "(d_sae=48, k=4)"),
        [warning("card-count", CARD, "line 16")],
    ),
    "k of an SAE": (words(CARD, "k=4, d_in=8", "k=5, d_in=8"), [warning("card-count", CARD, "line 17")]),
    "width of an SAE": (words(CARD, "k=4, d_in=8", "k=4, d_in=9"), [warning("card-count", CARD, "line 17")]),
    "number of top features": (words(CARD, "Top-5", "Top-6"), [warning("card-count", CARD, "line 18")] * 2),
    "number of pairs": (words(DATA_CARD, "6 contrast", "7 contrast"), [warning("card-count", DATA_CARD, "line 5")]),
    "number of prompts": (words(DATA_CARD, "9 prompts", "10 prompts"), [warning("card-count", DATA_CARD, "line 6")]),
    "number of cells": (words(DATA_CARD, "12 cells", "1,300 cells"), [warning("card-count", DATA_CARD, "line 8")] * 2),
    "front matter that is no YAML": (
        words(CARD, "license: mit", "license: mit\nlicense: mit"),
        [error("card-metadata", CARD, "line 2")],
    ),
    "data not named": (
        words(CARD, "datasets:\n  - den/fox-data\n", ""),
        [note("card-metadata", CARD, "front matter")],
    ),
    "card absent": (absent(CARD), [warning("card-absent", CARD)]),
    "data card absent": (absent(DATA_CARD), [warning("card-absent", DATA_CARD)]),
}
MISTAKES = {**VECTORS, **SAES, **TRANSFERS, **SWEEPS, **TEXTS, **JUDGES, **EVALUATIONS, **CARDS}
