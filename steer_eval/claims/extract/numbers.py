"""Numbers in running text.

Invariant: a number is found with its exact characters and its place in the line; digits that are part of a name, a path
or an address are no numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from steer_eval.claims.printed import APPROXIMATE, Printed

_NUMBER = re.compile(
    r"(?<![\w./\\@#])(?<![A-Za-z_](?<![Tt]op)-)"
    r"(?P<about>[~≈<≤>≥]\s?)?"
    r"(?P<sign>(?<![\w-])[+\-−])?"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?)"
    r"(?P<unit>\s?(?:%|[KMG]i?B\b|bytes\b)|[x×](?![\w×])|\s[x×](?!\s?[\w×])|-fold\b|\s(?:times|percent|per cent)\b)?"
    r"(?![\w@]|\.[0-9]|-[A-Za-z])"
)
_MASKED = (
    re.compile(r"https?://\S+"),
    re.compile(r"\]\([^)\s]*\)"),
    re.compile(r"<!--.*?-->"),
    re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}\b"),
    re.compile(r"`[^`]*[/\\][^`]*`"),
    re.compile(r"`[\w{},*.-]+\.(?:pt|pth|jsonl?|safetensors|txt|md|py|yaml|gguf)`"),
)
_RANGE = re.compile(r"\s?(?:--|–|—|-|to)\s?")
_TIMES = frozenset({"x", "×", "-fold", "times"})
_PERCENT = frozenset({"%", "percent", "per cent"})


@dataclass(frozen=True)
class Number:
    """One number of a text.

    Args:
        text: Its characters.
        start: Index of the first of them in the text that was searched.
        printed: Its value with the precision that it is printed with.
        unit: `x`, `%`, a unit of bytes such as `KB`, or empty.
        bound: `<` or `>` where the number is a bound, else empty.
        signed: Whether it is printed with a sign.
    """

    text: str
    start: int
    printed: Printed
    unit: str = ""
    bound: str = ""
    signed: bool = False

    @property
    def end(self) -> int:
        """Index after its last character."""
        return self.start + len(self.text)


def masked(text: str) -> str:
    """A text of the same length in which paths, addresses and comments are blank."""
    for pattern in _MASKED:
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    return text


def find_numbers(text: str) -> list[Number]:
    """The numbers of a text, in order.

    Args:
        text: Markdown; emphasis around a number does not matter.
    """
    return [_number(match) for match in _NUMBER.finditer(masked(text))]


def one_number(text: str) -> Number | None:
    """The number of a text that holds exactly one and nothing else but emphasis; a range counts as one."""
    bare = text.strip()
    found = find_numbers(bare)
    if len(found) == 2 and _RANGE.fullmatch(bare[found[0].end : found[1].start]):
        return _joined(bare, *found)
    if len(found) != 1:
        return None
    rest = bare[: found[0].start] + bare[found[0].end :]
    return None if rest.strip(" *_`()[]") else found[0]


def _number(match: re.Match[str]) -> Number:
    about, sign, unit = (match["about"] or "").strip(), match["sign"] or "", (match["unit"] or "").strip()
    digits = match["digits"].replace(",", "")
    value = float(digits) * (-1 if sign in "-−" and sign else 1)
    mantissa, _, exponent = digits.partition("e")
    rounding = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    if about in ("~", "≈"):
        rounding = max(rounding, APPROXIMATE * abs(value))
    known = "x" if unit in _TIMES else "%" if unit in _PERCENT else unit
    bound = {"<": "<", "≤": "<", ">": ">", "≥": ">"}.get(about, "")
    printed = Printed(match[0], value, rounding)
    return Number(match[0], match.start(), printed, known, bound, bool(sign))


def _joined(text: str, first: Number, last: Number) -> Number:
    """A range as one number: its middle, with half its width and the rounding of its ends to both sides."""
    low, high = first.printed, last.printed
    middle, half = (low.value + high.value) / 2, abs(high.value - low.value) / 2
    words = text[first.start : last.end]
    printed = Printed(words, middle, half + max(low.rounding, high.rounding))
    return Number(words, first.start, printed, last.unit or first.unit)
