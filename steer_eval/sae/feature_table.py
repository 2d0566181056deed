"""The feature table of a cell: which features steering changes, and why.

Invariant: a row keeps apart what is often taken together:

- `delta`, the change from the unsteered texts to the steered ones: text and steering at once;
- `forced_delta`, the change on the *same* unsteered text when it is read under the edit: steering alone;
- `random_delta` and `random_forced_delta`, the same two for a random direction of the vector's norm: what any push
  does;
- `predicted`, `coefficient * <w_enc, vector>`: what the vector alone adds to the feature before anything is computed,
  which at the layer of the SAE itself is most of `forced_delta`.

Features are ranked by `|delta| * |w_dec|`, the length of the change that the feature makes in the residual stream, as
activations of decoders with other norms can't be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.formats.sae import TopKSae
from steer_eval.sae.contexts import Context
from steer_eval.sae.feature_statistics import CONFIDENCE, DRAWS, INTERVAL, RESAMPLES, Activity, Change, paired_change

FORMAT = "steer-eval/features/1"


@dataclass(frozen=True, eq=False)
class Conditions:
    """Activity under each condition, on the same prompts.

    Args:
        base: Unsteered texts, no edit.
        steered: The cell's texts under its edit.
        forced: Unsteered texts read under the cell's edit.
        random: Texts of the random direction under its edit; None where there are none.
        random_forced: Unsteered texts read under the random direction's edit.
        pushed: Places of the prompts that `random` has texts of; None for all of them.
    """

    base: Activity
    steered: Activity
    forced: Activity
    random: Activity | None
    random_forced: Activity
    pushed: tuple[int, ...] | None = None


def feature_table(
    sae: TopKSae,
    conditions: Conditions,
    vector: NDArray[np.float32],
    *,
    coefficient: float,
    top: int,
    seed: int,
    contexts: Mapping[int, Sequence[Context]] | None = None,
) -> dict[str, Any]:
    """The table as it is published (`schemas/features.schema.json`).

    Args:
        sae: The SAE.
        conditions: Activity of its features.
        vector: Steering vector of the cell, `[hidden_size]`.
        coefficient: Its coefficient.
        top: Rows.
        seed: Decides resamples.
        contexts: Top activating contexts, by feature.
    """
    changes = _changes(conditions, seed)
    norms = sae.w_dec.float().norm(dim=1).double().numpy()
    predicted = coefficient * (vector.astype(np.float64) @ sae.w_enc.double().numpy())
    rows = []
    for feature in ranked(sae, conditions, top=top):
        row: dict[str, Any] = {
            "feature_id": feature,
            "delta": _number(changes["delta"].delta[feature]),
            "steered_mean": _number(conditions.steered.mean[feature]),
            "base_mean": _number(conditions.base.mean[feature]),
            "steered_freq": _number(conditions.steered.prompt_frequency[feature]),
            "base_freq": _number(conditions.base.prompt_frequency[feature]),
            "steered_token_freq": _number(conditions.steered.token_frequency[feature]),
            "base_token_freq": _number(conditions.base.token_frequency[feature]),
            "decoder_norm": _number(norms[feature]),
            "effect": _number(abs(changes["delta"].delta[feature]) * norms[feature]),
            "predicted": _number(predicted[feature]),
        }
        for name, change in changes.items():
            row[name] = _number(change.delta[feature])
            row[f"{name}_interval"] = _interval(change.low[feature], change.high[feature])
            row[f"{name}_q"] = _number(change.q[feature])
        if contexts:
            row["contexts"] = [context.to_json() for context in contexts.get(feature, ())]
        rows.append(row)
    return {
        "format": FORMAT,
        "model": sae.model,
        "layer": sae.layer,
        "coef": coefficient,
        "n_prompts": len(conditions.base.tokens),
        **_random_prompts(conditions),
        "n_tokens": {"base": int(conditions.base.tokens.sum()), "steered": int(conditions.steered.tokens.sum())},
        "n_features": sae.d_sae,
        "discoveries": {name: int((change.q <= 1 - CONFIDENCE).sum()) for name, change in changes.items()},
        "statistics": {
            "interval": CONFIDENCE,
            "interval_kind": INTERVAL,
            "resamples": RESAMPLES,
            "draws": DRAWS,
            "seed": seed,
            "q": "Benjamini-Hochberg over all features, of the paired sign-flip test over prompts",
        },
        "top_features": rows,
    }


def ranked(sae: TopKSae, conditions: Conditions, *, top: int) -> list[int]:
    """The features that change most, by `|delta| * |w_dec|`; ties go to the lower index."""
    delta = conditions.steered.mean - conditions.base.mean
    effect = np.abs(delta) * sae.w_dec.float().norm(dim=1).double().numpy()
    return [int(feature) for feature in np.argsort(-effect, kind="stable")[:top]]


def _changes(conditions: Conditions, seed: int) -> dict[str, Change]:
    base = conditions.base.means
    # Tests are paired: the random direction's texts stand against the unsteered ones of their own prompts.
    of_pushed = base if conditions.pushed is None else base[list(conditions.pushed)]
    against = {
        "delta": (base, conditions.steered),
        "forced_delta": (base, conditions.forced),
        "random_delta": (of_pushed, conditions.random),
        "random_forced_delta": (base, conditions.random_forced),
    }
    return {
        name: paired_change(means, activity.means, seed=seed)
        for name, (means, activity) in against.items()
        if activity is not None
    }


def _random_prompts(conditions: Conditions) -> dict[str, int]:
    """How many prompts the texts of the random direction are of, where these are not all."""
    if conditions.random is None or len(conditions.random.tokens) == len(conditions.base.tokens):
        return {}
    return {"n_random_prompts": len(conditions.random.tokens)}


def _interval(low: float, high: float) -> list[float] | None:
    """An interval, None where the prompts give none."""
    return None if np.isnan(low) else [_number(low), _number(high)]


def _number(value: float) -> float:
    """As many digits as float32 sums carry, and one for differences; more would differ between machines."""
    return float(f"{float(value):.8g}")
