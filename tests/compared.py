"""A study of a tiny model that compares every method, with all that the methods need, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny_study
import torch
from some_saes import random_sae
from tiny_models import HIDDEN, random_vector

from steer_eval.cells import Conditions
from steer_eval.comparison.methods import Comparison
from steer_eval.formats.saelens import folder_name, write_saelens
from steer_eval.formats.vector import SteeringVector, write_vector
from steer_eval.measure import Bench
from steer_eval.model import LanguageModel
from steer_eval.results import Results
from steer_eval.run import Journal
from steer_eval.sae.feature_activity import FeatureActivity, write_feature_activity
from steer_eval.sae.results import features_file
from steer_eval.study import Study, load_study

LAYER = 1
STACK = (1, 2)
COEFFICIENT = 4.0
FEATURES = 96
TABLE = (11, 3, 40, 7, 25, 60)
"""Features of the table, in its order; steering lowers the second and the last."""
LOWERED = (3, 60)
RAISED = (11, 40, 7)
CLAMP = 2.0
SINK_NORM = 1e4
SEED = 5
PROMPTS = 3
TRANSFER = "tiny_L2_to_tiny_L1"
CARRIED_COEFFICIENT = 1.0
METHODS = (
    "unsteered",
    "addition",
    "rotation",
    "stack",
    "features",
    "anchor",
    "anchor+addition",
    "patch",
    "patch-identity",
    "carried-ridge",
    "carried-procrustes",
)
WITHOUT_CONTROL = {"unsteered", "patch-identity"}


def comparison(**changes: Any) -> dict[str, Any]:
    """A comparison of every method."""
    planned = {
        "model": "tiny",
        "layer": LAYER,
        "coefficient": COEFFICIENT,
        "stack": list(STACK),
        "features": len(RAISED),
        "clamp": CLAMP,
        "transfer": TRANSFER,
        "prompts": PROMPTS,
        "seed": SEED,
        **changes,
    }
    return {key: value for key, value in planned.items() if value is not None}


def planned(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The tiny study with a comparison, and with the SAE and the transfer that it needs."""
    sae = {"model": "tiny", "layer": LAYER, "features": FEATURES, "k": 8, "tokens": 1000}
    place = {"model": "tiny", "layer": LAYER}
    return {
        **document,
        "saes": [{**sae, "text": {"files": ["text.jsonl"]}, "table": {"coefficient": 1.0, "top": len(TABLE)}}],
        "transfers": [
            {
                "source": {"model": "tiny", "layer": 2},
                "target": place,
                "text": {"offline": "neutral-sentences"},
                "coefficient": CARRIED_COEFFICIENT,
            }
        ],
        "comparisons": [comparison(**changes)],
    }


def study_of(folder: Path, **changes: Any) -> Study:
    """The study alone, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    (folder / "study.yaml").write_text(json.dumps(planned(tiny_study.document(), **changes)))
    return load_study(folder / "study.yaml")


def activity() -> FeatureActivity:
    """What the features do on text; some never fire."""
    random = np.random.default_rng(0)
    frequency = np.exp(random.uniform(-6, -1, FEATURES)).astype(np.float32)
    maximum = random.uniform(1, 9, FEATURES).astype(np.float32)
    frequency[80:], maximum[80:] = 0.0, 0.0
    return FeatureActivity(torch.from_numpy(maximum), torch.from_numpy(frequency))


def write_ingredients(repo: Path, native: SteeringVector) -> None:
    """Write the SAE with its activity and table, and the carried vectors, into a model repo."""
    folder = repo / folder_name("tiny", LAYER)
    sae = random_sae(HIDDEN, FEATURES, 8, layer=LAYER)
    sae.provenance["sink_norm"] = repr(SINK_NORM)
    write_saelens(folder, sae)
    write_feature_activity(folder, activity(), tokens=1000)
    rows = [
        {
            "feature_id": feature,
            "delta": -1.0 if feature in LOWERED else 1.0,
            "steered_mean": 0.0 if feature in LOWERED else 1.0,
            "base_mean": 1.0 if feature in LOWERED else 0.0,
            "steered_freq": 0.0 if feature in LOWERED else 1.0,
            "base_freq": 1.0 if feature in LOWERED else 0.0,
        }
        for feature in TABLE
    ]
    table = {"model": "lab/tiny-base", "layer": LAYER, "coef": 1.0, "n_prompts": 5, "top_features": rows}
    (repo / features_file("tiny", LAYER)).write_text(json.dumps(table))
    for seed, kind in enumerate(("ridge", "procrustes", "random"), start=20):
        values = random_vector(seed, norm=native.norm).numpy()
        (repo / "vectors/transferred").mkdir(parents=True, exist_ok=True)
        provenance = {**native.provenance, "method": f"transfer-{kind}", "norm": f"{native.norm:.9g}"}
        write_vector(repo / f"vectors/transferred/tiny-L2_to_tiny-L1-{kind}.safetensors",
                     SteeringVector(values, LAYER, provenance))  # fmt: skip


def vectors() -> dict[int, SteeringVector]:
    """Vectors whose norms differ, as those of layers do."""
    made = {}
    for layer in tiny_study.LAYERS:
        values = random_vector(layer, norm=2.0 * layer).numpy()
        provenance = {
            "format": "steer-eval/vector/1",
            "method": "caa",
            "positions": "completion",
            "model": "lab/tiny-base",
            "revision": "main",
            "weights_sha256": "0" * 64,
            "layer": str(layer),
            "norm": f"{2.0 * layer:.9g}",
            "n_pairs": "5",
            "pairs_sha256": "0" * 64,
            "dtype": "float32",
            "versions": "{}",
        }
        made[layer] = SteeringVector(values, layer, provenance)
    return made


def bench_of(lm: LanguageModel, study: Study, repo: Path, journal: Journal) -> Bench:
    """Everything that measuring the comparison of a model needs."""
    prompts = tuple(f"Look: {scenario}" for scenario in tiny_study.SCENARIOS)
    native = vectors()
    published = Results(
        sweeps={}, vectors={("tiny", layer): vector for layer, vector in native.items()}, prompts=prompts
    )
    plan = study.comparison("tiny")
    assert plan is not None
    return Bench(
        study=study,
        model="tiny",
        lm=lm,
        conditions=Conditions("weights", "machine"),
        vectors=native,
        prompts=prompts,
        corpus=tiny_study.CORPUS,
        journal=journal,
        comparison=Comparison(study, plan, lm, published, repo, prompts[0]),
    )
