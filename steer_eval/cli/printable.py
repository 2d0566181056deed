"""Texts of strangers on a terminal.

Invariant: what is printed can't move the cursor, recolour or retitle the terminal: control characters other than line
ends are shown as the replacement character.
"""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with control and direction-changing characters replaced, line ends and tabs kept."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if character not in "\n\t" and _is_control(character) else character
        for character in text
    )


def _is_control(character: str) -> bool:
    # Cc: escape and its kin; Cf has the overrides that show text backwards.
    return unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }
