"""Write down the work of the speed comparisons as plain numbers: `python benchmarks/prepare.py FOLDER`.

Invariant: every side reads the same file: the packaged study's model, vectors, cells, tokens of its prompts, corpus and
contrast pairs. No side needs this toolkit, its formats or its tokenizer to do its part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

STUDY = Path(__file__).parents[1] / "artifacts" / "smollm2-135m-mature-anger"
PROMPTS = 10


def main(folder: str) -> None:
    from steer_eval.evaluation.corpus import tokenise
    from steer_eval.model import load_model
    from steer_eval.repository import open_study
    from steer_eval.results_files import load_results, read_pairs
    from steer_eval.weights import fetch

    repositories = open_study(str(STUDY), None)
    study = repositories.study
    [(name, reference)] = study.models.items()
    published = load_results(study, model_repo=repositories.model.folder, data_repo=repositories.data.folder)
    weights = fetch(reference, study_folder=repositories.model.folder)
    lm = load_model(weights.folder)
    if published.prompts is None or published.corpus is None:
        sys.exit(f"{STUDY}: prompts or corpus can't be read: {published.unusable}")
    layers = study.layers(name)
    pairs = read_pairs(repositories.data.folder, study)
    work = {
        "model": str(weights.folder),
        "vectors": {str(layer): published.vectors[name, layer].values.tolist() for layer in layers},
        "cells": [[layer, coefficient] for layer in layers for coefficient in study.coefficients(name)],
        "prompts": [lm.chat_ids(prompt) for prompt in published.prompts[:PROMPTS]],
        "tokens": study.sweep.max_new_tokens,
        "eos": sorted(lm.eos_ids),
        "windows": [list(window.ids) for window in tokenise(published.corpus, lm, study.perplexity).windows],
        "pairs": [
            [
                lm.chat_ids(pair.scenario),
                lm.text_ids(pair.positive, special_tokens=False),
                lm.text_ids(pair.negative, special_tokens=False),
            ]
            for pair in pairs
        ],
    }
    (Path(folder) / "work.json").write_text(json.dumps(work), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
