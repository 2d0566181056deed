"""Rules on claims.

Invariant: what a claim or a tolerance names is there: a measure of the registry, something in the study that it can be
taken on, and an expected value of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.measures import REGISTRY, Measure, NotCheckable
from steer_eval.claims.measures.measure import selected_model
from steer_eval.findings import Finding
from steer_eval.study import Study

_OF_THE_STUDY = frozenset({"contrast_pair_count", "prompt_count", "corpus_words"})
"""Measures of what all models of a study share, so that a claim need not name one."""


def check_claims(study: Study, file: str) -> list[Finding]:
    """What is wrong with the claims and the tolerances of a study.

    Args:
        study: The study.
        file: What to call its own file.
    """
    findings: list[Finding] = []
    fix = f"the measures are {', '.join(sorted(REGISTRY))}"
    for name in study.tolerances:
        if name not in REGISTRY:
            message = f"no measure is called {name!r}, so the tolerance is never used"
            findings.append(Finding("tolerance-measure", "error", file, f"tolerances.{name}", message, None, name, fix))
    for index, claim in enumerate(study.claims):
        where = f"claims[{index}]"
        measure = REGISTRY.get(claim.measure)
        if measure is None:
            message = f"no measure is called {claim.measure!r}, so {claim.id!r} can't be checked"
            findings.append(
                Finding("claim-measure", "error", file, f"{where}.measure", message, None, claim.measure, fix)
            )
        else:
            findings += _select(study, claim, measure, file, where)
            findings += _expected(claim, measure, file, where)
    return findings


def _select(study: Study, claim: Claim, measure: Measure, file: str, where: str) -> Iterator[Finding]:
    refusal = _refusal(study, claim.select, measure)
    if refusal:
        message = f"{measure.name} can't be taken for {claim.id!r}: {refusal}"
        observed, fix = str(claim.select), _what_there_is(study)
        yield Finding("claim-select", "error", file, f"{where}.select", message, None, observed, fix)


def _refusal(study: Study, select: Selector, measure: Measure) -> str:
    """Why a measure can't be taken on what is selected; empty if it can."""
    try:
        # A claim about a file's variants says which file, and thereby all that there is to say.
        if measure.name not in _OF_THE_STUDY and select.file is None:
            selected_model(study, select)
        needs = measure.needs(study, select)
    except NotCheckable as why:
        return str(why)
    strays = sorted(layer for name, layer in needs.vectors if layer not in study.vector_layers(name))
    return f"the study has no vector of layer {', '.join(map(str, strays))}" if strays else ""


def _what_there_is(study: Study) -> str:
    def listed(numbers: tuple[float, ...]) -> str:
        return ", ".join(f"{number:g}" for number in numbers)

    sweep = study.sweep
    return (
        f"the models are {', '.join(study.models)}; vectors of layers {listed(study.extraction.layers)}; cells of "
        f"layers {listed(sweep.layers)} with coefficients {listed(sweep.coefficients)}, random ones have text at "
        f"{listed(sweep.random_text_coefficients) or 'none'}"
    )


def _expected(claim: Claim, measure: Measure, file: str, where: str) -> Iterator[Finding]:
    is_truth_value, wants_truth_value = isinstance(claim.expected, bool), measure.unit == "truth value"
    if is_truth_value != wants_truth_value:
        wanted = "a truth value" if wants_truth_value else "a number"
        observed = claim.expected if isinstance(claim.expected, bool) else claim.expected.text
        message = f"{measure.name} gives {wanted}, which {claim.id!r} does not expect"
        fix = "write true or false, without quotes" if wants_truth_value else "write the number as printed, quoted"
        yield Finding("claim-expected", "error", file, f"{where}.expected", message, wanted, observed, fix)
