"""Documents of SAEs, feature tables and transfers, with numbers that are known."""

from __future__ import annotations

from typing import Any

QUALITY = {
    "held_out_fvu": 0.2184,
    "held_out_l0": 31.5,
    "held_out_tokens": 900,
    "sinks_left_out": 7,
    "cross_entropy": 3.75,
    "cross_entropy_sae": 4.0,
    "cross_entropy_mean_ablation": 8.75,
    "cross_entropy_tokens": 640,
    "excess_cross_entropy": 0.25,
    "dead_share": 0.0125,
    "training_tokens": 9000,
}
FEATURE = {
    "feature_id": 7,
    "delta": 1.5,
    "steered_mean": 2.0,
    "base_mean": 0.5,
    "steered_freq": 1.0,
    "base_freq": 0.5,
    "steered_token_freq": 0.75,
    "base_token_freq": 0.125,
    "decoder_norm": 2.0,
    "effect": 3.0,
    "predicted": 1.25,
    "delta_interval": [1.25, 1.75],
    "delta_q": 0.001,
    "forced_delta": 1.125,
    "forced_delta_interval": [1.0, 1.25],
    "forced_delta_q": 0.002,
    "random_delta": -0.25,
    "random_delta_interval": [-0.5, 0.125],
    "random_delta_q": 0.5,
    "random_forced_delta": -0.0625,
    "random_forced_delta_interval": [-0.125, 0.0625],
    "random_forced_delta_q": 0.25,
}
TABLE = {
    "format": "steer-eval/features/1",
    "model": "lab/tiny-base",
    "layer": 2,
    "coef": 2.0,
    "n_prompts": 8,
    "n_tokens": {"base": 64, "steered": 80},
    "n_features": 96,
    "discoveries": {"delta": 40, "forced_delta": 50, "random_delta": 3, "random_forced_delta": 60},
    "statistics": {"interval": 0.95, "resamples": 2000, "draws": 256, "seed": 0, "q": "Benjamini-Hochberg"},
    "top_features": [FEATURE],
}


def tested(value: float, bound: float, p: float) -> dict[str, Any]:
    """A statistic beside its null."""
    return {"value": value, "null_95": bound, "p": p, "draws": 19}


def measured(first: float) -> dict[str, Any]:
    """Every diagnostic of one protocol; all numbers grow with the first one."""
    kinds = ("ridge", "procrustes", "random")
    return {
        "settings": {"rows": "words", "alphas": [1.0], "centred": True, "texts": None},
        "n_rows": 500,
        "n_texts": 60,
        "debiased_cka": tested(first, 0.05, 0.05),
        "svcca": {"rank": 10, **tested(first + 0.01, 0.9, 0.15)},
        "maps": {
            kind: {
                "settings": {"alpha": 10.0},
                "fitted_r2": first + 0.5,
                "held_out_r2": tested(first + number / 10 + 0.02, 0.01, 0.05),
                "cosine_to_native": tested(first + number / 10 + 0.03, 0.02, 0.05),
                "retrieval": {"chance": 0.2, **tested(0.4, 0.4, 0.35)},
                "carried_norm_share": 0.75,
            }
            for number, kind in enumerate(kinds)
        },
    }


def end(model: str, layer: int, agreement: float | None) -> dict[str, Any]:
    """One end of a transfer."""
    return {
        "model": model,
        "base_model": f"lab/{model}-base",
        "weights_sha256": "0" * 64,
        "layer": layer,
        "hidden_size": 48,
        "split_half_cosine": agreement,
    }


DIAGNOSTICS = {
    "schema": "steer-eval/transfer-diagnostics/1",
    "source": end("tiny", 2, 0.9),
    "target": end("other", 1, 0.8),
    "plan": {"protocol": "recommended", "seed": 0},
    "text_sha256": "0" * 64,
    "pairs": {"n": 5, "sha256": "0" * 64},
    "protocols": {"recommended": measured(0.3), "plain": measured(0.1)},
}
