"""How maps between residual streams are fitted.

Invariant: everything that decides a map, beside the models, the layers and the text, stands in its protocol, so that
two protocols differ by values and never by code.

`plain` is the study's own: few sentences, one row per sentence, a fixed ridge penalty, a rotation without centring. It
is there to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from steer_eval.transfer.maps import ALPHAS, Fitter, plain_procrustes_from, procrustes_from, random_from, ridge_from
from steer_eval.transfer.plan import PLAIN

Rows = Literal["words", "texts", "chats"]
"""A row is the residual at the end of a word, the mean over a text without its sinks, or the mean over all tokens of a
chat turn that has the text."""

RANDOM = "random"
KINDS = ("ridge", "procrustes", RANDOM)


@dataclass(frozen=True)
class Protocol:
    """How maps are fitted.

    Args:
        rows: What a row is.
        alphas: Ridge penalties to choose from.
        centred: Whether the rotation is fitted on centred rows, with a scale.
        texts: How many documents of the text, from the first on; None for all.
    """

    rows: Rows
    alphas: tuple[float, ...] = ALPHAS
    centred: bool = True
    texts: int | None = None

    def fitters(self, *, seed: int) -> Mapping[str, Fitter]:
        """How each kind of map is fitted.

        Args:
            seed: Decides the random map.
        """
        ridge: Callable[..., Any] = partial(ridge_from, alphas=self.alphas)
        rotation = procrustes_from if self.centred else plain_procrustes_from
        return dict(zip(KINDS, (ridge, rotation, partial(random_from, seed=seed)), strict=True))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"rows": self.rows, "alphas": list(self.alphas), "centred": self.centred, "texts": self.texts}


RECOMMENDED, SENTENCES = "recommended", "sentences"

PROTOCOLS = {
    RECOMMENDED: Protocol("words"),
    SENTENCES: Protocol("texts"),
    PLAIN: Protocol("chats", alphas=(1.0,), centred=False, texts=30),
}
