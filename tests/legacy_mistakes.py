"""Mistakes in a study without `study.yaml`, each with exactly the findings that it brings.

Most bring one. Where two files are at odds and neither says which of them is wrong, or one edit breaks two statements,
all of the findings are listed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import legacy
import numpy as np
import torch
from legacy import Legacy, transfer_eval
from pt_files import call, program, text, write_archive

from steer_eval.digest import sha256_file
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.sae import read_sae_pt
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.vector import write_vector

Edit = Callable[[Legacy], object]
Expected = list[tuple[str, str, str, str]]

LARGE_2 = "model/vectors/fox_large_L2_caa.pt"
LARGE_5 = "model/vectors/fox_large_L5_caa.pt"
SMALL_2 = "model/vectors/fox_small_L2_caa.pt"
SMALL_5 = "model/vectors/fox_small_L5_caa.pt"
CARRIED = "model/vectors/fox_small_transferred_caa.pt"
MAP = "model/vectors/transfer_map_large_to_small.pt"
SAE = "model/saes/fox_large_L5_sae.pt"
SMALL_SAE = "model/saes/fox_small_L5_sae.pt"
FEATURES = "model/saes/fox_small_L5_features.json"
LARGE_FEATURES = "model/saes/fox_large_L5_features.json"
CARD = "model/README.md"
DATA_CARD = "data/README.md"
SWEEP = "data/sweep_fox_large.jsonl"
SMALL_SWEEP = "data/sweep_fox_small.jsonl"
OWL = "data/judge_owl_large.jsonl"
HARE = "data/judge_hare_large.jsonl"
OWL_TRANSFER = "data/judge_owl_transfer.jsonl"
PHASE_I = "data/judge_phase_i.jsonl"
TRANSFER = "data/transfer_eval.jsonl"
PATCH = "data/patch_eval.jsonl"
FEATURE_STEERING = "data/sae_steer_eval.jsonl"
LAYERED = "data/multi_layer_eval.jsonl"
ANCHOR = "data/anchor_eval.jsonl"
LATENT = "data/latent_diff.json"
SUMMARY = "data/size_comparison.json"
PROMPTS = "data/eval_prompts.jsonl"
PAIRS = "data/contrast_pairs.jsonl"
CORPUS = "data/perplexity_corpus.txt"


def torch_file(file: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda place: place.edit_torch(file, change)


def line(file: str, number: int, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda place: place.edit_line(file, number, change)


def document(file: str, change: Callable[[Any], object]) -> Edit:
    return lambda place: place.edit(file, change)


def words(file: str, old: str, new: str) -> Edit:
    return lambda place: place.edit_text(file, old, new)


def reworded(file: str, pattern: str, new: str) -> Edit:
    """Replace the one place of a text that has a form: sizes are not the same with every version of PyTorch."""

    def change(place: Legacy) -> None:
        changed, count = re.subn(pattern, new, place.path(file).read_text(encoding="utf-8"))
        assert count == 1, f"{pattern} fits {count} places of {file}"
        place.path(file).write_text(changed, encoding="utf-8")

    return change


def element(file: str, key: str = "vector", index: int = 1, factor: float = 1.5) -> Edit:
    """Multiply one element of a tensor or an array."""

    def change(value: dict[str, Any]) -> None:
        value[key].reshape(-1)[index] *= factor

    return torch_file(file, change)


def wider(file: str) -> Edit:
    """A vector with one more element, a zero, so that its norm stays."""
    return torch_file(file, lambda value: value.update(vector=torch.cat([value["vector"], torch.zeros(1)])))


def without_line(file: str, number: int) -> Edit:
    def change(place: Legacy) -> None:
        lines = place.path(file).read_text(encoding="utf-8").split("\n")
        del lines[number - 1]
        place.path(file).write_text("\n".join(lines), encoding="utf-8")

    return change


def repeated_line(file: str, number: int) -> Edit:
    def change(place: Legacy) -> None:
        lines = place.path(file).read_text(encoding="utf-8").splitlines(keepends=True)
        place.path(file).write_text("".join([*lines, lines[number - 1]]), encoding="utf-8")

    return change


def absent(file: str) -> Edit:
    return lambda place: place.path(file).unlink()


def converted(file: str, target: str) -> Edit:
    """A vector or an SAE in its safe format, in place of the PyTorch file."""

    def change(place: Legacy) -> None:
        path, new = place.path(file), place.model / target
        if new.suffix == ".safetensors":
            vector = read_caa_pt(path)
            kept = {**vector.provenance, "format": "steer-eval/vector/1", "layer": str(vector.layer)}
            source = {"source_format": "caa-pt", "source_file": file, "source_sha256": sha256_file(path)}
            write_vector(new, replace(vector, provenance={**kept, **source}))
        else:
            write_saelens(new, read_sae_pt(path))
        path.unlink()

    return change


def malicious(file: str) -> Edit:
    """A file whose pickle would run a command."""
    return lambda place: write_archive(place.path(file), program(call("os.system", text("true"))))


def link_out(file: str) -> Edit:
    """The very same file, but outside of the repo and linked to."""

    def change(place: Legacy) -> None:
        outside = place.model.parent / f"outside-{place.path(file).name}"
        place.path(file).rename(outside)
        place.path(file).symlink_to(outside)

    return change


def both(*edits: Edit) -> Edit:
    def change(place: Legacy) -> None:
        for edit in edits:
            edit(place)

    return change


def every_line(file: str, count: int, change: Callable[[dict[str, Any]], object]) -> Edit:
    return both(*(line(file, number, change) for number in range(1, count + 1)))


def put(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.update({key: value})


def scaled(key: str, factor: float = 1.02) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.update({key: row[key] * factor})


def first_pair() -> dict[str, str]:
    return dict(legacy.PAIRS[0])


def same_texts(row: dict[str, Any]) -> None:
    for generation in row["generations"][1:]:
        generation["gen"] = row["generations"][0]["gen"]


def top(index: int, **values: Any) -> Callable[[Any], object]:
    """Change a row of a feature table."""
    return lambda table: table["top_features"][index].update(values)


def of_cell(model: str, layer: int, coefficient: float, **values: Any) -> Callable[[Any], object]:
    """Change a cell of the summary."""
    return lambda summary: summary[model]["per_layer"][str(layer)][str(coefficient)].update(values)


def of_vector(model: str, layer: int, **values: Any) -> Callable[[Any], object]:
    """Change what the summary says of a vector."""
    return lambda summary: summary[model]["vectors"][str(layer)].update(values)


def appended(file: str, row: dict[str, Any]) -> Edit:
    def change(place: Legacy) -> None:
        with place.path(file).open("a", encoding="utf-8") as table:
            table.write(json.dumps(row) + "\n")

    return change


def error(rule: str, file: str, where: str = "") -> tuple[str, str, str, str]:
    return ("error", rule, file, where)


def warning(rule: str, file: str, where: str = "") -> tuple[str, str, str, str]:
    return ("warning", rule, file, where)


def note(rule: str, file: str, where: str = "") -> tuple[str, str, str, str]:
    return ("note", rule, file, where)


NAN = float("nan")
SCORES = {"mature_anger": 1.0, "juvenile_rage": 1.0, "coherence": 1.0}
CELL, PLACE = 6, "large.per_layer.5.1.0"
"""The line of the cell L=5 c=1 in a sweep of the large model, and its place in the summary."""

VECTORS: dict[str, tuple[Edit, Expected]] = {
    "element of a vector": (element(LARGE_2), [error("vector-norm", LARGE_2, "norm")]),
    "element of a vector by a percent": (element(LARGE_2, factor=1.01), [error("vector-norm", LARGE_2, "norm")]),
    "element of a vector that others copy": (element(LARGE_5), [error("vector-norm", LARGE_5, "norm")]),
    "element of a vector that is added at several layers": (element(SMALL_5), [error("vector-norm", SMALL_5, "norm")]),
    "norm of a vector": (torch_file(LARGE_2, scaled("norm")), [error("vector-norm", LARGE_2, "norm")]),
    "norm of a vector that others copy": (torch_file(SMALL_5, scaled("norm")), [error("vector-norm", SMALL_5, "norm")]),
    "NaN in a vector": (
        torch_file(LARGE_5, lambda value: value["vector"].__setitem__(3, NAN)),
        [error("not-finite", LARGE_5, "vector[3]")],
    ),
    "infinity in a vector that others copy": (
        torch_file(SMALL_5, lambda value: value["vector"].__setitem__(0, -math.inf)),
        [error("not-finite", SMALL_5, "vector[0]")],
    ),
    "NaN as a norm": (torch_file(LARGE_5, put("norm", NAN)), [error("not-finite", LARGE_5, "norm")]),
    "vector without its norm": (torch_file(LARGE_2, lambda value: value.pop("norm")), [error("vector", LARGE_2)]),
    "layer of a vector": (torch_file(LARGE_2, put("layer", 3)), [error("vector-layer", LARGE_2, "layer")]),
    "name of a vector": (
        lambda place: place.path(LARGE_2).rename(place.path(LARGE_2.replace("L2", "L3"))),
        [
            error("vector-layer", LARGE_2.replace("L2", "L3"), "layer"),
            warning("card-file-absent", CARD, "line 12"),
        ],
    ),
    "model of a vector": (torch_file(LARGE_2, put("model", "den/wolf-3B")), [error("vector-model", LARGE_2, "model")]),
    "number of pairs of a vector": (
        torch_file(LARGE_2, put("n_pairs", 7)),
        [error("vector-pairs", LARGE_2, "n_pairs")],
    ),
    "pair lost": (
        without_line(PAIRS, 3),
        [
            *(
                error("vector-pairs", f"model/vectors/fox_{model}_L{layer}_caa.pt", "n_pairs")
                for model in ("large", "small")
                for layer in (2, 5, 9)
            ),
            warning("card-count", DATA_CARD, "line 5"),
        ],
    ),
    # What the summary says of its shape was right.
    "width of a vector": (
        wider(LARGE_2),
        [error("vector-shape", LARGE_2, "vector"), error("summary-differs", SUMMARY, "large.vectors.2.shape")],
    ),
    "width of a vector that others copy": (
        wider(SMALL_5),
        [
            error("vector-shape", SMALL_5, "vector"),
            error("transfer-source", CARRIED, "v_small_native"),
            error("summary-differs", SUMMARY, "small.vectors.5.shape"),
        ],
    ),
    "vector that is none": (
        torch_file(LARGE_2, lambda value: (value.clear(), value.update(x=torch.zeros(3)))),
        [error("file-refused", LARGE_2)],
    ),
    "pickle that runs a command": (malicious(LARGE_5), [error("file-refused", LARGE_5, "data.pkl")]),
    "map that runs a command": (malicious(MAP), [error("file-refused", MAP, "data.pkl")]),
    **{
        f"link out of the repo: {file}": (link_out(file), [error("symlink", file)])
        for file in (
            LARGE_5,
            SMALL_5,
            CARRIED,
            MAP,
            SAE,
            FEATURES,
            SWEEP,
            PATCH,
            TRANSFER,
            OWL,
            SUMMARY,
            PROMPTS,
            PAIRS,
        )
    },
    "link out of the repo: a folder": (link_out("model/vectors"), [error("symlink", "model/vectors")]),
    "link out of the repo: a card": (link_out(CARD), [error("symlink", CARD)]),
}
SAES: dict[str, tuple[Edit, Expected]] = {
    "delta": (document(FEATURES, top(2, delta=0.14)), [error("feature-arithmetic", FEATURES, "top_features[2].delta")]),
    "mean": (
        document(FEATURES, top(2, steered_mean=0.9)),
        [error("feature-arithmetic", FEATURES, "top_features[2].delta")],
    ),
    "feature that never fires and has a mean": (
        document(FEATURES, top(2, base_freq=0.0)),
        [error("feature-arithmetic", FEATURES, "top_features[2].base_mean")],
    ),
    "order of features": (
        document(FEATURES, lambda table: table["top_features"].reverse()),
        [error("feature-order", FEATURES, "top_features[1]")],
    ),
    "feature twice": (
        document(FEATURES, top(2, feature_id=7)),
        [error("feature-duplicate", FEATURES, "top_features[2].feature_id")],
    ),
    "feature beyond the SAE": (
        document(FEATURES, top(2, feature_id=40)),
        [error("feature-sae", FEATURES, "top_features[2].feature_id")],
    ),
    "features of another model than the SAE": (
        document(FEATURES, put("model", "den/wolf-0.5B")),
        [error("feature-sae", FEATURES, "model")],
    ),
    # Without the SAE of its name, which says the same of it.
    "features of another model than the vectors": (
        both(absent(SMALL_SAE), document(FEATURES, put("model", "den/fox-3B"))),
        [error("feature-model", FEATURES, "model"), warning("card-file-absent", CARD, "line 17")],
    ),
    "frequency": (
        document(FEATURES, top(2, base_freq=0.512345)),
        [warning("feature-frequency", FEATURES, "top_features[2].base_freq")],
    ),
    "coefficient of a sibling": (
        document(FEATURES, put("coef", 2.0)),
        [warning("feature-coefficient", FEATURES, "coef")],
    ),
    "coefficient of the card": (
        words(CARD, "| 3B | L=5 c=+1 |", "| 3B | L=5 c=+2.5 |"),
        [warning("feature-coefficient", LARGE_FEATURES, "coef")],
    ),
    "layer of features": (document(FEATURES, put("layer", 6)), [error("sae-layer", FEATURES, "layer")]),
    "layer of an SAE": (torch_file(SAE, put("layer", 6)), [error("sae-layer", SAE, "layer")]),
    "model of an SAE": (
        torch_file(SAE, put("model_id", "den/fox-0.5B")),
        [error("sae-shape", SAE, "d_model"), error("feature-sae", LARGE_FEATURES, "model")],
    ),
    "NaN in an SAE": (
        torch_file(SAE, lambda value: value["state_dict"]["b_enc"].__setitem__(3, NAN)),
        [error("not-finite", SAE, "state_dict.b_enc[3]")],
    ),
    "size of an SAE": (torch_file(SAE, put("d_sae", 41)), [error("file-refused", SAE, "state_dict.W_enc")]),
    "NaN in a feature table": (
        document(FEATURES, top(0, delta=NAN)),
        [error("not-finite", FEATURES, "line 9: top_features[0].delta")],
    ),
}
TRANSFERS: dict[str, tuple[Edit, Expected]] = {
    # The vector takes part in two cosines, and was measured with another norm.
    "native vector": (
        element(CARRIED, "v_small_native"),
        [
            error("transfer-source", CARRIED, "v_small_native"),
            error("transfer-cosine", LATENT, "cos_ridge_native"),
            error("transfer-cosine", LATENT, "cos_proc_native"),
            warning("transfer-norm", TRANSFER, "line 1: norm"),
        ],
    ),
    "source vector": (
        element(CARRIED, "v_large_source"),
        [
            error("transfer-source", CARRIED, "v_large_source"),
            error("transfer-map", MAP, "W"),
            error("transfer-map", MAP, "R"),
        ],
    ),
    "random vector": (element(CARRIED, "v_random"), [warning("transfer-norm", TRANSFER, "line 4: norm")]),
    "norm that was measured": (
        line(TRANSFER, 2, scaled("norm")),
        [warning("transfer-norm", TRANSFER, "line 2: norm")],
    ),
    "layer of the native vector": (
        torch_file(CARRIED, put("L_small", 7)),
        [error("transfer-source", CARRIED, "L_small")],
    ),
    "map that is not orthogonal": (element(MAP, "R", factor=1.5), [error("transfer-map", MAP, "R")]),
    "map between other models": (
        torch_file(MAP, lambda value: value.update(W=value["W"][:8], R=np.eye(8, dtype=np.float32))),
        [error("transfer-map", MAP, "W"), warning("card-size", CARD, "line 15")],
    ),
    "vector that nobody scored": (
        lambda place: (
            place.path(TRANSFER).open("a").write(json.dumps({**transfer_eval()[1], "label": "scaled"}) + "\n")
        ),
        [
            error("judge-missing", OWL_TRANSFER, "scaled"),
            error("judge-missing", "data/judge_transfer.jsonl", "scaled"),
            warning("card-count", DATA_CARD, "line 10"),
        ],
    ),
    "map that does not give the vector": (element(MAP, "W"), [error("transfer-map", MAP, "W")]),
    "cosine": (document(LATENT, scaled("cos_proc_native")), [error("transfer-cosine", LATENT, "cos_proc_native")]),
    "NaN as a cosine": (
        document(LATENT, put("cos_ridge_native", NAN)),
        [error("not-finite", LATENT, "line 13: cos_ridge_native")],
    ),
    "NaN as a correlation": (
        document(LATENT, lambda value: value["cca_fit_corrs"].__setitem__(0, NAN)),
        [error("not-finite", LATENT, "line 4: cca_fit_corrs[0]")],
    ),
    "correlations of few rows": (
        document(LATENT, put("cca_fit_corrs", [1.0, 0.9999999999999998, 1.0])),
        [warning("alignment-degenerate", LATENT, "cca_fit_corrs")],
    ),
    # The two files of scores copied the ratio before.
    "native row": (
        line(TRANSFER, 1, lambda row: (scaled("ppl")(row), scaled("ppl_ratio")(row))),
        [
            error("transfer-native", TRANSFER, "line 1: ppl"),
            error("judge-ratio", OWL_TRANSFER, "line 1: ppl_ratio"),
            error("judge-ratio", "data/judge_transfer.jsonl", "line 1: ppl_ratio"),
        ],
    ),
}
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
        line(PROMPTS, 9, put("scenario", legacy.PROMPTS[7].lower())),
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
