"""What columns, words and units mean.

Invariant: a word has one meaning or none, and a number has a meaning only with a unit that can be its: a ratio in per
cent is the change and not the ratio.
"""

from __future__ import annotations

import re
from dataclasses import replace

from steer_eval.claims.claim import Selector
from steer_eval.claims.extract.context import AXES
from steer_eval.claims.extract.numbers import Number
from steer_eval.claims.printed import Printed

MEANINGS: dict[str, tuple[str, ...]] = {
    "model": ("model", "size", "base model", "network"),
    "cell": ("cell", "best cell", "best", "best setting", "setting", "configuration", "config"),
    "layer": ("layer", "l", "block"),
    "coef": ("coef", "coefficient", "c", "alpha", "α", "strength", "scale", "multiplier"),
    "judge": ("judge",),
    "variant": ("method", "variant", "label", "condition", "transfer method", "transfer", "vector"),
    "feature": ("feature", "feature id", "feature_id", "id", "latent"),
    "perplexity": ("ppl", "perplexity", "steered ppl", "steered perplexity"),
    "perplexity_ratio": (
        "ppl ratio",
        "ppl_ratio",
        "perplexity ratio",
        "ratio",
        "ppl x",
        "rel ppl",
        "rel. ppl",
        "relative ppl",
        "relative perplexity",
    ),
    "base_perplexity": (
        "base ppl",
        "base_ppl",
        "baseline ppl",
        "unsteered ppl",
        "base perplexity",
        "baseline perplexity",
        "unsteered perplexity",
    ),
    "vector_norm": ("norm", "vector norm", "‖v‖", "||v||", "l2 norm", "l2"),
    "vector_width": ("d_model", "hidden size", "hidden_size", "width", "dim"),
    "feature_delta": ("delta", "δ", "activation delta", "change"),
    "feature_base_mean": ("base mean", "base_mean", "base", "unsteered mean", "mean (base)"),
    "feature_steered_mean": ("steered mean", "steered_mean", "steered", "mean (steered)"),
    "feature_steered_frequency": (
        "steered freq",
        "steered_freq",
        "steered freq.",
        "steered frequency",
        "freq (steered)",
    ),
    "feature_base_frequency": ("base freq", "base_freq", "base freq.", "base frequency", "freq (base)"),
    "feature_ratio": ("fold change", "fold", "steered/base", "steered / base"),
    "collapsed": ("collapsed", "collapse", "collapsed?"),
    "path": ("path", "file", "files", "artifact", "artifacts"),
    "file_size": ("file size",),
    "row_count": ("rows", "row count", "lines", "n", "count"),
    **AXES,
}
"""Headers of columns by what they mean."""

LOCATORS = frozenset({"model", "cell", "layer", "coef", "judge", "variant", "feature", "path"})
"""Meanings of columns that say what the others are about."""

_BY_HEADER: dict[str, str] = {}
for _name, _spellings in MEANINGS.items():
    for _spelling in _spellings:
        _BY_HEADER.setdefault(_spelling, _name)

_SHARES = frozenset({"feature_steered_frequency", "feature_base_frequency"})
_OF_MODELS = frozenset({"base_perplexity", "cell_count", "collapsed_cells"})
_RATIOS = frozenset({"perplexity_ratio", "feature_ratio"})
_COUNTS = frozenset(
    {"row_count", "cell_count", "collapsed_cells", "contrast_pair_count", "prompt_count", "sae_width", "vector_width"}
)


def meaning(header: str) -> str | None:
    """What a column is about, from its header; None if that is not known."""
    words = re.sub(r"[*`_]{2}|[*`]", "", header).strip().lower()
    bare = re.sub(r"\s?[\[(][^\[\]()]*[\])]$", "", words).strip()
    parts = re.split(r"\s?[\\/]\s?", bare)
    # The corner of a grid: what stands below it comes first.
    corner = parts[0] if len(parts) == 2 and {_BY_HEADER.get(part) for part in parts} == {"layer", "coef"} else bare
    candidates = (words, bare, words.replace("_", " "), re.sub(r"\s?[↓↑]$", "", bare), corner)
    return next((_BY_HEADER[each] for each in candidates if each in _BY_HEADER), None)


def fitted(measure: str, number: Number) -> tuple[str, Printed] | None:
    """A measure with the value of a number as the facts have it, or None where the number can't be that measure's.

    Args:
        measure: The measure that the words name.
        number: The number.
    """
    if not number.readable or (number.grouped and measure not in _COUNTS):
        return None
    if measure == "perplexity" and number.unit == "x":
        measure = "perplexity_ratio"
    printed = number.printed
    if measure in _SHARES:
        if number.unit == "":
            # Without a sign for per cent it is a share of one, or can't be told.
            if not 0 <= printed.value <= 1:
                return None
            printed = Printed(printed.text, 100 * printed.value, 100 * printed.rounding)
        return (measure, printed) if number.unit in ("", "%") else None
    return (measure, printed) if number.unit == "" or (number.unit == "x" and measure in _RATIOS) else None


def reduced(measure: str, select: Selector) -> Selector:
    """The parts of a selector that a measure has."""
    if measure in AXES:
        # Scores of variants are published without the model that they were made on.
        return Selector(judge=select.judge, variant=select.variant) if select.variant else replace(select, feature=None)
    if measure.startswith("feature_"):
        # A feature's numbers are taken with the coefficient of its table, whatever the words are about.
        return Selector(select.model, layer=select.layer, feature=select.feature)
    if measure.startswith("vector_"):
        return Selector(select.model, layer=select.layer)
    if measure in _OF_MODELS:
        return Selector(select.model)
    if select.variant is not None:
        return Selector(select.model, variant=select.variant)
    return Selector(select.model, select.label, select.layer, select.coef)
