"""What of a text is no prose: addresses, paths, comments, tags, dates and references.

Invariant: a masked text is as long as the text, so that places stay what they are. Each mask takes time linear in the
text, whatever is written there.
"""

from __future__ import annotations

import re

_MASKED = (
    # Each pattern can't run on past the character that its own beginning needs, so that many beginnings without an end
    # cost no more than one.
    re.compile(r"\]\([^()\s]*+(?:\([^()\s]*+\)[^()\s]*+)?(?:\s\"[^\"()]*+\")?\)"),
    re.compile(r"(?:https?://|www\.)\S+"),
    re.compile(r"</?[A-Za-z][^<>]*+>"),
    re.compile(r"\[\^[^\]\s]{1,64}\]:?"),
    re.compile(r"(?<![\w\])])\[[0-9]{1,3}\]"),
    re.compile(r"\b(?:arXiv|doi)\s?:\s?\S{1,64}", re.IGNORECASE),
    re.compile(r"(?<![\w\\])R\s?\^\s?\{?2\}?"),
    # Emphasis by underscores, right at a number.
    re.compile(r"(?<![\w/])_{1,3}(?=[+\-−–~≈<>]?\.?[0-9])|(?<=[0-9%x×])_{1,3}(?![\w/])"),
    re.compile(r"(?<![\w-])[0-9]{4}([-/])[0-9]{2}\1[0-9]{2}(?![\w-])"),
    re.compile(r"`[^`/\\]*+[/\\][^`]*+`"),
    re.compile(r"`[\w{},*.-]+\.(?:pt|pth|jsonl?|safetensors|txt|md|py|yaml|gguf)`"),
    re.compile(r"(?<![\w/.-])[A-Za-z_][\w.-]*+(?:/[\w.-]+)+"),
)

_VISIBLE = re.compile(r"[^\n]")


def masked(text: str) -> str:
    """A text of the same length in which whatever is no prose is blank."""
    text = without_comments(text)
    for pattern in _MASKED:
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    return text


def without_comments(text: str) -> str:
    """A text with HTML comments as blanks, its lines kept; a comment that is not closed hides nothing."""
    position = 0
    kept: list[str] = []
    while (start := text.find("<!--", position)) >= 0:
        end = text.find("-->", start + 4)
        if end < 0:
            break
        kept += [text[position:start], _VISIBLE.sub(" ", text[start : end + 3])]
        position = end + 3
    return "".join((*kept, text[position:]))
