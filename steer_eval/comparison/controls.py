"""What the random control of each method draws.

Invariant: a control does as much as its method, in a direction, order or choice that was drawn without regard to what
the method is for, and is the same on every machine for the same seed. What is drawn may still mean something: shuffled
words name what the prompt asks for, and other features are features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from steer_eval.comparison.plan import has_other_orders
from steer_eval.digest import sha256_text
from steer_eval.errors import SteerEvalError

NEIGHBOURS = 20
"""A control's feature is drawn among so many that fire nearly as often."""


def generator(seed: int, *parts: object) -> np.random.Generator:
    """A generator for one draw of a comparison, told from the others by what the draw is for."""
    place = int(sha256_text(" ".join(str(part) for part in parts))[:16], 16)
    return np.random.Generator(np.random.Philox(key=[seed, place]))


def shuffled_words(text: str, *, seed: int) -> str:
    """The words of a text in a random order, which is another one wherever there is another one."""
    words = text.split()
    if not has_other_orders(text):
        return " ".join(words)
    random = generator(seed, "words")
    while (order := [words[index] for index in random.permutation(len(words))]) == words:
        pass
    return " ".join(order)


def matched_features(
    frequency: NDArray[np.floating], chosen: Sequence[int], *, barred: Collection[int], seed: int
) -> list[int]:
    """Random features that fire about as often as chosen ones, one for each.

    Args:
        frequency: Share of tokens on which each feature fires, `[features]`.
        chosen: The features to be matched.
        barred: Features that must not be drawn, beside the chosen ones and those that never fire.
        seed: Decides the draw.

    Returns:
        For each chosen feature another one, drawn among the nearest in log frequency, each at most once.

    Raises:
        SteerEvalError: There are not enough features that fire.
    """
    random = generator(seed, "features")
    known = frequency.astype(np.float64)
    logs = np.log(np.maximum(known, np.finfo(np.float64).tiny))
    free = set(np.flatnonzero(known > 0).tolist()) - set(barred) - set(chosen)
    drawn = []
    for feature in chosen:
        nearest = sorted(free, key=lambda other: (abs(logs[other] - logs[feature]), other))[:NEIGHBOURS]
        if not nearest:
            raise SteerEvalError(
                f"no {len(chosen)} features of the SAE fire at all outside its feature table",
                "clamp fewer features, or list fewer in the table",
            )
        drawn.append(int(nearest[int(random.integers(len(nearest)))]))
        free.discard(drawn[-1])
    return drawn


def random_changes(norms: NDArray[np.float64], size: int, *, seed: int, prompt: str) -> NDArray[np.float32]:
    """A change of given norm for each of some tokens, each in a random direction of its own.

    Args:
        norms: Norm of each change, `[tokens]`.
        size: Width of the residual stream.
        seed: Decides the draw, together with the prompt.
        prompt: The prompt that the tokens are of.

    Returns:
        float32 `[tokens, size]`.
    """
    directions = generator(seed, "patch", prompt).standard_normal((len(norms), size))
    directions *= (norms / np.linalg.norm(directions, axis=1))[:, None]
    return directions.astype(np.float32)
