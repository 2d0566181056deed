"""What a line says of the order of a feature table, beside the number of its features.

Invariant: a ranking `by delta` that is one by the size of delta is a warning and never changes a verdict: the number of
features is judged apart from the words around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from steer_eval.claims.claim import Selector
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.extract.file_rows import names_file
from steer_eval.claims.fact import Facts
from steer_eval.findings import Finding

_BY_DELTA = re.compile(r"\b(?:ranked|sorted|ordered|top-?[0-9]*)\b[^|.;]{0,40}\bby\b[^|.;]{0,60}(?:\bdelta\b|Δ)", re.I)
_BY_SIZE = re.compile(r"\babs(?:olute)?\b|\bmagnitude\b|\bsize of\b|\\?\|\s?(?:delta|Δ)|\bunsigned\b", re.IGNORECASE)


def ranking_warnings(extracted: Extracted, line: str, facts: Facts) -> Iterator[Finding]:
    """Feature tables that a line says are ranked by delta, and that are in the order of its size.

    Args:
        extracted: A claim; only those about the number of features of files are looked at.
        line: The line that it stands in.
        facts: What the data says.
    """
    claim = extracted.claim
    if claim.measure != "feature_count" or not _BY_DELTA.search(line) or _BY_SIZE.search(line):
        return
    said = set()
    for fact in facts.find("feature_rank", Selector()):
        file, feature = fact.select.file or "", fact.select.feature
        by_delta = facts.find("feature_rank_by_delta", fact.select)[0]
        if file in said or by_delta.value == fact.value:
            continue
        if any(names_file(pattern, file) for pattern in (claim.select.file or "").split("|")):
            said.add(file)
            delta = float(facts.find("feature_delta", fact.select)[0].value)
            message = (
                f"the words say that the features are ranked by delta, but in {file} {fact.note}; feature {feature} "
                f"stands in place {fact.value:g} with delta {delta:.3g} ({fact.where})"
            )
            fix = "say that the ranking is by the size of delta"
            yield Finding("feature-ranking", "warning", "", f"line {extracted.line}", message, None, delta, fix)
