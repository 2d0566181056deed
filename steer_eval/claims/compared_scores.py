"""Facts of judges' scores of a comparison of methods.

Invariant: such a score is found by its method (`variant`) and its label, and never by the layer and coefficient that
cells of the sweep are found by: a method is no cell of the sweep, and takes no part in what is the highest there.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import IMPUTED, Fact
from steer_eval.claims.variant_facts import scores
from steer_eval.inventory import Inventory
from steer_eval.judge.file_names import beside
from steer_eval.rules.compared_scores import comparisons, has_text, judged_model, key_of


def compared_score_facts(inventory: Inventory) -> Iterator[Fact]:
    """Facts of scores of methods and their controls.

    Args:
        inventory: What the repos hold.
    """
    from steer_eval.claims.facts import judge_of

    compared = comparisons(inventory)
    for artifact in inventory.of("judge_comparison"):
        model = judged_model(artifact, compared)
        if model is None:
            # Without the comparison nobody can tell what was judged; that is a finding.
            continue
        named = judge_of(beside(artifact.name), [model])
        silent = {key_of(row.value) for row in compared[model].value if not has_text(row)}
        for row in artifact.value:
            key = key_of(row.value)
            select = Selector(model, row.value["label"], judge=named[0] if named else None, variant=key[0])
            yield from scores(artifact, row.line, row.value, select, IMPUTED if key in silent else "")
