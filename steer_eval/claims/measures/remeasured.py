"""Measures of SAEs, of the features that steering changes and of transfers, published and measured again.

Invariant: each looks up one fact. Published numbers are facts of the repos' files, those of a re-run facts of the same
documents in the run directory; where a selector fits several different numbers the claim is not checkable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from steer_eval.claims.claim import Selector
from steer_eval.claims.diagnostic_facts import OF_MAPS, OF_ROWS
from steer_eval.claims.fact import DEFINITIONS, Facts
from steer_eval.claims.measures.measure import Case, Measure, Needs, NotCheckable, Observation
from steer_eval.claims.measures.published import conflict_of, observation_of, only
from steer_eval.claims.measures.rule import comparisons
from steer_eval.claims.result_facts import result_facts
from steer_eval.claims.wording import quantity
from steer_eval.formats.features import CHANGES
from steer_eval.formats.saelens import folder_name
from steer_eval.results import Results
from steer_eval.sae.plan import SaePlan
from steer_eval.sae.results import features_file, quality_file
from steer_eval.study import Study, Tolerance


@dataclass(frozen=True)
class _Document:
    """What a re-run makes again for some measures.

    Args:
        file: Its path in the run directory.
        needs: What has to be measured for it.
        table: Which of the results it stands among.
        key: Where it stands there.
        model: Model that its numbers are of.
        layer: Layer that they are of.
    """

    file: str
    needs: Needs
    table: Literal["saes", "feature_tables", "transfers"]
    key: tuple[str, int] | str
    model: str
    layer: int

    def is_in(self, results: Results) -> bool:
        """Whether it was measured."""
        return self.key in getattr(results, self.table)


_Planned = Callable[[Study, Selector], list[_Document]]
"""What of a study's plans a selector fits."""


def _qualities(study: Study, select: Selector) -> list[_Document]:
    found = []
    for plan in _saes(study, select):
        key = (plan.model, plan.layer)
        file = quality_file(*key)
        # A published SAE says itself how good it is.
        if select.file in (None, file) or select.file.startswith(f"{folder_name(*key)}/"):
            found.append(_Document(file, Needs(saes=frozenset({key})), "saes", key, *key))
    return found


def _tables(study: Study, select: Selector) -> list[_Document]:
    found = []
    for plan in _saes(study, select):
        key = (plan.model, plan.layer)
        file = features_file(*key)
        if plan.table and select.coef in (None, plan.table.coefficient) and select.file in (None, file):
            found.append(_Document(file, Needs(features=frozenset({key})), "feature_tables", key, *key))
    return found


def _saes(study: Study, select: Selector) -> list[SaePlan]:
    return [plan for plan in study.saes if select.model in (None, plan.model) and select.layer in (None, plan.layer)]


def _diagnostics(study: Study, select: Selector) -> list[_Document]:
    found = []
    for plan in study.transfers:
        end, file = plan.target, plan.diagnostics_file
        fits = select.model in (None, end.model) and select.layer in (None, end.layer) and select.file in (None, file)
        if fits:
            # `plain ridge` is a map of the protocol `plain`; without such a name, the planned one is meant.
            named = (select.variant or "").split(" ")[0]
            protocol = named if named in plan.protocols else plan.protocol
            needs = Needs(transfers=frozenset({(plan.name, protocol)}))
            found.append(_Document(file, needs, "transfers", plan.name, end.model, end.layer))
    return found


def _needs(planned: _Planned) -> Callable[[Study, Selector], Needs]:
    def needs(study: Study, select: Selector) -> Needs:
        documents = planned(study, select)
        if len(documents) > 1:
            raise NotCheckable(_several(select, documents))
        # What is published without a plan can be checked as it is, and is not made again.
        return documents[0].needs if documents else Needs()

    return needs


def _several(select: Selector, documents: list[_Document]) -> str:
    files = ", ".join(document.file for document in documents)
    return f"the selector {str(select) or 'of the claim'!r} fits {len(documents)} of what the study plans: {files}"


def _place(case: Case, planned: _Planned) -> tuple[Facts, Selector]:
    """Where a case's numbers are looked up, and under which selector."""
    if case.results.facts is not None:
        return case.results.facts, case.select
    documents = planned(case.study, case.select)
    if len(documents) > 1:
        raise NotCheckable(_several(case.select, documents))
    if not documents:
        raise NotCheckable(f"the study plans none of {str(case.select) or 'these'}, so it was not measured")
    [document] = documents
    if not document.is_in(case.results):
        raise NotCheckable(case.results.why_absent(document.file))
    select = replace(case.select, model=document.model, layer=document.layer, file=document.file)
    return result_facts(case.results), select


def _look_up(measure: str, planned: _Planned) -> Callable[[Case], Observation]:
    def observe(case: Case) -> Observation:
        facts, select = _place(case, planned)
        found = facts.find(measure, select)
        if planned is _diagnostics:
            # No variant is one of them: what is of the rows, under the planned protocol.
            found = [fact for fact in found if fact.select.variant == select.variant]
        return observation_of(only(found, measure, select))

    return observe


def _measure(name: str, unit: str, tolerance: Tolerance | None, planned: _Planned) -> Measure:
    return Measure(
        name,
        DEFINITIONS[name],
        unit,
        _look_up(name, planned),
        _needs(planned),
        is_rerun=lambda study, select: bool(planned(study, select)),
        tolerance=tolerance,
    )


def _absolute(reproduced: float, drifted: float) -> Tolerance:
    return Tolerance("absolute", reproduced, drifted)


def _relative(reproduced: float, drifted: float) -> Tolerance:
    return Tolerance("relative", reproduced, drifted)


_NATS = _absolute(0.005, 0.05)
_ACTIVATION = _absolute(0.02, 0.2)
_PER_CENT = _absolute(1.0, 5.0)
_SHARE = _absolute(0.005, 0.05)
_OF_QUALITY: dict[str, tuple[str, Tolerance | None]] = {
    "sae_heldout_fvu": ("share of variance", _relative(0.005, 0.05)),
    "sae_l0": ("features per token", _relative(0.005, 0.05)),
    "sae_heldout_tokens": ("count", None),
    "sae_clean_cross_entropy": ("nats per token", _NATS),
    "sae_cross_entropy": ("nats per token", _NATS),
    "sae_excess_cross_entropy": ("nats per token", _NATS),
    "sae_recovered_cross_entropy": ("share", _SHARE),
}
_OF_FEATURES: dict[str, tuple[str, Tolerance]] = {
    "feature_delta": ("activation", _ACTIVATION),
    "feature_base_mean": ("activation", _ACTIVATION),
    "feature_steered_mean": ("activation", _ACTIVATION),
    "feature_ratio": ("ratio", _relative(0.01, 0.1)),
    "feature_steered_frequency": ("per cent of prompts", _PER_CENT),
    "feature_base_frequency": ("per cent of prompts", _PER_CENT),
    "feature_steered_token_frequency": ("per cent of tokens", _PER_CENT),
    "feature_base_token_frequency": ("per cent of tokens", _PER_CENT),
    "feature_effect": ("residual units", _ACTIVATION),
    "feature_predicted": ("activation", _absolute(0.001, 0.01)),
    **{f"feature_{change}": ("activation", _ACTIVATION) for change in CHANGES},
    **{f"feature_{change}_{end}": ("activation", _ACTIVATION) for change in CHANGES for end in ("low", "high")},
    **{f"feature_{change}_q": ("share", _SHARE) for change in CHANGES},
    # No count that must be met exactly: features near the level change sides by the last bits of a sum.
    "feature_discoveries": ("features", _relative(0.01, 0.1)),
}
_OF_TESTS: dict[str, tuple[str, Tolerance | None]] = {
    "": ("", _SHARE),
    "_null": ("", _SHARE),
    "_p": ("share of draws", _absolute(0.03, 0.1)),
    "_exceeds_null": ("truth value", None),
}
_UNITS_OF_TESTS = {
    "transfer_cka": "alignment",
    "transfer_svcca": "correlation",
    "transfer_heldout_r2": "share of variance",
    "transfer_cosine": "cosine",
    "transfer_retrieval": "share of pairs",
}
_OF_TRANSFERS: dict[str, tuple[str, Tolerance | None]] = {
    **{
        f"{measure}{suffix}": (unit or _UNITS_OF_TESTS[measure], tolerance)
        for measure in (*OF_ROWS, *OF_MAPS)
        for suffix, (unit, tolerance) in _OF_TESTS.items()
    },
    "transfer_fitted_r2": ("share of variance", _SHARE),
    "transfer_norm_share": ("ratio", _relative(0.01, 0.1)),
    "transfer_rows": ("count", None),
    "transfer_split_half_cosine": ("cosine", _SHARE),
}
_OF_TRAINING = ("sae_dead_share", "sae_training_tokens")
"""Of the text that an SAE was trained on, which no re-run reads."""


def _passes(case: Case) -> Observation:
    measures = (*_OF_QUALITY, *_OF_TRAINING)
    rule = comparisons(case.select.rule, measures)
    facts, select = _place(case, _qualities)
    if not rule:
        raise NotCheckable("the claim states no rule, such as `sae_heldout_fvu <= 0.25`")
    select = replace(select, rule=None)
    compared = {each.measure: only(facts.find(each.measure, select), each.measure, select) for each in rule}
    note = ", ".join(f"{quantity(name)} {float(fact.value):.4g}" for name, fact in compared.items())
    first = compared[rule[0].measure]
    passes = all(each.holds(compared) for each in rule)
    return Observation(passes, first.file, first.where, conflict=conflict_of(compared.values()), note=note)


MEASURES = (
    *(_measure(name, *settings, _qualities) for name, settings in _OF_QUALITY.items()),
    *(_measure(name, *settings, _tables) for name, settings in _OF_FEATURES.items()),
    *(_measure(name, *settings, _diagnostics) for name, settings in _OF_TRANSFERS.items()),
    Measure(
        "sae_passes",
        "whether an SAE passes a rule, such as `sae_heldout_fvu <= 0.25 and sae_l0 <= 32`",
        "truth value",
        _passes,
        _needs(_qualities),
        is_rerun=lambda study, select: (
            bool(_qualities(study, select)) and not any(measure in (select.rule or "") for measure in _OF_TRAINING)
        ),
    ),
)
