"""Best cells that are not the only ones: what a study says of them, beside the verdict.

Invariant: a tie never changes a verdict. The number and the word "best" are judged apart, so that a claim which holds
and leaves out that others are as good gets a warning that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from steer_eval.claims.measures.cells import ties_of
from steer_eval.claims.measures.measure import Case
from steer_eval.claims.verdict import Verdict
from steer_eval.findings import Finding
from steer_eval.results import Results
from steer_eval.study import Study


def tie_warnings(verdicts: Iterable[Verdict], study: Study, published: Results, file: str) -> Iterator[Finding]:
    """Claims of a study that a cell is the best, which holds of others as well.

    Args:
        verdicts: The verdicts on its claims.
        study: The study.
        published: What was published.
        file: What to call the file that the claims stand in.
    """
    for verdict in verdicts:
        claim = verdict.claim
        if claim.measure != "best_cell" or claim.expected is not True or verdict.word != "reproduced":
            continue
        tied = ties_of(Case(study, claim.select, published))
        if tied:
            where = f"line {verdict.line}: {claim.id}" if verdict.line else claim.id
            fix = "say by which rule one of them was chosen"
            yield Finding("best-cell-tie", "warning", file, where, tied, None, str(claim.select), fix)
