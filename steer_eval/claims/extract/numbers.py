"""Numbers in running text.

Invariant: a number is found with its exact characters and its place in the line; digits that are part of a name, a path
or an address are no numbers. A number that can be read in two ways (`2,5`) is found and not read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from steer_eval.claims.extract.masks import masked
from steer_eval.claims.printed import APPROXIMATE, Printed

_TIMES_SIGN = r"(?:×|&times;|\\times(?![A-Za-z]))"
_NUMBER = re.compile(
    # Not inside a word, a version, a path or an address. `top-30` and `feature #31` are the names that hold numbers.
    r"(?<![\w.\\@])(?<!(?<![0-9])/)(?<!(?<!ture )(?<!tent )#)(?<![A-Za-z_](?<![Tt]op)-)(?<![0-9],)"
    r"(?P<about>(?<![-=<>~])(?:\\?[~<>]=?|[≈≤≥]|&(?:asymp|approx|sim|[lg][te]);|\\(?:approx|sim|[lg]eq?)(?![A-Za-z]))\s?)?"
    # `×1.18`, but not the second factor of `3 × 4`; a letter stands for the sign only before a number like 1.2 or 16.
    rf"(?P<times>(?<![0-9)\]}}])(?<![0-9)\]}}]\s)(?:{_TIMES_SIGN}\s?|x(?!64\b|86\b)(?=[0-9]{{2}}|[0-9]\.[0-9])))?"
    r"(?P<sign>(?<![\w-])(?:\\?[+-]|[−–‑]|&minus;|&#43;))?"
    # Not `(...)*+`: before Python 3.11.5 a possessive group keeps what its last, failed turn has read. What follows
    # makes going back in vain.
    r"(?P<digits>(?:[0-9]++(?:[.,][0-9]++)*|\.[0-9]++)(?:[eE][+-]?[0-9]{1,3}+)?)"
    rf"(?P<power>\s?(?:[x·*]|{_TIMES_SIGN})\s?10(?:\s?\^\s?[{{(]?[+\-−]?[0-9]{{1,3}}[}})]?|[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}}))?"
    r"(?P<unit>\s?(?:\\?%|[kKMG]i?B\b|bytes\b)|[x×](?![\w×])|\s[x×](?!\s?[\w×])"
    rf"|\s?{_TIMES_SIGN}(?!\s?[\w({{\\×])|-fold\b|\s(?:times|percent|per cent)\b"
    r"|(?<![.,][0-9])(?<![.,][0-9]{2})(?:st|nd|rd|th)\b)?"
    r"(?![\w@]|[.,][0-9]|-[A-Za-z])"
)
# A factor, a part of `1 040`, or behind a sign that is not known.
_PART_BEFORE = re.compile(rf"(?:{_TIMES_SIGN}\s?|[0-9][\u00a0\u2009\u202f]|&[#\w]{{2,9}};)$")
_PART_AFTER = re.compile(rf"\s?{_TIMES_SIGN}\s?[0-9]|[\u00a0\u2009\u202f][0-9]")
_GROUP_BEFORE = re.compile(r"(?<![\w.,])[1-9][0-9]{0,2} $")
_PLAIN = re.compile(r"[0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?P<decimals>\.[0-9]+)?")
_RANGE = re.compile(r"\s?(?:--|–|—|-|−|to)\s?")
_TIMES = frozenset({"x", "×", "\\times", "&times;", "-fold", "times"})
_PERCENT = frozenset({"%", "\\%", "percent", "per cent"})
_ORDINALS = frozenset({"st", "nd", "rd", "th"})
_ABOUT = frozenset({"~", "≈", "&asymp;", "&approx;", "&sim;", "\\approx", "\\sim"})
_BOUNDS = {
    **dict.fromkeys(("<", "<=", "≤", "&lt;", "&le;", "\\le", "\\leq"), "<"),
    **dict.fromkeys((">", ">=", "≥", "&gt;", "&ge;", "\\ge", "\\geq"), ">"),
}
_ROUGHLY = re.compile(r"\b(?:about|around|approximately|approx\.?|roughly|nearly|circa|ca\.)\s$", re.IGNORECASE)
_AT_MOST = re.compile(r"\b(?:at most|up to|less than|fewer than|under|below|no more than)\s$", re.IGNORECASE)
_AT_LEAST = re.compile(r"\b(?:at least|more than|over|above|no less than|no fewer than)\s$", re.IGNORECASE)
_MINUS = str.maketrans("−–‑", "---")
_NEGATIVE = frozenset({"-", "\\-", "−", "–", "‑", "&minus;"})
_NEAR = 16


@dataclass(frozen=True)
class Number:
    """One number of a text.

    Args:
        text: Its characters.
        start: Index of the first of them in the text that was searched.
        printed: Its value with the precision that it is printed with.
        unit: `x`, `%`, a unit of bytes such as `KB`, `th` for a place such as `3rd`, or empty.
        bound: `<` or `>` where the number is a bound, else empty.
        signed: Whether it is printed with a sign.
        readable: Whether it can be read in one way only; `2,5` and `1.3×10^3` are not read.
        grouped: Whether it has a comma before three digits and no point, which may be meant as a decimal comma.
        approximate: Whether it is printed with a `~`, or called so.
    """

    text: str
    start: int
    printed: Printed
    unit: str = ""
    bound: str = ""
    signed: bool = False
    readable: bool = True
    grouped: bool = False
    approximate: bool = False

    @property
    def end(self) -> int:
        """Index after its last character."""
        return self.start + len(self.text)


def find_numbers(text: str) -> list[Number]:
    """The numbers of a text, in order.

    Args:
        text: Markdown; emphasis around a number does not matter.
    """
    bare = masked(text)
    found = (_number(match, bare, text[match.start() : match.end()]) for match in _NUMBER.finditer(bare))
    return [number for number in found if number is not None]


def one_number(text: str) -> Number | None:
    """The number of a text that holds exactly one and nothing else but emphasis; a range counts as one."""
    found = find_numbers(text)
    if len(found) == 2 and _RANGE.fullmatch(text[found[0].end : found[1].start]):
        found = [_joined(text, *found)]
    if len(found) != 1:
        return None
    rest = text[: found[0].start] + text[found[0].end :]
    return None if rest.strip(" \t*_`()[]$") else found[0]


def signed_value(text: str) -> float:
    """A number with any of the minus signs that people use."""
    return float(text.translate(_MINUS))


def _number(match: re.Match[str], text: str, characters: str) -> Number | None:
    # What is masked between a number and its unit (`2_×`, where `_` ends an emphasis) is of the number's characters.
    digits, unit = match["digits"], (match["unit"] or "").strip()
    about = (match["about"] or "").strip()
    about = about[1:] if about.startswith(("\\~", "\\<", "\\>")) else about
    if digits.count(".") > 1 and "," not in digits:
        return None  # A version or a date.
    grouped = _GROUPED.fullmatch(digits)
    plain = digits.replace(",", "") if grouped else digits
    before, after = text[max(0, match.start() - _NEAR) : match.start()], text[match.end() : match.end() + _NEAR]
    grouped_by_space = len(digits) == 3 and digits.isdigit() and _GROUP_BEFORE.search(before)
    is_part = grouped_by_space or _PART_BEFORE.search(before) or _PART_AFTER.match(after) or (match["times"] and unit)
    readable = match["power"] is None and _PLAIN.fullmatch(plain) is not None and not is_part
    value, rounding = _value(plain) if readable else (0.0, 0.0)
    if match["sign"] in _NEGATIVE:
        value = -value
    approximate = about in _ABOUT or _ROUGHLY.search(before) is not None
    if approximate:
        rounding = max(rounding, APPROXIMATE * abs(value))
    bound = _BOUNDS.get(about, "") or ("<" if _AT_MOST.search(before) else ">" if _AT_LEAST.search(before) else "")
    readable = readable and math.isfinite(value) and 0 < rounding < math.inf
    printed = Printed(characters, value if readable else 0.0, rounding if readable else 0.0)
    unit = "th" if unit in _ORDINALS else unit
    known = "x" if unit in _TIMES or match["times"] else "%" if unit in _PERCENT else unit
    open_comma = grouped is not None and not grouped["decimals"]
    signed = match["sign"] is not None
    return Number(characters, match.start(), printed, known, bound, signed, readable, open_comma, approximate)


def _value(digits: str) -> tuple[float, float]:
    """A number, and half a unit of its last digit; infinite where no float is as large."""
    mantissa, _, exponent = digits.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return float(digits), float(f"5e{int(exponent or 0) - decimals - 1}")


def _joined(text: str, first: Number, last: Number) -> Number:
    """A range as one number: its middle, with half its width and the rounding of its ends to both sides."""
    low, high = first.printed, last.printed
    middle, half = (low.value + high.value) / 2, abs(high.value - low.value) / 2
    words = text[first.start : last.end]
    printed = Printed(words, middle, half + max(low.rounding, high.rounding))
    readable = first.readable and last.readable and math.isfinite(middle + half)
    return Number(words, first.start, printed, last.unit or first.unit, readable=readable)
