"""How a claim that was found in a text reads: one plain sentence from its measure, its subject and its number.

Invariant: the words are a pure function of the claim, so that they say what is checked and nothing else; however a text
spells a claim, the same claim reads the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.fact import AXES

_NEAR = 44
_MARKUP = re.compile(r"[`*]+|(?<!\w)_+|_+(?!\w)")

_QUANTITIES: Mapping[str, str] = {
    **{axis: axis for axis in AXES},
    "margin": "margin",
    "perplexity": "perplexity",
    "perplexity_ratio": "perplexity ratio",
    "base_perplexity": "unsteered perplexity",
    "applied_norm": "applied norm",
    "feature_delta": "delta",
    "feature_base_mean": "base mean",
    "feature_steered_mean": "steered mean",
    "carried_norm": "published norm",
    "carried_feature_norm": "carried norm",
    "heldout_r2": "held-out R²",
    "map_penalty": "ridge penalty",
}
"""Measures that read `<quantity> of <subject> is <number>`."""

_FILES: Mapping[str, tuple[str, str]] = {
    "file_size": ("has", ""),
    "row_count": ("has", " rows"),
    "feature_count": ("lists", " features"),
    "sae_width": ("has", " features"),
    "sae_k": ("has k =", ""),
    "artifact_layer": ("is of layer", ""),
}
"""Measures that read `<files> <verb> <number> <noun>`."""

_NAMES: Mapping[str, str] = {
    "feature_ratio": "ratio of the means",
    "feature_steered_frequency": "frequency with steering, in per cent of prompts,",
    "feature_base_frequency": "frequency without steering, in per cent of prompts,",
    "feature_rank": "place in the table",
    "feature_rank_by_delta": "place by delta",
    "feature_rank_by_ratio": "place by the ratio of the means",
    "vector_norm": "norm",
    "vector_width": "number of values",
    "sae_width": "number of features",
    "sae_k": "k",
    "artifact_layer": "layer",
    "row_count": "number of rows",
    "cell_count": "number of cells",
    "collapsed_cells": "number of collapsed cells",
    "contrast_pair_count": "number of contrast pairs",
    "prompt_count": "number of evaluation prompts",
    "file_size": "size",
    "heldout_correlation_mean": "mean held-out canonical correlation",
    "heldout_correlation_highest": "highest held-out canonical correlation",
    "heldout_correlation_lowest": "lowest held-out canonical correlation",
    "fitted_correlation_mean": "mean fitted canonical correlation",
    "correlation_count": "number of canonical correlations",
}
"""What measures are called that do not read like their names."""

_FOUND: Mapping[str, str] = {
    "file_size": "has {} bytes",
    "row_count": "has {} rows",
    "feature_count": "lists {} features",
    "sae_width": "has {} features",
    "sae_k": "has k = {}",
    "artifact_layer": "is of layer {}",
}


def words_of(extracted: Extracted, line: str = "") -> str:
    """What a claim says, or where a number stands that is no claim.

    Args:
        extracted: The claim or number.
        line: The line that it stands in; empty where its own words are to be kept.
    """
    claim = extracted.claim
    if not claim.measure:
        if line.lstrip().startswith("|"):
            title, _, number = _plain(claim.text).rpartition(": ")
            return f"header of a table: {number}" if title == "header" else f"column “{title}”: {number}"
        return excerpt(line, extracted.start, extracted.end) if line else _plain(claim.text)
    number = "" if isinstance(claim.expected, bool) else claim.expected.text
    sentence = _SENTENCES.get(claim.measure)
    if claim.measure in _FILES:
        return _of_files(claim, extracted.noun, number)
    if sentence is not None:
        return sentence(claim.select, number, extracted.noun)
    if claim.measure in _QUANTITIES:
        return f"{_QUANTITIES[claim.measure]} of {subject(claim.select)} is {number}"
    return _truth(claim) or _plain(claim.text)


def quantity(measure: str) -> str:
    """What a measure is called in a reason."""
    return _NAMES.get(measure) or _QUANTITIES.get(measure) or measure.replace("_", " ")


def found_in_file(measure: str, value: float) -> str:
    """What a file has, as a reason names it: `has 9550 bytes`."""
    return _FOUND.get(measure, "has {}").format(f"{value:.6g}" if value % 1 else f"{value:.0f}")


def subject(select: Selector) -> str:
    """What a measure is taken on, in words: `qwen_large at L=14 c=+1, judged by deepseek`."""
    named = [select.variant or ("" if select.feature is None else f"feature {select.feature}")]
    if select.feature is not None and select.variant:
        named.append(f"feature {select.feature} by")
        named.reverse()
    whole = [" ".join(part for part in named if part), select.model or ""]
    words = " of ".join(part for part in whole if part)
    if select.label not in (None, "steered"):
        words = f"the {select.label} control of {words}" if words else f"the {select.label} control"
    place = str(Selector(layer=select.layer, coef=select.coef))
    words = f"{words} at {place}".strip() if place else words
    if not words and select.file:
        words = files_named(select.file)
    return f"{words or 'the study'}, judged by {select.judge}," if select.judge else words or "the study"


def files_named(paths: str) -> str:
    """Paths that a text names together, with what differs in braces: `vectors/m_L{6,14}_caa.pt`."""
    each = paths.split("|")
    if len(each) == 1:
        return each[0]
    # Numbers are not cut: `L{10,14}` and not `L1{0,4}`.
    head = _shared(each).rstrip("0123456789")
    rest = [path[len(head) :] for path in each]
    tail = _shared([path[::-1] for path in rest])[::-1].lstrip("0123456789")
    return f"{head}{{{','.join(path.removesuffix(tail) for path in rest)}}}{tail}"


def _shared(texts: Sequence[str]) -> str:
    """What all of some texts begin with."""
    return "".join(
        letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    )


def excerpt(line: str, start: int, end: int) -> str:
    """The words around a number of a line, cut between words and without markup."""
    first, last = max(0, start - _NEAR), min(len(line), end + _NEAR)
    before, after = line[first:start], line[end:last]
    if first and not line[first - 1].isspace():
        before = re.sub(r"^\S*\s?", "", before) if re.search(r"\s", before) else ""
    if last < len(line) and not line[last].isspace():
        after = re.sub(r"\s?\S*$", "", after) if re.search(r"\s", after) else ""
    words = _plain(before + line[start:end] + after)
    return f"{'… ' if first else ''}{words}{' …' if last < len(line) else ''}"


def _plain(text: str) -> str:
    return " ".join(_MARKUP.sub("", text).split())


def _of_files(claim: Claim, noun: str, number: str) -> str:
    verb, what = _FILES[claim.measure]
    files = files_named(claim.select.file or "")
    if noun == "each":
        files = f"each of {files}" if "{" in files or "*" in files or "|" in files else files
    elif noun == "total":
        return f"{files} together have {number}{what}"
    return f"{files} {verb} {number}{what}"


def _truth(claim: Claim) -> str:
    if claim.measure == "collapsed":
        return f"{subject(replace(claim.select, judge=None))} {'collapses' if claim.expected else 'does not collapse'}"
    if claim.measure == "best_cell":
        cell = str(Selector(layer=claim.select.layer, coef=claim.select.coef))
        return f"the best cell of {subject(replace(claim.select, layer=None, coef=None))} is {cell}"
    if claim.measure == "feature_listed":
        table = f" of {claim.select.model}" if claim.select.model else ""
        return f"feature {claim.select.feature} stands in the feature table{table}"
    return ""


def _fires(select: Selector, number: str, noun: str, condition: str) -> str:
    return f"{subject(select)} fires on {number} of {noun or 'prompts'} {condition} steering"


def _ratio(select: Selector, number: str, _noun: str) -> str:
    return f"{subject(select)} is {number}{'' if number[-1:] in 'x×' else ' times'} as active with steering"


def _place(order: str) -> Callable[[Selector, str, str], str]:
    return lambda select, number, _noun: f"{subject(select)} is number {number} {order}".rstrip()


_SENTENCES: Mapping[str, Callable[[Selector, str, str], str]] = {
    "vector_norm": lambda select, number, _: f"norm of the vector of {subject(select)} is {number}",
    "vector_width": lambda select, number, _: (
        f"{select.file or f'the vector of {subject(select)}'} has {number} values"
    ),
    "feature_ratio": _ratio,
    "feature_steered_frequency": lambda select, number, noun: _fires(select, number, noun, "with"),
    "feature_base_frequency": lambda select, number, noun: _fires(select, number, noun, "without"),
    "feature_rank": _place("of its table"),
    "feature_rank_by_delta": _place("by delta"),
    "feature_rank_by_ratio": _place("by the ratio of its means"),
    "contrast_pair_count": lambda _select, number, _noun: f"there are {number} contrast pairs",
    "prompt_count": lambda _select, number, _noun: f"there are {number} evaluation prompts",
    "cell_count": lambda select, number, _: f"the sweep of {subject(select)} has {number} cells",
    "collapsed_cells": lambda select, number, _: f"{number} cells of {subject(select)} collapse",
    "collapse_ratio": lambda _select, number, _noun: f"cells with a ratio above {number} are marked as collapsed",
    "largest_coefficient_without_collapse": lambda select, number, _: (
        f"the largest coefficient of {subject(select)} that does not collapse is {number}"
    ),
    "identical_generations": lambda select, number, _: f"{number} texts of {subject(select)} come out the same again",
    "vector_cosine": lambda select, number, _: (
        f"cosine of the vector of {subject(select)} and the one derived again is {number}"
    ),
    "scores_from": lambda select, number, _: f"no score{_by(select)} is below {number}",
    "scores_to": lambda select, number, _: f"no score{_by(select)} is above {number}",
    "cosine": lambda select, number, _: f"cosine of {_pair(select)} is {number}",
    "heldout_correlation_mean": lambda _s, number, _n: f"mean held-out canonical correlation is {number}",
    "heldout_correlation_highest": lambda _s, number, _n: f"highest held-out canonical correlation is {number}",
    "heldout_correlation_lowest": lambda _s, number, _n: f"lowest held-out canonical correlation is {number}",
    "fitted_correlation_mean": lambda _s, number, _n: f"mean fitted canonical correlation is {number}",
    "correlation_count": lambda _s, number, _n: f"there are {number} canonical correlations",
}


def _by(select: Selector) -> str:
    return f" of {select.judge}" if select.judge else ""


def _pair(select: Selector) -> str:
    between_layers = (select.variant or "").startswith("L=") and select.model
    return f"the vectors of {select.model} at {select.variant}" if between_layers else f"{select.variant}"
