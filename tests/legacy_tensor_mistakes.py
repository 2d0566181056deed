"""Mistakes in the vectors, SAEs and transfers of a study without `study.yaml`, each with exactly its findings."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from legacy_contents import transfer_eval
from legacy_edits import (
    CARD,
    CARRIED,
    DATA_CARD,
    FEATURES,
    LARGE_2,
    LARGE_5,
    LARGE_FEATURES,
    LATENT,
    MAP,
    NAN,
    OWL,
    OWL_TRANSFER,
    PAIRS,
    PATCH,
    PROMPTS,
    SAE,
    SMALL_5,
    SMALL_SAE,
    SUMMARY,
    SWEEP,
    TRANSFER,
    Edit,
    Expected,
    absent,
    both,
    document,
    element,
    error,
    line,
    link_out,
    malicious,
    put,
    scaled,
    top,
    torch_file,
    warning,
    wider,
    without_line,
    words,
)

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
