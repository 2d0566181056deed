"""Marks around judged texts, which no judged text can contain.

Invariant: the mark is 64 bits of a digest over everything that is shown in one call, so that a text can't know the mark
of its own call, and equal calls have equal marks (which is what lets a reply be found again and replayed). Should the
mark occur in a text all the same, it is taken out of it. Control tokens of chat templates are broken up, because
a server that reads them as such would end the prompt in the middle of a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steer_eval.digest import sha256_value

DIGITS = 16
_CONTROL = re.compile(
    r"<\||\|>|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tool_call)>)|\[(?=/?(?:INST|SYSTEM_PROMPT)\])",
    re.IGNORECASE,
)
# U+FF5C and U+2581: the control tokens of one vendor are written with these.
_WIDE = re.compile("<\uff5c|\uff5c>")


def mark(*shown: Sequence[object] | object) -> str:
    """The mark of a call.

    Args:
        shown: Everything that the call shows, as JSON values.
    """
    return sha256_value(list(shown))[:DIGITS]


def without(text: str, token: str) -> str:
    """A text without a mark, whatever its case, also where taking it out brings its halves together."""
    pattern = re.compile(re.escape(token), re.IGNORECASE)
    while pattern.search(text):
        text = pattern.sub("", text)
    return text


def neutral(text: str) -> str:
    """A text whose control tokens are plain text."""
    text = _CONTROL.sub(lambda match: " ".join(match[0]) if len(match[0]) > 1 else f"{match[0]} ", text)
    return _WIDE.sub(lambda match: " ".join(match[0]), text)


def fenced(kind: str, text: str, token: str) -> str:
    """A text between marks, on lines of their own.

    Args:
        kind: What it is, one word.
        text: The text.
        token: The call's mark.
    """
    return f"<{kind}-{token}>\n{without(neutral(text), token)}\n</{kind}-{token}>"
