"""Verdicts: what became of each claim.

Invariant: a verdict is a pure function of the claim, the study and the results. It is the worst of its checks, each on
evidence of its own; a check that could not be made is shown with its reason and never hides one that could.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from steer_eval.claims.claim import Claim
from steer_eval.claims.measures import REGISTRY, Case, Evidence, Measure, Needs, NotCheckable, Observation
from steer_eval.claims.printed import Printed
from steer_eval.results import Results
from steer_eval.study import Study, Tolerance

Word = Literal["contradicted", "drifted", "inconclusive", "not-checkable", "reproduced"]
WORDS: tuple[Word, ...] = ("contradicted", "drifted", "inconclusive", "not-checkable", "reproduced")
"""The words, worst first."""

NO_RERUN = ("needs a re-run", "no model was run, see the findings")
"""Why no check was made on a re-run: none was asked for, or none could be made."""

NO_JUDGE = "no judge"
"""Why a score is not checked on new generations: only the judge who gave it can do that."""

_BOUNDS = ("<", ">", "≤", "≥")

FAILING: frozenset[Word] = frozenset({"contradicted", "drifted", "inconclusive"})


@dataclass(frozen=True)
class Check:
    """One comparison of a claim with evidence (`schemas/verdict.schema.json`)."""

    evidence: Evidence
    observed: float | bool | None
    tolerance: str
    verdict: Word
    reason: str
    file: str
    where: str


@dataclass(frozen=True)
class Verdict:
    """What became of one claim.

    Args:
        claim: The claim.
        file: File in which it stands.
        line: Line in that file, where known.
        checks: Published data first, then the re-run.
    """

    claim: Claim
    file: str
    line: int | None
    checks: tuple[Check, ...]

    @property
    def word(self) -> Word:
        """The worst of the checks; `not-checkable` only if nothing was checked."""
        words = {check.verdict for check in self.checks}
        return next((word for word in WORDS if word in words and word != "not-checkable"), "not-checkable")

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON object."""
        expected = self.claim.expected
        return {
            "id": self.claim.id,
            "claim": self.claim.words,
            "source": {"file": self.file, "line": self.line},
            "measure": self.claim.measure,
            "expected": expected if isinstance(expected, bool) else expected.text,
            "verdict": self.word,
            "checks": [asdict(check) for check in self.checks],
        }


@dataclass(frozen=True)
class Rerun:
    """What a re-run has to show.

    Args:
        results: Its results.
        same_machine_class: For each model, whether it was re-run on the machine class of the published results; None
            if that is unknown.
    """

    results: Results
    same_machine_class: Mapping[str, bool | None]


def judge(
    study: Study,
    published: Results,
    rerun: Rerun | None,
    *,
    file: str = "study.yaml",
    why_no_rerun: str = NO_RERUN[0],
) -> tuple[Verdict, ...]:
    """Judge every claim of a study.

    Args:
        study: The study with its claims.
        published: What was published.
        rerun: What a re-run measured, if there was one.
        file: Where the claims stand.
        why_no_rerun: What to say of checks that a re-run would make.
    """
    return tuple(
        Verdict(claim, file, _line(study.text, claim.id), _checks(claim, study, published, rerun, why_no_rerun))
        for claim in study.claims
    )


def judge_text(
    verdicts: Sequence[Verdict],
    study: Study,
    published: Results,
    rerun: Rerun | None,
    *,
    why_no_rerun: str = NO_RERUN[0],
) -> tuple[Verdict, ...]:
    """Verdicts on the words of a text, each with what a re-run says beside the published data.

    Args:
        verdicts: The verdicts by the published data.
        study: The study that the text is about.
        published: What was published.
        rerun: What a re-run measured, if there was one.
        why_no_rerun: What to say of checks that a re-run would make.
    """
    found = []
    for verdict in verdicts:
        measure = REGISTRY.get(verdict.claim.measure)
        again: tuple[Check, ...] = ()
        # A bound is no number that a re-run could give, and what is not understood is not checked on anything.
        bounded = any(check.tolerance.startswith(_BOUNDS) for check in verdict.checks)
        if measure is not None and not bounded:
            again = _again(verdict.claim, measure, study, published, rerun, why_no_rerun)
        found.append(replace(verdict, checks=(*verdict.checks, *again)))
    return tuple(found)


def needs(study: Study, claims: Sequence[Claim]) -> Needs:
    """What a re-run must measure to check some claims; claims that can't be checked need nothing."""
    total = Needs()
    for claim in claims:
        measure = REGISTRY.get(claim.measure)
        if measure is not None:
            try:
                total |= measure.needs(study, claim.select)
            except NotCheckable:
                continue
    return total


def _line(text: str, claim_id: str) -> int | None:
    for number, line in enumerate(text.splitlines(), start=1):
        key, _, value = line.strip().removeprefix("- ").partition(":")
        if key.strip("{ ") == "id" and value.split(",")[0].strip(" '\"}") == claim_id:
            return number
    return None


def _checks(
    claim: Claim, study: Study, published: Results, rerun: Rerun | None, why_no_rerun: str
) -> tuple[Check, ...]:
    measure = REGISTRY.get(claim.measure)
    if measure is None:
        known = ", ".join(sorted(REGISTRY))
        return (_not_checkable("published data", f"no measure is called {claim.measure!r}; there are {known}"),)
    checks = []
    if "published data" in measure.evidence:
        checks.append(_check_published(claim, measure, Case(study, claim.select, published)))
    return (*checks, *_again(claim, measure, study, published, rerun, why_no_rerun))


def _again(
    claim: Claim, measure: Measure, study: Study, published: Results, rerun: Rerun | None, why_no_rerun: str
) -> tuple[Check, ...]:
    """The check on a re-run, of what a re-run can show."""
    if "re-run" in measure.evidence and measure.is_rerun(study, claim.select):
        if rerun is None:
            return (_not_checkable("re-run", why_no_rerun),)
        return (_check_rerun(claim, measure, Case(study, claim.select, rerun.results, published), rerun),)
    if measure.is_judged(claim.select):
        asked = rerun is not None or why_no_rerun != NO_RERUN[0]
        return (_not_checkable("re-run", NO_JUDGE if asked else why_no_rerun),)
    return ()


def _not_checkable(evidence: Evidence, reason: str) -> Check:
    return Check(evidence, None, "", "not-checkable", reason, "", "")


def _check_published(claim: Claim, measure: Measure, case: Case) -> Check:
    try:
        observation = measure.observe(case)
    except NotCheckable as why:
        return _not_checkable("published data", str(why))
    if isinstance(claim.expected, bool) or _is_exact(claim.expected, measure, observation):
        holds, tolerance = _equal(claim, observation), "exact"
    else:
        holds, tolerance = claim.expected.covers(observation.value), f"±{claim.expected.rounding:g}"
    return _check("published data", observation, tolerance, "reproduced" if holds else "contradicted")


def _check_rerun(claim: Claim, measure: Measure, case: Case, rerun: Rerun) -> Check:
    try:
        same_machine_class = rerun.same_machine_class.get(case.model)
        observation = measure.observe(case)
    except NotCheckable as why:
        return _not_checkable("re-run", str(why))
    word: Word
    if isinstance(claim.expected, bool) or _is_exact(claim.expected, measure, observation):
        tolerance = "exact"
        if _equal(claim, observation):
            word = "reproduced"
        else:
            # Greedy text may part ways at any token on other hardware; a flag or a count of the data may not.
            elsewhere = measure.name == "identical_generations" and not same_machine_class
            word = "drifted" if elsewhere else "contradicted"
    else:
        allowed = case.study.tolerances.get(measure.name, measure.tolerance)
        tolerance, word = _within(claim.expected, observation.value, allowed)
    check = _check("re-run", observation, tolerance, word)
    if word == "drifted" and same_machine_class is not True:
        known = "another machine class than" if same_machine_class is False else "no record of the machine class of"
        reason = "; ".join(part for part in (check.reason, f"{known} the published measurement") if part)
        return Check(**{**asdict(check), "reason": reason})
    return check


def _is_exact(expected: Printed, measure: Measure, observation: Observation) -> bool:
    """Whether a number must be met exactly: counts and coefficients, unless they are printed with a `~`."""
    return isinstance(observation.value, bool) or (measure.exact and not expected.approximate)


def _equal(claim: Claim, observation: Observation) -> bool:
    if isinstance(claim.expected, bool) or isinstance(observation.value, bool):
        return observation.value is claim.expected
    return observation.value == claim.expected.value


def _within(expected: Printed, observed: float, allowed: Tolerance | None) -> tuple[str, Word]:
    """Compare a re-run with a claim: the rounding of the printed number, and beyond it the study's tolerance."""
    if allowed is None:
        return f"±{expected.rounding:g}", "reproduced" if expected.covers(observed) else "contradicted"
    distance, reach = abs(observed - expected.value), expected.reach(observed)
    excess = max(0.0, distance - reach)
    if allowed.scale == "relative":
        nearest = expected.value + math.copysign(min(reach, distance), observed - expected.value)
        comparable = observed > 0 and nearest > 0
        excess = abs(math.log(observed / nearest)) if comparable else math.inf if excess else 0.0
        text = f"±{allowed.reproduced:.3g} relative"
    else:
        text = f"±{allowed.reproduced:.3g}"
    if not math.isfinite(observed) or excess > allowed.drifted:
        return text, "contradicted"
    return text, "reproduced" if excess <= allowed.reproduced else "drifted"


def _check(evidence: Evidence, observation: Observation, tolerance: str, word: Word) -> Check:
    reasons = [observation.note]
    if observation.conflict:
        word = "contradicted"
        reasons.insert(0, observation.conflict)
    elif observation.undecided and word == "reproduced":
        word = "inconclusive"
        reasons.insert(0, observation.undecided)
    elif word in {"contradicted", "drifted"}:
        reasons.insert(0, _has(evidence, observation.value))
    reason = "; ".join(part for part in reasons if part)
    return Check(evidence, observation.value, tolerance, word, reason, observation.file, observation.where)


def _has(evidence: Evidence, value: float | bool) -> str:
    """What some evidence has instead of what is claimed."""
    source = "the published data" if evidence == "published data" else "the re-run"
    if isinstance(value, bool):
        return f"by {source} it is {'' if value else 'not '}so"
    return f"{source} {'have' if evidence == 'published data' else 'has'} {value:.6g}"
