"""Small studies with an SAE, its feature table, a transfer and a comparison of methods, made by the producers.

Activities, residuals and perplexities are drawn by seed in place of a model's; everything that follows from them is
computed by the producers' own functions, so that it fits together as in a study that was measured.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from some_saes import random_sae
from studies import BASE_PPL, HEX, PROMPTS, TOKENS, OnDisk, build, document, row, write_study

from steer_eval.cells import Cell
from steer_eval.cells import plan as planned_cells
from steer_eval.comparison.cells import comparison_cells
from steer_eval.comparison.methods import Comparison
from steer_eval.contrast import ContrastPair, pairs_digest
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import folder_name, write_saelens
from steer_eval.formats.strict_json import read_jsonl, write_json
from steer_eval.formats.transfer import Centring, TransferMap, write_transfer_map
from steer_eval.results import Results, SweepRow
from steer_eval.results_files import write_comparison
from steer_eval.sae.belongs import recorded_of_plan
from steer_eval.sae.contexts import Context
from steer_eval.sae.feature_activity import FeatureActivity, write_feature_activity
from steer_eval.sae.feature_statistics import Activity
from steer_eval.sae.feature_table import Conditions, feature_table
from steer_eval.sae.plan import sae_plan
from steer_eval.sae.results import features_file
from steer_eval.study import Study
from steer_eval.transfer.diagnose import SCHEMA, measured
from steer_eval.transfer.heldout import PairedRows
from steer_eval.transfer.produce import produce_carried
from steer_eval.transfer.protocol import PLAIN, PROTOCOLS

FEATURES, K, LAYER, WIDTH = 12, 3, 3, 4
SAE = {
    "model": "tiny",
    "layer": LAYER,
    "features": FEATURES,
    "k": K,
    "text": {"files": ["documents.jsonl"]},
    "tokens": 4000,
    "table": {"coefficient": 2, "top": 6},
}
TRANSFER = {
    "source": {"model": "tiny", "layer": LAYER},
    "target": {"model": "tiny", "layer": 1},
    "text": {"files": ["documents.jsonl"]},
    "coefficient": 2,
    "words": 200,
    "draws": 19,
}
COMPARISON = {
    "model": "tiny",
    "layer": LAYER,
    "coefficient": 2,
    "stack": [1, LAYER],
    "features": 2,
    "transfer": "tiny_L3_to_tiny_L1",
    "prompts": 2,
}
RATIOS = {"addition": 2.4, "anchor": 1.2, "stack": 4.0, "patch": 1.1, "features": 1.8}
QUALITY = {
    "held_out_fvu": 0.218437,
    "held_out_l0": 2.75,
    "held_out_tokens": 400,
    "sinks_left_out": 3,
    "cross_entropy": 3.1,
    "cross_entropy_sae": 3.426,
    "excess_cross_entropy": 0.326,
    "cross_entropy_mean_ablation": 8.2,
    "cross_entropy_tokens": 300,
    "dead_share": round(1 / FEATURES, 6),
    "training_tokens": 3600,
}
_SCRATCH = TemporaryDirectory(prefix="steer-eval-whole-", ignore_cleanup_errors=True)


def whole_document(**changes: Any) -> dict[str, Any]:
    """What `study.yaml` says, as a value."""
    # Copied, for what is shared would be written as an alias.
    parts = json.loads(json.dumps({"saes": [SAE], "transfers": [TRANSFER], "comparisons": [COMPARISON]}))
    return {**document(claims=changes.pop("claims", ())), **parts, **changes}


def whole(folder: Path) -> OnDisk:
    """A clean study with all parts in a folder; a copy of one that is built once."""
    place = OnDisk(folder / "persona", folder / "persona-data")
    pristine = _pristine()
    shutil.copytree(pristine.model, place.model)
    shutil.copytree(pristine.data, place.data)
    return place


@cache
def _pristine() -> OnDisk:
    place = build(Path(_SCRATCH.name))
    write_study(place.model, whole_document())
    study, published = place.study(), place.results()
    write_sae(place.model)
    write_table(place.model, published)
    write_transfer(study, place)
    write_comparison(place.data, "tiny", comparison_rows(study, place.results(), place.model))
    place.seal()
    return place


def sae() -> TopKSae:
    """The SAE, with what `sae train` records."""
    recorded = {"method": "top-k", **recorded_of_plan(sae_plan(SAE)), "dtype": "float32", "sink_norm": "100.0"}
    return replace(random_sae(WIDTH, FEATURES, K, layer=LAYER), provenance={**recorded, "quality": json.dumps(QUALITY)})


def write_sae(repo: Path) -> None:
    """The SAE's folder."""
    random = torch.Generator().manual_seed(1)
    frequency = 0.3 * torch.rand(FEATURES, generator=random) + 0.01
    maximum = 5 * torch.rand(FEATURES, generator=random) + 1
    frequency[-1] = maximum[-1] = 0
    write_saelens(repo / folder_name("tiny", LAYER), sae())
    write_feature_activity(repo / folder_name("tiny", LAYER), FeatureActivity(maximum, frequency), tokens=3600)


def activity(seed: int, *, raised: float = 0.0) -> Activity:
    """What features did on one text per prompt, of enough prompts for intervals."""
    random = np.random.Generator(np.random.Philox(seed))
    tokens = np.array([9, 11, 10, 8, 12, 9, 10, 10])
    firing = random.integers(0, 5, size=(len(tokens), FEATURES))
    means = np.where(firing > 0, random.random(firing.shape) + raised * np.arange(FEATURES), 0.0)
    return Activity(means, firing, tokens)


def write_table(repo: Path, published: Results) -> None:
    """The feature table."""
    base = activity(0)
    conditions = Conditions(base, activity(1, raised=0.5), activity(2, raised=0.4), activity(3), activity(4))
    contexts = {feature: (Context("The old ", "door", " was\nshut.", 2.5),) for feature in range(FEATURES)}
    vector = published.vectors["tiny", LAYER].values
    table = feature_table(sae(), conditions, vector, coefficient=2.0, top=6, seed=0, contexts=contexts)
    write_json(repo / features_file("tiny", LAYER), table)


def write_transfer(study: Study, place: OnDisk) -> None:
    """The maps, what they carry, and the diagnostics."""
    [plan] = study.transfers
    random = np.random.Generator(np.random.Philox(5))
    source = random.standard_normal((60, WIDTH))
    target = source @ random.standard_normal((WIDTH, WIDTH)) + 0.1 * random.standard_normal((60, WIDTH))
    lines = PairedRows(source, target, np.repeat(np.arange(12), 5))
    published = place.results()
    noise = 0.1 * random.standard_normal((4, WIDTH))
    noise -= noise.mean(axis=0)
    pairs = [published.vectors["tiny", layer].values.astype(np.float64) + noise for layer in (LAYER, 1)]
    ends = [
        {
            "model": "tiny", "base_model": "lab/tiny-base", "weights_sha256": HEX, "layer": layer,
            "hidden_size": WIDTH, "split_half_cosine": 0.9,
        }
        for layer in (LAYER, 1)
    ]  # fmt: skip
    protocols = {name: measured(PROTOCOLS[name], lines, *pairs, seed=0, draws=19) for name in (plan.protocol, PLAIN)}
    texts = read_jsonl(place.data / "contrast_pairs.jsonl", schema="contrast_pair")
    digest = pairs_digest([ContrastPair(*(each.value[key] for key in ("scenario", "angry", "calm"))) for each in texts])
    write_json(
        place.model / plan.diagnostics_file,
        {
            "schema": SCHEMA,
            "source": ends[0],
            "target": ends[1],
            "plan": plan.to_json(),
            "text_sha256": HEX,
            "pairs": {"n": len(pairs[0]), "sha256": digest},
            "protocols": protocols,
        },
    )
    fitters = PROTOCOLS[plan.protocol].fitters(seed=0)
    fitted = {kind: fitter(lines.source, lines.texts)(lines.target) for kind, fitter in fitters.items()}
    ridge, rotation = fitted["ridge"], fitted["procrustes"]
    scale = rotation.settings["scale"]
    narrow = np.float32
    maps = TransferMap(
        ridge=ridge.matrix.astype(narrow),
        intercept=(ridge.target_mean - ridge.source_mean @ ridge.matrix).astype(narrow),
        orthogonal=(rotation.matrix / scale).astype(narrow),
        layer_large=LAYER,
        layer_small=1,
        alpha=ridge.settings["alpha"],
        centring=Centring(rotation.source_mean.astype(narrow), rotation.target_mean.astype(narrow), scale),
        provenance={
            "method": "transfer",
            "protocol": plan.protocol,
            "text_sha256": HEX,
            "random_seed": "0",
            "random_scale": repr(fitted["random"].settings["scale"]),
            "weights_sha256_large": HEX,
            "weights_sha256_small": HEX,
            "n_rows": "60",
            "n_texts": "12",
        },
    )
    write_transfer_map(place.model / plan.map_file, maps)
    produce_carried(plan, published, repo=place.model)


def comparison_rows(study: Study, published: Results, repo: Path) -> list[SweepRow]:
    """All rows of the comparison; texts of the unsteered model and of the no-op patch are the same."""
    plan = study.comparison("tiny")
    assert plan is not None
    known = Comparison(study, plan, None, published, repo, PROMPTS[0])  # type: ignore[arg-type]
    return [_compared(study, cell, known) for cell in comparison_cells(study, "tiny")]


def _compared(study: Study, cell: Cell, known: Comparison) -> SweepRow:
    treatment = known.treatment(cell)
    still = cell.variant in ("unsteered", "patch-identity")
    ratio = 1.0 if still else 1.05 if cell.label == "random" else RATIOS.get(cell.variant or "", 1.5)
    # A plain cell of the sweep, so that its plan asks for texts; its texts are the sweep's where the sweep has it.
    like = replace(cell, label="steered", variant=None)
    if still or (cell.variant, cell.label) == ("anchor", "steered"):
        like = next(swept for swept in planned_cells(study, "tiny") if swept.label == ("zero" if still else "anchor"))
    made = row(study, like, ratio, spread=0.0 if still else 0.2)
    texts = made.generations[: COMPARISON["prompts"]]
    base = np.array(TOKENS) * np.log(BASE_PPL)
    return replace(
        made,
        cell=cell,
        generations=texts,
        system_prompt=treatment.system,
        edits=treatment.to_json(),
        corpus_after=None if treatment.after is None else 0,
        base_sentence_nll=None if treatment.after is None else base,
    )
