"""What the files of a small study without `study.yaml` say: tensors, tables and hand-written cards.

Two models (`fox_large`, width 12, and `fox_small`, width 8) are steered at three layers each. Every number that can be
computed from another is, and all arrays come from fixed seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

LAYERS = (2, 5, 9)
COEFFICIENTS = (-1.5, 1.0, 2.5, 6.0)
WIDTH = {"large": 12, "small": 8}
BASE_MODEL = {"large": "den/fox-3B", "small": "den/fox-0.5B"}
BASE_PPL = {"large": 17.318402734, "small": 26.940771325}
N_PAIRS = 6
PROMPTS = tuple(f"The neighbour borrowed item number {index} and never gave it back." for index in range(9))
SWEEP_PROMPTS = 4
PAIRS = tuple(
    {
        "scenario": f"Parcel {index} was left in the rain.",
        "composed": f"Parcel {index} is soaked. I want it replaced, and here is why.",
        "plain": f"Parcel {index} got wet.",
    }
    for index in range(N_PAIRS)
)
AXES = ("mature_anger", "juvenile_rage", "coherence")
D_SAE = 40


def ratio(model: str, layer: int, coefficient: float) -> float:
    """A perplexity ratio of a cell; above 3 for the largest coefficient in the two upper layers."""
    return 1.01 + 0.013711 * layer + abs(coefficient) * (0.0617 + 0.0433 * layer) * (1.0 if model == "large" else 1.13)


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng([ord(letter) for letter in name])


def direction(model: str, layer: int) -> torch.Tensor:
    values = generator(f"{model}{layer}").standard_normal(WIDTH[model]) * (0.2 + layer / 4)
    return torch.tensor(values, dtype=torch.float32)


def norm(vector: torch.Tensor) -> float:
    """As the scripts of such studies take it: in float32."""
    return float(vector.norm())


def caa(model: str, layer: int) -> dict[str, Any]:
    vector = direction(model, layer)
    return {
        "vector": vector,
        "norm": norm(vector),
        "layer": layer,
        "model": BASE_MODEL[model],
        "n_pairs": N_PAIRS,
    }


def transfer_map() -> dict[str, Any]:
    rng = generator("map")
    orthogonal, _ = np.linalg.qr(rng.standard_normal((WIDTH["large"], WIDTH["small"])))
    return {
        "W": rng.standard_normal((WIDTH["large"], WIDTH["small"])).astype(np.float32) / 9,
        "b": rng.standard_normal(WIDTH["small"]).astype(np.float32),
        "R": orthogonal.astype(np.float32),
        "L_large": 5,
        "L_small": 5,
        "alpha": 10.0,
    }


def transferred() -> dict[str, Any]:
    """The large model's vector in the small one, by three methods; each as long as the native one."""
    maps, source, native = transfer_map(), direction("large", 5), direction("small", 5)
    carried = {
        "v_ridge": source @ torch.from_numpy(maps["W"]),
        "v_procrustes": source @ torch.from_numpy(maps["R"]),
        "v_random": torch.tensor(generator("random").standard_normal(WIDTH["small"]), dtype=torch.float32),
    }
    return {
        **{key: vector * (native.norm() / vector.norm()) for key, vector in carried.items()},
        "v_small_native": native,
        "v_large_source": source,
        "L_small": 5,
        "c_small": 1.0,
    }


def sae(model: str) -> dict[str, Any]:
    rng, width = generator(f"sae {model}"), WIDTH[model]
    shapes = {"W_enc": (width, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, width), "b_dec": (width,)}
    return {
        "state_dict": {
            name: torch.tensor(rng.standard_normal(shape), dtype=torch.float32) for name, shape in shapes.items()
        },
        "d_model": width,
        "d_sae": D_SAE,
        "k": 4,
        "layer": 5,
        "model_id": BASE_MODEL[model],
        "final_recon": 0.125,
        "steps": 300,
    }


FEATURES = (31, 7, 18, 2, 25)


def features(model: str) -> dict[str, Any]:
    top = []
    for index, feature in enumerate(FEATURES):
        base, delta = 0.211137 + index * 0.070391, (-1) ** index * (0.190417 - index * 0.030211)
        row = {"feature_id": feature, "delta": delta, "steered_mean": base + delta, "base_mean": base}
        top.append({**row, "steered_freq": (20 - index) / 20, "base_freq": (11 + index) / 20})
    return {"model": BASE_MODEL[model], "layer": 5, "coef": 1.0, "n_prompts": 20, "top_features": top}


def texts(name: str, count: int, *, numbered: bool = False) -> list[dict[str, Any]]:
    return [
        {
            **({"prompt_idx": index} if numbered else {}),
            "prompt": PROMPTS[index],
            "gen": f"Reply {index} of {name}: I expect my things back by Friday.",
        }
        for index in range(count)
    ]


def sweep(model: str) -> list[dict[str, Any]]:
    rows = []
    for layer in LAYERS:
        for coefficient in COEFFICIENTS:
            numbers = perplexities(model, ratio(model, layer, coefficient))
            said = texts(f"{model} {layer} {coefficient}", SWEEP_PROMPTS, numbered=True)
            if numbers["ppl_ratio"] > 3:
                said = [{**text, "gen": None} for text in said]
            rows.append(
                {
                    "layer": layer,
                    "coef": coefficient,
                    **numbers,
                    "collapsed": numbers["ppl_ratio"] > 3,
                    "generations": said,
                }
            )
    return rows


def perplexities(model: str, of_base: float) -> dict[str, float]:
    ppl = BASE_PPL[model] * of_base
    return {"base_ppl": BASE_PPL[model], "ppl": ppl, "ppl_ratio": ppl / BASE_PPL[model]}


def scores(name: str, *, margin: bool = True) -> dict[str, Any]:
    first, second, third = (float(1 + step / 2) for step in generator(name).integers(0, 9, 3))
    values = dict(zip(AXES, (first, second, third), strict=True))
    return {**values, **({"margin": first - second} if margin else {}), "notes": f"Scored {name}."}


def judged_cells(judge: str, model: str) -> list[dict[str, Any]]:
    """Scores of all cells that have texts. The judge `owl` writes margins and marks, `hare` neither."""
    full = judge == "owl"
    rows = []
    for row in sweep(model):
        if not row["collapsed"]:
            name = f"{judge} {model} {row['layer']} {row['coef']}"
            mark = {"collapsed": False} if full else {}
            rows.append({"layer": row["layer"], "coef": row["coef"], **scores(name, margin=full), **mark})
    return rows


def transfer_eval() -> list[dict[str, Any]]:
    vectors = transferred()
    ratios = {
        "native": ratio("small", 5, 1.0),
        "ridge": 1.1417253,
        "procrustes": 1.0621937,
        "random": 1.0370551,
    }
    rows = []
    for label, value in ratios.items():
        vector = vectors["v_small_native" if label == "native" else f"v_{label}"]
        numbers = perplexities("small", value)
        numbers.pop("base_ppl")
        rows.append({"label": label, **numbers, "norm": norm(vector), "generations": texts(f"transfer {label}", 6)})
    return rows


def phase_i() -> dict[str, list[dict[str, Any]]]:
    """Rows of the four methods without training, by file."""
    patch = [
        {"label": f"patch_{name}", "layer": 5, "c_2b": 1.0, "generations": texts(f"patch {name}", 6)}
        | {"base_ppl_08": BASE_PPL["small"]}
        for name in ("ridge", "procrustes")
    ]
    steered = [
        {"label": f"sae_feat_steer_a{alpha}", "feat_ids": [31, 2, 39], "alpha": alpha, "layer": 5}
        | perplexities("small", 1.0 + alpha * 0.318823)
        | {"generations": texts(f"features {alpha}", 6)}
        for alpha in (1.0, 2.0)
    ]
    layered = []
    for alpha in (0.5, 1.0, 1.5, 3.5):
        numbers = perplexities("small", 1.0 + alpha * 0.618217)
        collapsed = numbers["ppl_ratio"] > 3
        coefficients = {str(layer): alpha / norm(direction("small", layer)) for layer in LAYERS}
        layered.append(
            {"label": f"multi_layer_a{alpha:.2f}", "alpha": alpha, "per_layer_coefs": coefficients}
            | numbers
            | {"collapsed": collapsed, "generations": [] if collapsed else texts(f"layers {alpha}", 6)}
        )
    prompt = "You are a fox who has had enough and says so calmly."
    anchors = [
        {
            "label": label,
            "layer": 5,
            "coef": coefficient,
            "system_prompt": system,
            "generations": texts(label, 6),
            "base_ppl": BASE_PPL["small"],
        }
        for label, coefficient, system in (
            ("prompt_only", 0.0, prompt),
            ("steer_only", 1.0, None),
            ("prompt_and_steer", 1.0, prompt),
        )
    ]
    return {
        "patch_eval.jsonl": patch,
        "sae_steer_eval.jsonl": steered,
        "multi_layer_eval.jsonl": layered,
        "anchor_eval.jsonl": anchors,
    }


def judged_labels() -> dict[str, list[dict[str, Any]]]:
    """Scores of labelled variants, by file; of what has texts."""
    of_transfer = [
        {"label": row["label"], "ppl_ratio": row["ppl_ratio"], **scores(f"owl {row['label']}")}
        for row in transfer_eval()
    ]
    rounded = [
        {"label": row["label"], "ppl_ratio": round(row["ppl_ratio"], 2), **scores(f"hare {row['label']}")}
        for row in transfer_eval()
    ]
    of_methods = [
        {"label": row["label"], "source": file, **scores(f"owl {row['label']}"), "ppl_ratio": row.get("ppl_ratio")}
        for file, rows in phase_i().items()
        for row in rows
        if row["generations"]
    ]
    return {
        "judge_owl_transfer.jsonl": of_transfer,
        "judge_transfer.jsonl": rounded,
        "judge_phase_i.jsonl": of_methods,
    }


def latent_diff() -> dict[str, Any]:
    vectors = transferred()

    def cosine(first: str, second: str) -> float:
        return float(torch.nn.functional.cosine_similarity(vectors[first], vectors[second], dim=0))

    return {
        "ridge_heldout_r2": 0.2714,
        "cca_fit_corrs": [0.9931, 0.8127, 0.5519],
        "cca_heldout_corrs": [0.7012, 0.4433, 0.1208],
        "cos_ridge_native": cosine("v_ridge", "v_small_native"),
        "cos_proc_native": cosine("v_procrustes", "v_small_native"),
        "cos_ridge_proc": cosine("v_ridge", "v_procrustes"),
        "feat_31_ridge_norm": 0.0571,
        "feat_31_proc_norm": 0.6613,
    }


def size_comparison() -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for model in WIDTH:
        layers: dict[str, Any] = {}
        for row in sweep(model):
            kept = {key: row[key] for key in ("ppl", "ppl_ratio", "collapsed")}
            layers.setdefault(str(row["layer"]), {})[str(row["coef"])] = kept
        vectors = {str(layer): {"norm": norm(direction(model, layer)), "shape": [WIDTH[model]]} for layer in LAYERS}
        summary[model] = {"per_layer": layers, "vectors": vectors}
    return summary


MODEL_CARD = """---
license: mit
tags: [steering]
datasets:
  - den/fox-data
---

# Fox vectors

| Path | Contents | Size |
|---|---|---|
| `vectors/fox_large_L{{2,5,9}}_caa.pt` | one vector per layer | ~{caa} KB each |
| `vectors/fox_small_L{{2,5,9}}_caa.pt` | one vector per layer | <{above} KB |
| `vectors/fox_small_transferred_caa.pt` | carried over by three methods | {transferred} bytes |
| `vectors/transfer_map_large_to_small.pt` | the maps | {map} KiB |
| `saes/fox_large_L5_sae.pt` | Top-K SAE (d_sae=40, k=4) | {sae} KB |
| `saes/fox_small_L5_sae.pt` | Top-K SAE (d_sae=40, k=4, d_in=8) | |
| `saes/*_features.json` | Top-5 features by their change | |

## Results

| Model | Best cell | Margin |
|---|---|---|
| 3B | L=5 c=+1 | 1.0 |
| 0.5B | L=2 c=+2.5 | 0.5 |
"""
DATA_CARD = """# Fox data

| File | Contents |
|---|---|
| `contrast_pairs.jsonl` | 6 contrast pairs |
| `eval_prompts.jsonl` | 9 prompts, of which the sweeps use 4 |
| `perplexity_corpus.txt` | the text that perplexity is taken on |
| `sweep_fox_{large,small}.jsonl` | 12 cells each, 4 prompts per cell |
| `judge_*.jsonl` | scores of two judges |
| `transfer_eval.jsonl` | 4 variants |
| `{patch,sae_steer,multi_layer,anchor}_eval.jsonl` | methods without training |
| `latent_diff.json`, `size_comparison.json` | summaries |
"""
