"""What columns, words and units mean.

Invariant: a word has one meaning or none, and a number has a meaning only with a unit that can be its: a ratio in per
cent is the change and not the ratio. Words that would change what is meant are never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    "variant": ("method", "variant", "label", "condition", "transfer method", "transfer", "vector", "map"),
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
    "feature_steered_token_frequency": ("steered token freq", "steered token frequency"),
    "feature_base_token_frequency": ("base token freq", "base token frequency"),
    "feature_forced_delta": ("same-text delta",),
    "feature_random_delta": ("random direction's delta",),
    "feature_predicted": ("from the vector alone",),
    "feature_delta_interval": ("95 % interval of delta",),
    "feature_delta_q": ("q of delta",),
    "perplexity_ratio_interval": ("95 % interval of the ratio",),
    "where": ("where",),
    "texts_changed": ("texts changed",),
    "control_perplexity_ratio": ("control's ppl ratio", "ppl ratio of the control"),
    "control_perplexity_ratio_interval": ("control's 95 % interval",),
    "control_collapsed": ("control collapsed",),
    "control_texts_changed": ("control's texts changed",),
    "control_margin": ("control's margin",),
    "transfer_norm_share": ("norm over native",),
    "sae_width": ("sae features", "d_sae"),
    "sae_k": ("sae k",),
    "sae_training_tokens": ("training tokens",),
    "sae_heldout_fvu": ("held-out fvu",),
    "sae_l0": ("held-out l0",),
    "sae_dead_share": ("dead features", "dead share"),
    "sae_excess_cross_entropy": ("excess cross-entropy", "excess ce"),
    "feature_ratio": ("fold change", "fold", "steered/base", "steered / base"),
    "heldout_r2": (
        "held-out r2",
        "held-out r²",
        "heldout r2",
        "heldout r²",
        "held-out r^2",
        "r² (held-out)",
        "r2 (held-out)",
    ),
    "feature_rank_by_delta": ("rank by delta", "place by delta"),
    "collapsed": ("collapsed", "collapse", "collapsed?"),
    "path": ("path", "file", "files", "artifact", "artifacts"),
    "file_size": ("file size",),
    "row_count": ("rows", "row count", "lines", "n", "count"),
    **AXES,
}
"""Headers of columns by what they mean."""

LOCATORS = frozenset({"model", "cell", "layer", "coef", "judge", "variant", "feature", "path"})
"""Meanings of columns that say what the others are about."""

OF_ITS_CONTROL = "control_"
"""Begins the meaning of a column that is of the control of the method in its row."""

_BY_HEADER: dict[str, str] = {}
for _name, _spellings in MEANINGS.items():
    for _spelling in _spellings:
        _BY_HEADER.setdefault(_spelling, _name)

SHARES = frozenset(
    {
        "feature_steered_frequency",
        "feature_base_frequency",
        "feature_steered_token_frequency",
        "feature_base_token_frequency",
        "sae_dead_share",
    }
)
"""Measures in per cent, which a text may print as a share of one."""
_OF_KINDS = frozenset({"cell_count", "collapsed_cells"})
_OF_TEXTS = frozenset({"contrast_pair_count", "prompt_count"})
_RATIOS = frozenset({"perplexity_ratio", "feature_ratio"})
_COUNTS = frozenset(
    {
        "row_count",
        "cell_count",
        "collapsed_cells",
        "contrast_pair_count",
        "prompt_count",
        "sae_width",
        "sae_training_tokens",
        "vector_width",
    }
)


_ASIDE = re.compile(r"\s?[\[(](?P<aside>[^\[\]()]*)[\])]$")
_AXES = frozenset(AXES)
_FACTORS = frozenset({"ratio", "x", "×", "relative", "rel", "rel."})
_ASIDES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_FACTORS, _RATIOS),
    **dict.fromkeys(("1-5", "1–5", "1 to 5"), _AXES),
    **dict.fromkeys(("0-1", "0–1", "%", "share of prompts", "of prompts"), SHARES),
    **dict.fromkeys(("l2", "‖v‖", "||v||"), frozenset({"vector_norm"})),
    **dict.fromkeys(("0-indexed", "0-based", "from 0"), frozenset({"layer"})),
    "steered": frozenset({"perplexity", "perplexity_ratio", *_AXES}),
    "per token": frozenset({"perplexity", "base_perplexity"}),
}
"""What may stand in brackets behind a header without changing it, and behind which meanings."""

_QUALIFYING = re.compile(
    r"\b(?:random(?:ly|i[sz]ed)?|controls?|human|seeds?|re-?runs?|wikitext[\w-]*|(?:un-?)?normali[sz]ed|residual|"
    r"gradients?|unit|prompt(?:ed|ing)?|held-out|anchor(?:ed)?|baselines?|zero|shuffled|minus|divided by|"
    r"differences?)\b",
    re.IGNORECASE,
)
_COMPARING = re.compile(r"\b(?:over|relative to|divided by|minus|compared)\b", re.IGNORECASE)
_WITH_UNSTEERED = re.compile(r"\b(?:unsteered|base model|without steering)\b", re.IGNORECASE)
_MEASURES_OF_GRIDS = {
    "perplexity_ratio": r"(?:ppl|perplexity)[ _-]ratio|relative (?:ppl|perplexity)",
    "perplexity": r"(?:ppl|perplexity)(?![ _-]ratio)(?<!relative ppl)(?<!relative perplexity)",
    **{axis: "|".join(map(re.escape, spellings)) for axis, spellings in AXES.items()},
}
_NORMS = re.compile(r"\b(?:l2 |vector )?norms?\b(?!-| of the residual)", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:\.[0-9]+)?|[+&]")


def qualifying(words: str) -> set[str]:
    """The words of a text that may change what the numbers beside it are, in lower case and without a plural."""
    return {match[0].lower().removesuffix("s") for match in _QUALIFYING.finditer(words)}


def compares(words: str) -> bool:
    """Whether a text sets one thing against another."""
    return bool(_COMPARING.search(words))


def measure_of_grid(before: str, headings: Sequence[str]) -> str | None:
    """The one measure that the words before a grid and the nearest heading that names any agree on.

    Args:
        before: The words before it.
        headings: The headings that it stands under, the innermost first.
    """
    caption, heading = _measures(before), next(filter(None, map(_measures, headings)), set())
    if compares(before) or compares(headings[0] if headings else ""):
        # `Perplexity under the one over that under the other` is a ratio, and is taken for one only if it is called so.
        ratio = "perplexity_ratio" in caption | heading and caption | heading <= {"perplexity_ratio", "perplexity"}
        return "perplexity_ratio" if ratio and _WITH_UNSTEERED.search(before) else None
    named = caption | heading
    return named.pop() if len(named) == 1 else None


def norms_of_models(before: str, headings: Sequence[str]) -> bool:
    """Whether the words before a table of models, or else its heading, speak of norms and of no other measure.

    Args:
        before: The words before it.
        headings: The headings that it stands under, the innermost first.
    """
    words = next((each for each in (before, *headings[:1]) if _NORMS.search(each)), "")
    return bool(words) and not _measures(f"{before} {headings[0] if headings else ''}") and not compares(words)


def _measures(words: str) -> set[str]:
    found = _MEASURES_OF_GRIDS.items()
    return {name for name, pattern in found if re.search(rf"\b(?:{pattern})\b", words, re.IGNORECASE)}


def is_explained(rest: str, known: str = "") -> bool:
    """Whether what is left of a cell, once what was understood is taken away, says no more than some known words.

    Args:
        rest: What is left.
        known: Words that say nothing new.
    """
    allowed = {"cell", "model", "the", "at", "steered", "best"} | {word.lower() for word in _WORD.findall(known)}
    return all(word.lower() in allowed for word in _WORD.findall(rest))


def meaning(header: str) -> str | None:
    """What a column is about, from its header; None if that is not known."""
    words = re.sub(r"[*`_]{2}|[*`]", "", header).strip().lower()
    aside = _ASIDE.search(re.sub(r"\s?[↓↑]$", "", words))
    if aside and words not in _BY_HEADER and (whole := meaning(words[: aside.start()])):
        return _with_aside(whole, aside["aside"].strip())
    parts = re.split(r"\s?[\\/]\s?", words)
    # The corner of a grid: what stands below it comes first.
    corner = parts[0] if len(parts) == 2 and {_BY_HEADER.get(part) for part in parts} == {"layer", "coef"} else words
    candidates = (words, words.replace("_", " "), re.sub(r"\s?[↓↑]$", "", words), corner)
    return next((_BY_HEADER[each] for each in candidates if each in _BY_HEADER), None)


def _with_aside(whole: str, aside: str) -> str | None:
    """What a header means with what stands in brackets behind it."""
    if aside in ("", "↓", "↑", "lower is better", "higher is better") or _BY_HEADER.get(aside) == whole:
        return whole
    if whole == "perplexity" and aside in _FACTORS:
        return "perplexity_ratio"
    if whole == "perplexity" and aside in ("base", "unsteered"):
        return "base_perplexity"
    return whole if whole in _ASIDES.get(aside, ()) else None


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
    if measure in SHARES:
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
    if measure in ("cosine", "heldout_r2"):
        return Selector(variant=select.variant)
    if measure.startswith("feature_"):
        # A feature's numbers are taken with the coefficient of its table, whatever the words are about.
        return Selector(select.model, layer=select.layer, feature=select.feature)
    if measure.startswith(("vector_", "sae_")):
        return Selector(select.model, layer=select.layer)
    if measure.startswith("transfer_"):
        return Selector(variant=select.variant)
    if measure in _OF_TEXTS:
        return Selector()
    if measure == "base_perplexity":
        return Selector(select.model)
    if measure in _OF_KINDS:
        return Selector(select.model, select.label)
    if select.variant is not None:
        return Selector(select.model, variant=select.variant)
    return Selector(select.model, select.label, select.layer, select.coef)
