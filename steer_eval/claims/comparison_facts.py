"""Facts of a comparison of methods.

Invariant: a method and its control are found by the method's name (`variant`) and their label, and never by the layer
and coefficient that cells of the sweep are found by. The unsteered row has no facts: the sweep has that cell as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import Fact
from steer_eval.comparison.cells import UNSTEERED
from steer_eval.comparison.table import texts_changed
from steer_eval.inventory import Inventory
from steer_eval.results import SweepRow
from steer_eval.results_files import comparison_row_from_json


def comparison_facts(inventory: Inventory) -> Iterator[Fact]:
    """Facts of all comparisons.

    Args:
        inventory: What the repos hold.
    """
    for artifact in inventory.of("comparison"):
        model = artifact.name.removeprefix("comparison_").removesuffix(".jsonl")
        rows = [comparison_row_from_json(row.value, model, row.line) for row in artifact.value]
        plain = next((row for row in rows if row.cell.variant == UNSTEERED), None)
        for row in rows:
            if row.cell.label != "zero":
                yield from _of_row(row, plain, artifact.file)


def _of_row(row: SweepRow, plain: SweepRow | None, file: str) -> Iterator[Fact]:
    select, where = Selector(row.cell.model, row.cell.label, variant=row.cell.variant), f"line {row.line}"
    numbers: dict[str, float | bool] = {
        "perplexity": row.ppl,
        "perplexity_ratio": row.ppl_ratio,
        "collapsed": row.collapsed,
    }
    if row.interval is not None:
        numbers |= {"perplexity_ratio_low": row.interval.low, "perplexity_ratio_high": row.interval.high}
    if row.edits is not None and len(row.edits) == 1:
        [edit] = row.edits
        numbers["applied_layer"] = edit["layer"]
        if "coefficient" in edit:
            numbers["applied_coefficient"] = edit["coefficient"]
    if (changed := texts_changed(row, plain)) is not None:
        numbers["texts_changed"] = changed
    for measure, value in numbers.items():
        yield Fact(measure, select, value, file, where)
