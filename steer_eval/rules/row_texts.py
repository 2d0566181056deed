"""Rules on the texts of a measured row, of a sweep or of a comparison of methods.

Invariant: a text answers the evaluation prompt of its number, and what is recorded of its length fits it.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.findings import Finding
from steer_eval.results import Results, SweepRow, Text
from steer_eval.study import Study

_AGAIN = "measure the row again; never edit measured rows"


def prompt_findings(study: Study, row: SweepRow, results: Results, file: str) -> Iterator[Finding]:
    """Prompts of texts that are not those of the study.

    Args:
        study: The study.
        row: The row.
        results: The prompts, where they could be read.
        file: The row's file.
    """
    if results.prompts is None:
        return
    for text in row.generations:
        known = results.prompts[text.prompt_idx] if text.prompt_idx < len(results.prompts) else None
        if known != text.prompt:
            message = f"the prompt is not number {text.prompt_idx} of {study.sweep.prompts}"
            where = f"line {row.line}: generations"
            yield Finding("sweep-prompt", "error", file, where, message, known, text.prompt, _AGAIN)


def text_length_findings(study: Study, row: SweepRow, file: str) -> Iterator[Finding]:
    """Lengths that fit neither the text nor the study's limit.

    Args:
        study: The study.
        row: The row.
        file: The row's file.
    """
    for text in row.generations:
        for message, expected, observed in _wrong_lengths(text, study.sweep.max_new_tokens):
            where = f"line {row.line}: prompt {text.prompt_idx}"
            yield Finding("sweep-text", "error", file, where, message, expected, observed, _AGAIN)


def _wrong_lengths(text: Text, limit: int) -> Iterator[tuple[str, int, int]]:
    """A message, what should be and what is, for each wrong length."""
    if text.n_tokens is not None and text.n_tokens > limit:
        yield f"n_tokens is {text.n_tokens}, above the study's max_new_tokens {limit}", limit, text.n_tokens
    elif text.n_tokens is not None and text.stop == "length" and text.n_tokens != limit:
        yield f"stop is length, but n_tokens is {text.n_tokens} and not max_new_tokens {limit}", limit, text.n_tokens
    if text.determined is not None and text.determined > len(text.gen):
        length = len(text.gen)
        yield f"determined is {text.determined}, but the text has {length} characters", length, text.determined
