"""A copy of an audited text with a mark behind every number.

Invariant: without its marks and its footnotes the copy is the text, character by character, and its front matter says
what it said.
"""

from __future__ import annotations

from steer_eval import markdown
from steer_eval.audit import Audit, Place
from steer_eval.claims.extract.layout import fenced_blocks
from steer_eval.claims.verdict import Word
from steer_eval.formats.card import front_matter_lines

MARKS: dict[Word, str] = {
    "contradicted": "✗",
    "drifted": "≈",
    "inconclusive": "±",
    "not-checkable": "?",
    "reproduced": "✓",
}
_LABEL = "audit"


def annotated(text: str, audit: Audit) -> str:
    """The text with its verdicts.

    Args:
        text: The text that was audited.
        audit: The audit.

    Returns:
        The text with ✓ behind each reproduced number, and another mark with a footnote behind each other one; in code,
        where footnotes are no footnotes, the mark alone, and in front matter a comment. A number that only says where
        something is has no mark.
    """
    lines = text.split("\n")
    head = front_matter_lines(text)
    fenced = {number for block, _ in fenced_blocks(lines, head + 1) for number in block}
    label = _label(text)
    notes: list[str] = []
    marks: list[tuple[Place, str]] = []
    for place in audit.stated:
        mark = MARKS[place.verdict.word]
        if place.line <= head:
            mark = f" # {mark}"
        elif place.verdict.word != "reproduced":
            notes.append(f"[^{label}-{len(notes) + 1}]: {_note(place)}")
            mark += "" if place.line in fenced else f"[^{label}-{len(notes)}]"
        marks.append((place, mark))
    for place, mark in sorted(marks, key=lambda each: (each[0].line, each[0].end), reverse=True):
        line = lines[place.line - 1]
        end = place.end if place.line in fenced else _behind_code(line, place.end)
        if place.line <= head:
            end = len(line.removesuffix("\r"))
        lines[place.line - 1] = f"{line[:end]}{mark}{line[end:]}"
    copy = "\n".join(lines)
    return f"{copy}\n\n{chr(10).join(notes)}\n" if notes else copy


def _label(text: str) -> str:
    """What footnotes are called; none of the text's own begins like it."""
    label = _LABEL
    while f"[^{label}-" in text:
        label += "ed"
    return label


def _note(place: Place) -> str:
    verdict = place.verdict
    checks = [
        f"{check.reason or verdict.word}{f' ({check.file}, {check.where})' if check.file else ''}"
        for check in verdict.checks
    ]
    # Whatever the text or the data holds, a footnote says it and does nothing else.
    words = markdown.inert(f"{verdict.word}: {verdict.claim.words}: {'; '.join(checks)}")
    return f"Line {place.line}: {words}"


def _behind_code(line: str, end: int) -> int:
    """The place of a mark: behind the code span that a number stands in, if it stands in one."""
    if line[:end].count("`") % 2:
        closing = line.find("`", end)
        return closing + 1 if closing >= 0 else end
    return end
