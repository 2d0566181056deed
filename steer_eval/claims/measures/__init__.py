"""The registry of named measures.

Invariant: a claim can only name a measure that stands here, and every measure states its definition and unit.
"""

from steer_eval.claims.measures import cells, counts, features, published, remeasured, sweeps, vectors
from steer_eval.claims.measures.measure import Case, Evidence, Measure, Needs, NotCheckable, Observation

REGISTRY: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        *vectors.MEASURES,
        *sweeps.MEASURES,
        *counts.MEASURES,
        *remeasured.MEASURES,
        *published.MEASURES,
        *cells.MEASURES,
        *features.MEASURES,
    )
}

__all__ = ["REGISTRY", "Case", "Evidence", "Measure", "Needs", "NotCheckable", "Observation"]
