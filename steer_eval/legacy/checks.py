"""What was checked of the files, and what came of it.

Invariant: a family of rules is listed only where there is a file that it applies to; its result is the worst that its
findings say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from steer_eval.findings import SEVERITIES, Finding, Severity, worst
from steer_eval.inventory import TABLES
from steer_eval.legacy.study import LegacyStudy
from steer_eval.rules.catalogue import rows_by_name

_VECTORS = frozenset({"vector", "vector_pt"})
_VARIANTS = frozenset({"transfer_eval", "phase_i"})
_TRANSFERS = frozenset({"transferred", "transferred_pt", "transfer_map", "transfer_map_pt", "latent_diff"})


@dataclass(frozen=True)
class _Family:
    """Rules that are told of together: their names, or beginnings that end with `-`; and the kinds of files."""

    what: str
    rules: tuple[str, ...]
    kinds: frozenset[str]


_FAMILIES = (
    _Family(
        "every file is read by the strict reader of its kind; every number is finite, every row satisfies its schema",
        ("not-finite", "table", "file-refused", "vector", "symlink"),
        frozenset(),
    ),
    _Family(
        "norm, layer, width, model and number of pairs that a vector records are those of its values, its name, its "
        "siblings and the published pairs",
        ("vector-norm", "vector-layer", "vector-model", "vector-shape", "vector-pairs", "vector-weights"),
        _VECTORS,
    ),
    _Family("no evaluation prompt is a scenario of the contrast pairs", ("prompt-leak",), frozenset({"eval_prompts"})),
    _Family(
        "in every cell of a sweep the ratio is that of the two perplexities, the unsteered one is the same everywhere, "
        "and the mark of collapse follows from the ratio",
        ("sweep-arithmetic", "sweep-base"),
        frozenset({"sweep"}),
    ),
    _Family(
        "each sweep has every cell of its grid once, with one text per prompt, in the order of the published prompts",
        ("sweep-missing", "sweep-duplicate", "sweep-texts", "sweep-prompt"),
        frozenset({"sweep"}),
    ),
    _Family("summaries repeat the sweeps and vectors exactly", ("summary-differs",), frozenset({"size_comparison"})),
    _Family(
        "each margin is the difference of its two axes, and each score is of a cell or variant that is published and "
        "that has text",
        ("judge-",),
        frozenset({"judge", "judge_labels"}),
    ),
    _Family(
        "what is recorded of a variant follows from its own numbers, from the sweeps and from the vectors",
        ("evaluation-", "texts-identical", "collapse-unmarked", "feature-unlisted"),
        _VARIANTS,
    ),
    _Family(
        "each feature's change is the difference of its means, its frequencies are shares of the prompts, and tables "
        "are sorted by the size of the change",
        ("feature-arithmetic", "feature-duplicate", "feature-order", "feature-frequency", "feature-sae", "sae-"),
        frozenset({"features"}),
    ),
    _Family(
        "feature tables are measured under the same coefficient", ("feature-coefficient",), frozenset({"features"})
    ),
    _Family(
        "vectors that were carried over are the published ones and were measured as they are published; recorded "
        "cosines and correlations say something",
        ("transfer-", "alignment-degenerate"),
        _TRANSFERS,
    ),
)


@dataclass(frozen=True)
class Checked:
    """One thing that was checked: what, and the worst that was found; None if it holds throughout."""

    what: str
    worst: Severity | None


@dataclass(frozen=True)
class Trouble:
    """What one rule found: how bad, what it means, and in which files."""

    rule: str
    severity: Severity
    summary: str
    files: tuple[str, ...]


def checked(study: LegacyStudy) -> Iterator[Checked]:
    """What was checked of a study's files."""
    kinds = {artifact.kind for artifact in study.inventory.artifacts if artifact.value is not None}
    for family in _FAMILIES:
        if not family.kinds or family.kinds & kinds:
            found = [finding for finding in study.findings if _belongs(finding.rule, family.rules)]
            yield Checked(family.what, worst(found))


def _belongs(rule: str, rules: Iterable[str]) -> bool:
    return any(rule == each or (each.endswith("-") and rule.startswith(each)) for each in rules)


def troubles(findings: Iterable[Finding]) -> list[Trouble]:
    """Findings by rule and severity, the worst first; what only a note says is left out."""
    grouped: dict[tuple[str, Severity], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.rule, finding.severity), []).append(finding)
    catalogue = rows_by_name()
    result = []
    for severity in SEVERITIES[:2]:
        for (rule, its), members in grouped.items():
            if its == severity:
                summary = next((row.summary for row in catalogue.get(rule, ()) if row.severity == severity), rule)
                files = tuple(dict.fromkeys(finding.file for finding in members))
                result.append(Trouble(rule, severity, summary, files))
    return result


def row_count(study: LegacyStudy, kind: str) -> int | None:
    """Rows of the only table of a kind; None without one."""
    found = next((artifact for artifact in study.inventory.of(kind) if artifact.kind in TABLES), None)
    return len(found.value) if found else None
