"""A copy of an audited text with a mark behind every number.

Invariant: without its marks and its footnotes the copy is the text, character by character.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steer_eval import markdown
from steer_eval.audit import Audit, Place
from steer_eval.claims.verdict import Word

MARKS: dict[Word, str] = {
    "contradicted": "✗",
    "drifted": "≈",
    "inconclusive": "±",
    "not-checkable": "?",
    "reproduced": "✓",
}
_FENCE = re.compile(r"\s*(```|~~~)")


def annotated(text: str, audit: Audit) -> str:
    """The text with its verdicts.

    Args:
        text: The text that was audited.
        audit: The audit.

    Returns:
        The text with ✓ behind each reproduced number, and another mark with a footnote behind each other one; in code,
        where footnotes are no footnotes, the mark alone.
    """
    lines = text.split("\n")
    fenced = _fenced(lines)
    notes: list[str] = []
    footnotes = {id(place): "" for place in audit.places}
    for place in audit.places:
        if place.verdict.word != "reproduced":
            notes.append(_note(len(notes) + 1, place))
            footnotes[id(place)] = "" if place.line in fenced else f"[^audit-{len(notes)}]"
    for place in sorted(audit.places, key=lambda place: (place.line, place.end), reverse=True):
        line = lines[place.line - 1]
        end = place.end if place.line in fenced else _behind_code(line, place.end)
        mark = f"{MARKS[place.verdict.word]}{footnotes[id(place)]}"
        lines[place.line - 1] = f"{line[:end]}{mark}{line[end:]}"
    copy = "\n".join(lines)
    return f"{copy.rstrip()}\n\n{chr(10).join(notes)}\n" if notes else copy


def _note(number: int, place: Place) -> str:
    verdict = place.verdict
    checks = [
        f"{check.reason or verdict.word}{f' ({check.file}, {check.where})' if check.file else ''}"
        for check in verdict.checks
    ]
    words = markdown.line(f"{verdict.word}: {verdict.claim.words}: {'; '.join(checks)}")
    # Whatever the text or the data holds, a footnote says it and does nothing else.
    inert = re.sub(r"([\\`*_\[\]<>|])", r"\\\1", words)
    return f"[^audit-{number}]: Line {place.line}: {inert}"


def _fenced(lines: Sequence[str]) -> set[int]:
    """Numbers of the lines inside fenced code."""
    found: set[int] = set()
    fence = ""
    for number, line in enumerate(lines, start=1):
        match = _FENCE.match(line)
        if fence:
            found.add(number)
            if match and match[1] == fence:
                fence = ""
        elif match:
            fence = match[1]
    return found


def _behind_code(line: str, end: int) -> int:
    """The place of a mark: behind the code span that a number stands in, if it stands in one."""
    if line[:end].count("`") % 2:
        closing = line.find("`", end)
        return closing + 1 if closing >= 0 else end
    return end
