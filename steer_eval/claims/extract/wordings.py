"""The words around a number that give it a meaning.

Invariant: a wording names its measure right beside the number. Where the words before and the words behind name two
measures, or qualify one (`average margin`), there is none.
"""

from __future__ import annotations

import re

from steer_eval.claims.extract.context import AXES

NEAR = 72
"""Characters before and behind a number in which words can give it a meaning."""

_WORDS: tuple[tuple[str, str], ...] = (
    ("base_perplexity", r"(?:base(?:line)?|unsteered) (?:ppl|perplexity)"),
    ("perplexity_ratio", r"(?:ppl|perplexity)[ _-]ratio|relative (?:ppl|perplexity)"),
    ("perplexity", r"ppl|perplexity"),
    ("feature_base_mean", r"(?:base|unsteered) mean|mean (?:activation )?without steering"),
    ("feature_steered_mean", r"steered mean|mean (?:activation )?(?:with|under) steering"),
    ("feature_delta", r"delta|Δ"),
    ("vector_norm", r"(?:vector )?norm"),
    *((axis, "|".join(re.escape(word) for word in words)) for axis, words in AXES.items()),
)
_VERBS = (
    r"is|was|are|were|of|to|equals|reaches|reached|has|gets|scores|stays|stays at|remains at|drops to|falls to|"
    r"rises to|sits at|stands at|is only|is just|is about|is around|of about|of only"
)
_ROUGHLY = (
    r"about|around|roughly|approximately|at most|at least|up to|less than|more than|under|below|over|above|"
    r"no more than|no less than"
)
_BEFORE = tuple(
    (
        name,
        re.compile(
            rf"(?P<qualifier>(?:\b[\w-]{{1,24}}\s){{0,2}})\b(?P<word>{words})\b[\s*_`]{{0,3}}(?:(?:score|value|rating)s?\s)?"
            # What stood between these words, and only said where, is gone.
            r"(?:[\s,(`*]{0,3}\b(?:of|for|at|in|with|the|model|cell|steering)\b[\s,)`*]{0,3}){0,6}"
            rf"(?:\b(?:{_VERBS})\b)?(?:[\s*_`(,:=\[$]|</?(?:b|i|em|strong|code)>){{0,6}}(?:(?:{_ROUGHLY})\s)?$",
            re.IGNORECASE,
        ),
    )
    for name, words in _WORDS
)
_AFTER = tuple(
    (
        name,
        re.compile(
            rf"[*_`]{{0,3}}(?:\s(?:in|of|for|on)\s?)?\s?(?:the\s)?(?P<word>{words})\b(?P<rest>.{{0,12}})", re.IGNORECASE
        ),
    )
    for name, words in _WORDS
)
_NO_RESULT = re.compile(
    r"\b(?:expect(?:ed|s)?|would|could|should|hope[ds]?|target|goal|predict(?:ed|s)?|annotators?|humans?|raters?|gpt|"
    r"claude|gemini|deviation|std|gradient|residual|unit norm|held out|hold out|removed?|excluded?|excluding|dropped|"
    r"left out|discarded?)\b",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"[*_`]{0,3}\s?(?:points?|units?|nats|steps?|times|percent|per cent|%)?\s?"
    r"\b(?:higher|lower|more|less|fewer|above|below|over|under|larger|smaller|greater|apart|away|in absolute value)\b",
    re.IGNORECASE,
)
_OF_CONTROLS = re.compile(
    r"\b(?:random(?:ly|i[sz]ed)?|shuffled|controls?|norm-matched|system[ -]prompt|prompt(?:ed|ing)|"
    r"anchor(?:ed)?|seeds?)\b",
    re.IGNORECASE,
)
_UNSTEERED = re.compile(
    r"\b(?:without (?:any )?steering|unsteered|not steered|no steering|before steering|base model|baseline)\b",
    re.IGNORECASE,
)
_QUALIFIERS = frozenset(
    {
        "average",
        "avg",
        "averaged",
        "mean",
        "median",
        "total",
        "sum",
        "std",
        "deviation",
        "typical",
        "overall",
        "summed",
        "geometric",
        "random",
        "shuffled",
        "zero",
        "held-out",
        "heldout",
        "relative",
        "change",
        "changes",
        "difference",
        "log",
    }
)
_NEXT_VALUE = re.compile(r"\s?(?:is|was|of|=|:|to|at|score)?\s?[*_`(]{0,3}[~<>≈]?[+\-−–]?[0-9]")
_COUNTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "contrast_pair_count",
        re.compile(
            r"[*_`]{0,3}\s(?:hand-written |handwritten )?(?:contrast(?:ive)?|scenario)[ -]pairs\b(?P<rest>.*)",
            re.IGNORECASE,
        ),
    ),
    (
        "prompt_count",
        re.compile(r"[*_`]{0,3}\s(?:held-out |unseen )?(?:evaluation|eval|test) prompts\b(?P<rest>.*)", re.IGNORECASE),
    ),
    (
        "collapsed_cells",
        re.compile(
            r"[*_`]{0,3}\s(?:(?:steered |sweep )?cells collapse|collapsed (?:steered |sweep )?cells)(?P<rest>.*)",
            re.IGNORECASE,
        ),
    ),
    ("cell_count", re.compile(r"[*_`]{0,3}\s(?:sweep |steered )cells\b(?P<rest>.*)", re.IGNORECASE)),
)
_SHARE = re.compile(
    r"[*_`]{0,3}(?:\s(?:of|out of)\s(?:the\s|all\s|its\s)?|/)[*_`]{0,3}(?P<total>[0-9]{1,9})[*_`]{0,3}(?P<rest>\s.*)"
)
_TOTAL = re.compile(r"[0-9][*_`]{0,3}(?:\s(?:of|out of)\s(?:the\s|all\s|its\s)?|/)[*_`]{0,3}$")
_NONE_OF = re.compile(r"\bnone of\s(?:the\s|all\s|its\s)?[*_`]{0,3}$", re.IGNORECASE)
_CELLS_COLLAPSE = re.compile(
    r"\s(?:steered |sweep )?cells (?:(?:of|in) (?:the )?[\w.-]{1,24} )?(?:have |are |\w{1,12}ly )?collapse",
    re.IGNORECASE,
)
_CELLS = re.compile(r"\s(?:steered |sweep )?cells\b", re.IGNORECASE)
# A part of the cells, pairs or prompts has another count than all of them.
_PART_AFTER = re.compile(
    r"\s?(?:per\b|each\b|in each\b|for each\b|with\b|where\b|that\b|which\b|whose\b|were (?:held|dropped|removed|left)|"
    r"held|dropped|removed|left out|above\b|below\b|at (?:L|layer)|in layer)",
    re.IGNORECASE,
)
_PART_BEFORE = re.compile(
    r"\b(?:first|last|other|another|additional|remaining|only|best|worst|these|those|extra|more|further|next|under|over|"
    r"than|every|each)\s[*_`~]{0,3}$",
    re.IGNORECASE,
)


def measure_beside(before: str, after: str) -> str | None:
    """The measure that the words beside a number name.

    Args:
        before: The words before it, back to the number before that at most.
        after: The words behind it.
    """
    found = next(((name, match) for name, pattern in _BEFORE if (match := pattern.search(before))), None)
    behind = next(((name, match) for name, pattern in _AFTER if (match := pattern.match(after))), None)
    if found:
        name, match = found
        if not name.startswith("feature_") and _QUALIFIERS & set(match["qualifier"].lower().split()):
            return None
        if behind and behind[0] != name and not _NEXT_VALUE.match(behind[1]["rest"]):
            return None
        return name
    if behind:
        # In `2.5, coherence 5.0` the word belongs to the number behind it.
        return None if _NEXT_VALUE.match(behind[1]["rest"]) else behind[0]
    return None


def count_beside(before: str, after: str, clause: str) -> str | None:
    """The count that the words beside a number name: of pairs, prompts, or cells.

    Args:
        before: The words before it.
        after: The words behind it.
        clause: The clause that it stands in.
    """
    share = _SHARE.match(after)
    part = _PART_BEFORE.search(before)
    if part and not (share and part[0].lower().startswith("only")):
        return None
    if _NONE_OF.search(before):
        return "cell_count" if _CELLS_COLLAPSE.match(after) else None
    if _TOTAL.search(before):
        return "cell_count" if _CELLS.match(after) else None
    if share:
        return "collapsed_cells" if _CELLS_COLLAPSE.match(share["rest"]) else None
    for measure, pattern in _COUNTS:
        match = pattern.match(after)
        if match:
            return None if _PART_AFTER.match(match["rest"]) else measure
    match = _CELLS.match(after)
    sweep = re.search(r"\b(?:sweeps?|grid)\b", clause, re.IGNORECASE) if match else None
    return "cell_count" if match and sweep and not _PART_AFTER.match(after[match.end() :]) else None


def is_of_another(measure: str, clause: str) -> bool:
    """Whether a clause speaks of a control or of the unsteered model, where a measure would be that of a steered cell.

    Args:
        measure: The measure that the words beside a number name.
        clause: The clause around the number.
    """
    if measure == "base_perplexity" or measure.startswith("feature_"):
        return False
    ratio = measure == "perplexity_ratio"
    return bool(_OF_CONTROLS.search(clause) or (not ratio and _UNSTEERED.search(clause)))


def is_no_result(clause: str, after: str) -> bool:
    """Whether a number is a difference, a wish, or another's: something that no file of results can settle.

    Args:
        clause: The clause around the number.
        after: What stands behind the number.
    """
    return bool(_NO_RESULT.search(clause) or _COMPARED.match(after))
