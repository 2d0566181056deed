"""Sentences on how vectors lie to each other, on alignments of two models, and on the place of a feature.

Invariant: a cosine is a claim only where its clause names exactly two vectors: two variants of the data, or two layers
of one model. A number of a map or of correlations must be called held-out or fitted, and a place must say by what.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from steer_eval.claims.claim import Selector, pair_of
from steer_eval.claims.extract.context import Context
from steer_eval.claims.extract.numbers import Number
from steer_eval.claims.printed import Printed

_VERB = r"(?:\s(?:is|was|of|equals|reaches|at|only|just|about|around))*[\s=:≈(*`$_]{0,4}$"
_COSINE = re.compile(r"\bcos(?:ines?)?(?:[ -]similarit(?:y|ies))?\b", re.IGNORECASE)
_COSINE_AFTER = re.compile(r"[*`_]{0,3}\s(?:in )?cosine\b", re.IGNORECASE)
_OF_OTHERS = re.compile(
    r"\b(?:features?|decoders?|encoders?|residuals?|gradients?|logits?|activations?|hidden|embeddings?|distance|mean|"
    r"average|median|at least|between all|expect\w*|would|could|should)\b",
    re.IGNORECASE,
)
_LAYER_PAIR = re.compile(
    r"\blayers?\s?(?P<first>[0-9]{1,4})\s?(?:and|&|vs\.?|to|with)\s(?:layer\s)?(?P<second>[0-9]{1,4})\b"
    r"|\bL\s?=?\s?(?P<one>[0-9]{1,4})\b.{1,24}?\bL\s?=?\s?(?P<other>[0-9]{1,4})\b",
    re.IGNORECASE,
)
_R2 = r"R(?:²|2|\s?\^\s?\{?2\}?|[- ]squared)"
_R2_BEFORE = re.compile(rf"\b{_R2}(?:\s(?:of|for|on)\s(?:the\s)?[a-z][a-z -]{{0,40}})?{_VERB}", re.IGNORECASE)
_R2_AFTER = re.compile(rf"[*`_$]{{0,3}}\s(?:held[- ]?out\s)?{_R2}", re.IGNORECASE)
_HELD_OUT = re.compile(r"\bheld[- ]?out\b", re.IGNORECASE)
_TRAINED = re.compile(r"\b(?:train(?:ing|ed)?|fit(?:ted)?|in-sample)\b", re.IGNORECASE)
_EXPLAINS = re.compile(r"\bexplains?\s[*`_]{0,3}(?:only |just |about )?$", re.IGNORECASE)
_VARIANCE = re.compile(r"[*`_]{0,3}\sof\s(?:the\s)?held[- ]?out\svariance\b", re.IGNORECASE)
_CORRELATION = re.compile(
    rf"\b(?P<which>mean|average|highest|largest|top|lowest|smallest)\s(?P<set>held[- ]?out|fitted)\s"
    rf"(?:canonical|CCA)\scorrelation{_VERB}",
    re.IGNORECASE,
)
_WHICH = {
    **dict.fromkeys(("mean", "average"), "mean"),
    **dict.fromkeys(("highest", "largest", "top"), "highest"),
    **dict.fromkeys(("lowest", "smallest"), "lowest"),
}
_CORRELATIONS = re.compile(r"[*`_]{0,3}\scanonical\scorrelations\b", re.IGNORECASE)
_PENALTY = re.compile(rf"\bridge\s(?:penalty|regulari[sz]ation)(?:\s(?:alpha|λ|lambda))?{_VERB}", re.IGNORECASE)
_RANKS = re.compile(
    r"\b(?:ranks?|ranked|rank(?:ed)?\s(?:number|no\.|#)|place|is (?:the )?(?:number|no\.)?)[\s*`_#=:]{0,4}$",
    re.IGNORECASE,
)
_BY = re.compile(
    r"[*`_]{0,3}(?:\s(?:feature|place|of\s[0-9]{1,4}))?\s(?:by|in)\s(?:its\s|the\s)?(?:steered-vs-base\s|activation\s)*"
    r"(?P<what>(?:absolute |\|)?(?:delta|Δ)|size of (?:its |the )?delta|(?:mean |activation )?ratio|fold change|"
    r"(?:feature )?table)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Aligned:
    """What a number of this kind is: its measure, what that is taken on, and its value."""

    measure: str
    select: Selector
    printed: Printed


def aligned(number: Number, before: str, after: str, clause: str, context: Context) -> Aligned | None:
    """What a number says of an alignment, or of two vectors; None if it is of no such kind.

    Args:
        number: The number.
        before: The words before it.
        after: The words behind it.
        clause: The clause around it.
        context: What the data has.
    """
    if number.unit == "%" and _EXPLAINS.search(before) and _VARIANCE.match(after):
        value = Printed(number.printed.text, number.printed.value / 100, number.printed.rounding / 100)
        return Aligned("heldout_r2", Selector(variant=_only(variants_in(clause, context))), value)
    if number.unit or number.grouped:
        return None
    correlation = _CORRELATION.search(before)
    if correlation:
        which, held_out = _WHICH[correlation["which"].lower()], correlation["set"].lower() != "fitted"
        measure = f"heldout_correlation_{which}" if held_out else "fitted_correlation_mean"
        return Aligned(measure, Selector(), number.printed) if held_out or which == "mean" else None
    if _CORRELATIONS.match(after) and number.text.isdigit() and not before.rstrip().endswith(("first", "top", "these")):
        return Aligned("correlation_count", Selector(), number.printed)
    if _R2_BEFORE.search(before) or _R2_AFTER.match(after):
        if not _HELD_OUT.search(clause) or _TRAINED.search(clause):
            return None
        return Aligned("heldout_r2", Selector(variant=_only(variants_in(clause, context))), number.printed)
    if _PENALTY.search(before):
        return Aligned("map_penalty", Selector(), number.printed)
    pair = _pair(before, after, clause, context)
    return None if pair is None else Aligned("cosine", Selector(variant=pair), number.printed)


def place_of(number: Number, before: str, after: str) -> str | None:
    """The measure of a feature's place that a number is: `ranks 3rd by delta`; None if it is none.

    Args:
        number: The number.
        before: The words before it.
        after: The words behind it.
    """
    by = _BY.match(after)
    if by is None or not _RANKS.search(before) or number.unit not in ("", "th") or number.signed or number.bound:
        return None
    what = by["what"].lower()
    if what in ("delta", "δ"):
        return "feature_rank_by_delta"
    return "feature_rank_by_ratio" if what.endswith(("ratio", "change")) else "feature_rank"


def variants_in(text: str, context: Context) -> list[str]:
    """The variants of the data that a text names, in order."""
    found = []
    for label in context.variants:
        match = re.search(rf"(?<![\w-]){re.escape(label)}(?![\w-])", text, re.IGNORECASE)
        if match:
            found.append((match.start(), label))
    return [label for _, label in sorted(found)]


def layer_pair_in(text: str) -> tuple[str, tuple[int, int]] | None:
    """Two layers that a text names together: what they are called, and where the second number stands."""
    match = _LAYER_PAIR.search(text)
    if match is None:
        return None
    first, second = ("first", "second") if match["first"] else ("one", "other")
    if int(match[first]) == int(match[second]):
        return None
    return pair_of(f"L={int(match[first])}", f"L={int(match[second])}"), match.span(second)


def is_cosine(text: str) -> bool:
    """Whether a text speaks of a cosine."""
    return _COSINE.search(text) is not None


def _pair(before: str, after: str, clause: str, context: Context) -> str | None:
    """The two vectors whose cosine a number is."""
    spoken = list(_COSINE.finditer(before))
    between = before[spoken[-1].end() :] if spoken else ""
    named = bool(spoken) and not re.search(r"[.;]|[0-9]\.[0-9]", between)
    if not (named or _COSINE_AFTER.match(after)) or len(_COSINE.findall(clause)) != 1 or _OF_OTHERS.search(clause):
        return None
    variants = variants_in(clause, context)
    if len(variants) == 2:
        return pair_of(*variants)
    layers = layer_pair_in(clause)
    return layers[0] if layers and not variants and len(_LAYER_PAIR.findall(clause)) == 1 else None


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None
