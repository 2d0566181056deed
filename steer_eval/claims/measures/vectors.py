"""Measures of steering vectors."""

from __future__ import annotations

from steer_eval.claims.claim import Selector
from steer_eval.claims.measures.measure import Case, Measure, Needs, NotCheckable, Observation, selected_model
from steer_eval.consistency import vector_conflicts
from steer_eval.formats.vector import SteeringVector, cosine
from steer_eval.results import Results
from steer_eval.study import Study


def _layer(select: Selector) -> int:
    if select.layer is None:
        raise NotCheckable("the claim names no layer")
    return select.layer


def _vector(case: Case, results: Results) -> SteeringVector:
    path = results.vector_file(case.model, _layer(case.select))
    vector = results.vectors.get((case.model, _layer(case.select)))
    if vector is None:
        raise NotCheckable(results.why_absent(path))
    return vector


def _needs(study: Study, select: Selector) -> Needs:
    return Needs(vectors=frozenset({(selected_model(study, select), _layer(select))}))


def _norm(case: Case) -> Observation:
    vector = _vector(case, case.results)
    conflict = "; ".join(str(conflict) for conflict in vector_conflicts(vector))
    file = case.results.vector_file(case.model, _layer(case.select))
    return Observation(vector.norm, file, "vector", conflict=conflict)


def _cosine(case: Case) -> Observation:
    if case.published is None:
        raise NotCheckable("needs a re-run")
    again, published = _vector(case, case.results), _vector(case, case.published)
    if not (again.norm and published.norm):
        raise NotCheckable("a vector of norm 0 has no direction")
    value = cosine(again, published)
    return Observation(value, case.results.vector_file(case.model, _layer(case.select)), "vector")


MEASURES = (
    Measure("vector_norm", "Euclidean norm of the steering vector of a layer", "residual units", _norm, _needs),
    Measure(
        "vector_cosine",
        "cosine between the published steering vector of a layer and the one derived again from the contrast pairs",
        "cosine",
        _cosine,
        _needs,
        frozenset({"re-run"}),
    ),
)
