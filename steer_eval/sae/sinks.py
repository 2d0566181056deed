"""Attention sinks: tokens whose residual is far longer than all others.

Invariant: one rule, one threshold, stated as a multiple of the median norm, wherever sinks are dropped or left alone.

The first token of a text, and sometimes a delimiter, collects attention that no head needs elsewhere (Xiao et al. 2024,
arXiv:2309.17453; Sun et al. 2024, arXiv:2402.17762). Its residual is a constant two orders of magnitude long, which
would dominate any sum of squares.
"""

from __future__ import annotations

from torch import Tensor

SINK_FACTOR = 10.0
"""A residual longer than this many medians is a sink (the cut of dictionary_learning)."""


def sink_norm(norms: Tensor) -> float:
    """The norm above which a residual is a sink.

    Args:
        norms: Norms of the residuals of many tokens, `[tokens]`.
    """
    return SINK_FACTOR * float(norms.float().median())


def is_sink(residuals: Tensor, threshold: float) -> Tensor:
    """Which residuals are sinks, bool `[...]` for `[..., d_in]`."""
    sinks: Tensor = residuals.float().norm(dim=-1) > threshold
    return sinks
