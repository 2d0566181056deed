"""Rules on the texts that vectors are made from and measured with.

Invariant: every contrast pair says two things, no pair and no evaluation prompt counts twice, and there is something to
take perplexity on. Texts are compared as a whole, up to white space; nothing is said of texts that are merely alike.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.contrast import folded
from steer_eval.findings import Finding
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.study import Study

_NO_REPLIES = frozenset({"scenario", "category"})


def text_findings(inventory: Inventory, study: Study | None) -> list[Finding]:
    """What is wrong with contrast pairs, evaluation prompts and the perplexity corpus.

    Args:
        inventory: What the repos hold.
        study: The study, which names the replies of a pair. It reads its corpus itself, so that an empty one is not
            brought up here again.
    """
    findings: list[Finding] = []
    named = None if study is None else (study.extraction.positive, study.extraction.negative)
    for table in inventory.of("contrast_pairs"):
        findings += _pairs(table, named)
    for table in inventory.of("eval_prompts"):
        findings += _prompts(table)
    if study is None:
        for corpus in inventory.of("perplexity_corpus"):
            findings += _corpus(corpus)
    return findings


def _pairs(table: Artifact, named: tuple[str, str] | None) -> Iterator[Finding]:
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    for row in table.value:
        replies = _replies(row, named)
        texts = tuple((key, folded(replies[key])) for key in sorted(replies))
        whole = (("scenario", folded(row.value["scenario"])), *texts)
        if whole in seen:
            message = f"the pair stands in line {seen[whole]} already, so that it has twice the weight of the others"
            fix = "take one of the two out, and extract the vectors again"
            yield Finding("pair-duplicate", "warning", table.file, f"line {row.line}", message, fix=fix)
        seen.setdefault(whole, row.line)
        # Replies that differ in their case alone may be meant to: one of them shouts.
        if len(replies) == 2 and len({" ".join(reply.split()) for reply in replies.values()}) == 1:
            first, second = replies
            message = f"{first} and {second} are the same text, so that the pair says nothing of the persona"
            fix = "write two replies that differ, or take the pair out, and extract the vectors again"
            yield Finding("pair-equal", "error", table.file, f"line {row.line}", message, fix=fix)


def _replies(row: Row, named: tuple[str, str] | None) -> dict[str, str]:
    """The replies of a pair by their keys: those that the study names, or every text that is not known for another.

    Where there are more than two, nobody but a study can tell which of them are replies.
    """
    keys = named or [key for key in row.value if key not in _NO_REPLIES]
    return {key: row.value[key] for key in keys if key in row.value}


def _prompts(table: Artifact) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for row in table.value:
        prompt = row.value["scenario"]
        line = seen.setdefault(folded(prompt), row.line)
        if line != row.line:
            message = f"the prompt stands in line {line} already, so that its texts count twice"
            fix = "take one of the two out, and run the sweeps again"
            yield Finding("prompt-duplicate", "warning", table.file, f"line {row.line}", message, None, prompt, fix)


def _corpus(corpus: Artifact) -> Iterator[Finding]:
    if not corpus.value.strip():
        message = "the file is empty: there is nothing to take perplexity on"
        fix = "publish the text that the perplexities were taken on"
        yield Finding("corpus-empty", "error", corpus.file, "", message, fix=fix)
