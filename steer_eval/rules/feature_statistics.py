"""Rules on the statistics of a feature table.

Invariant: only tables that have statistics are held to them, and only what follows from the numbers of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.findings import Finding
from steer_eval.formats.features import FeatureRow, FeatureTable, RowStatistics, TableStatistics
from steer_eval.inventory import Artifact

_RELATIVE = 3e-6
_LEVEL = 0.05
_AGAIN = "make the table again with `steer-eval sae features`"


def statistics_findings(artifact: Artifact) -> Iterator[Finding]:
    """What does not follow in the statistics of a feature table.

    Args:
        artifact: The table.
    """
    table: FeatureTable = artifact.value
    if table.statistics is None:
        return
    for where, message, expected, observed in _of_table(table, table.statistics):
        yield Finding("feature-statistics", "error", artifact.file, where, message, expected, observed, _AGAIN)


_Complaint = tuple[str, str, object, object]


def _of_table(table: FeatureTable, whole: TableStatistics) -> Iterator[_Complaint]:
    for index, row in enumerate(table.rows):
        where = f"top_features[{index}]"
        if row.feature >= whole.n_features:
            yield f"{where}.feature_id", "the SAE has fewer features", f"< {whole.n_features}", row.feature
        if row.statistics:
            yield from _of_row(row, row.statistics, where)
            yield from _of_tokens(row, row.statistics, whole, table.n_prompts, where)
    for name, count in whole.discoveries.items():
        changes = [row.statistics.changes.get(name) for row in table.rows if row.statistics]
        shown = sum(change is not None and change.q <= _LEVEL for change in changes)
        if not shown <= count <= whole.n_features:
            message = f"{shown} of the rows alone have a q-value up to {_LEVEL}, and the SAE has {whole.n_features}"
            yield f"discoveries.{name}", message, f"{shown} to {whole.n_features}", count


def _of_row(row: FeatureRow, its: RowStatistics, where: str) -> Iterator[_Complaint]:
    effect = abs(row.delta) * its.decoder_norm
    if abs(its.effect - effect) > _RELATIVE * effect:
        yield f"{where}.effect", "it is not |delta| * decoder_norm", effect, its.effect
    for name, change in its.changes.items():
        if change.low is None or change.high is None:
            continue
        slack = _RELATIVE * max(abs(change.delta), abs(change.low), abs(change.high))
        if not change.low - slack <= change.delta <= change.high + slack:
            interval = [change.low, change.high]
            yield f"{where}.{name}_interval", f"{name} lies outside its interval", interval, change.delta


def _of_tokens(
    row: FeatureRow, its: RowStatistics, whole: TableStatistics, n_prompts: int, where: str
) -> Iterator[_Complaint]:
    """A feature fires on a whole number of tokens, and on no fewer than on prompts."""
    sides = (
        ("steered", its.steered_token_freq, row.steered_freq),
        ("base", its.base_token_freq, row.base_freq),
    )
    for side, by_token, by_prompt in sides:
        tokens = by_token * whole.tokens[side]
        field = f"{where}.{side}_token_freq"
        if abs(tokens - round(tokens)) > max(1e-3, _RELATIVE * tokens):
            message = f"the frequency is no whole number of the {whole.tokens[side]} tokens"
            yield field, message, round(tokens) / whole.tokens[side], by_token
        elif round(tokens) < round(by_prompt * n_prompts) or (round(tokens) > 0) != (by_prompt > 0):
            message = "the feature fires on fewer tokens than prompts, or on tokens of no prompt"
            yield field, message, f">= {round(by_prompt * n_prompts)} tokens", round(tokens)
