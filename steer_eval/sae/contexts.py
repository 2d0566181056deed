"""The places of a text on which a feature fires most.

Invariant: a context is a stretch of one passage, with the token on which the feature fires marked by its place; the
places of one feature are in different passages, so that one repetitive passage does not fill the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steer_eval.formats.sae import TopKSae
from steer_eval.model import LanguageModel
from steer_eval.sae.activations import Activations
from steer_eval.sae.quality import BATCH, fired_features
from steer_eval.sae.sinks import is_sink

BEFORE, AFTER = 12, 4
"""Tokens of the passage that are shown around the place."""


@dataclass(frozen=True)
class Context:
    """One place.

    Args:
        before: Text before the token.
        token: The token's text.
        after: Text after it.
        activation: How strongly the feature fires there.
    """

    before: str
    token: str
    after: str
    activation: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"before": self.before, "token": self.token, "after": self.after, "activation": self.activation}


@torch.no_grad()
def top_contexts(
    lm: LanguageModel, sae: TopKSae, activations: Activations, features: Sequence[int], *, threshold: float, count: int
) -> dict[int, tuple[Context, ...]]:
    """Where some features fire most.

    Args:
        lm: The model, for its tokenizer.
        sae: The SAE.
        activations: Residuals of the text, with its tokens.
        features: The features.
        threshold: Norm above which a residual is a sink; these are left out.
        count: Most contexts per feature.

    Returns:
        Contexts by feature, strongest first.
    """
    wanted = torch.tensor(features)
    strengths = torch.cat([_strengths(sae, batch, wanted, threshold) for batch in activations.batches(BATCH)])
    ids, passages = activations.ids(), activations.sequences()
    found: dict[int, tuple[Context, ...]] = {}
    for column, feature in enumerate(features):
        values = strengths[:, column]
        places: list[int] = []
        for place in values.argsort(descending=True).tolist():
            if len(places) == count or values[place] <= 0:
                break
            if all(passages[place] != passages[other] for other in places):
                places.append(place)
        found[feature] = tuple(_context(lm, ids, passages, place, float(values[place])) for place in places)
    return found


def _strengths(sae: TopKSae, residuals: Tensor, wanted: Tensor, threshold: float) -> Tensor:
    """Activations of some features, `[tokens, features]`."""
    fired = fired_features(sae, residuals)
    values = torch.where(is_sink(residuals, threshold)[:, None], 0.0, fired.values)
    return torch.stack([(values * (fired.features == feature)).sum(dim=1) for feature in wanted], dim=1)


def _context(lm: LanguageModel, ids: Tensor, passages: Tensor, place: int, activation: float) -> Context:
    inside = (passages == passages[place]).nonzero().flatten()
    first, last = int(inside[0]), int(inside[-1])
    before = ids[max(first, place - BEFORE) : place].tolist()
    after = ids[place + 1 : min(last, place + AFTER) + 1].tolist()
    return Context(lm.decode(before), lm.decode([int(ids[place])]), lm.decode(after), activation)
