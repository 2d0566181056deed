"""Auditing a text: every number of it, against the published data.

Invariant: an audit is a pure function of the text and the inventory. Every number of the text has exactly one verdict,
with its line, but for those that a row of a table is found by; findings about the data stand beside the verdicts and
are never hidden by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from steer_eval.claims.claim import Selector
from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.extract.context import Context
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, SAYS_WHERE, Extracted
from steer_eval.claims.extract.layout import lay_out
from steer_eval.claims.extract.model_index import eval_result_claims, model_index_claims
from steer_eval.claims.extract.sentences import part_claims
from steer_eval.claims.extract.tables import table_claims
from steer_eval.claims.facts import Facts, facts_of, judge_of
from steer_eval.claims.lookup import check
from steer_eval.claims.names import ModelNames, model_names
from steer_eval.claims.ranking import ranking_warnings
from steer_eval.claims.verdict import Verdict
from steer_eval.claims.wording import words_of
from steer_eval.findings import Finding
from steer_eval.inventory import Inventory
from steer_eval.rules.sweep_files import sweep_files
from steer_eval.rules.vector_files import vectors_by_model


@dataclass(frozen=True)
class Place:
    """Where a number stands in the text, and the verdict on it."""

    line: int
    start: int
    end: int
    verdict: Verdict


@dataclass(frozen=True)
class Coverage:
    """How much of a text was understood.

    Args:
        understood: Numbers whose meaning was understood, checkable or not.
        numbers: Numbers that state something.
        places: Numbers that only say where something is, and take no part in the two others.
    """

    understood: int
    numbers: int
    places: int

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(self.understood + other.understood, self.numbers + other.numbers, self.places + other.places)

    def to_json(self) -> dict[str, int]:
        """The coverage as a JSON object."""
        return asdict(self)


def says_where(verdict: Verdict) -> bool:
    """Whether a number only says where something is, so that it is no claim."""
    return any(check.reason == SAYS_WHERE for check in verdict.checks)


@dataclass(frozen=True)
class Audit:
    """What became of every number of a text.

    Args:
        file: The text.
        places: The numbers, in order.
        findings: Warnings about claims that hold.
        names: How model names were understood.
    """

    file: str
    places: tuple[Place, ...]
    findings: tuple[Finding, ...]
    names: ModelNames

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts, in the order of the text."""
        return tuple(place.verdict for place in self.places)

    @property
    def stated(self) -> tuple[Place, ...]:
        """The places of numbers that state something, and do not only say where."""
        return tuple(place for place in self.places if not says_where(place.verdict))

    @property
    def coverage(self) -> Coverage:
        """How many numbers state something, and how many of these were understood, checkable or not."""
        understood = sum(
            not any(each.reason == NOT_UNDERSTOOD for each in place.verdict.checks) for place in self.stated
        )
        return Coverage(understood, len(self.stated), len(self.places) - len(self.stated))

    @property
    def unchecked(self) -> int:
        """Numbers that state something and could not be checked."""
        return sum(place.verdict.word == "not-checkable" for place in self.stated)

    def to_json(self, *, data: str) -> dict[str, Any]:
        """The audit as a JSON object (`schemas/audit.schema.json`).

        Args:
            data: What the data was called.
        """
        return {
            "schema": "steer-eval/audit/1",
            "file": self.file,
            "data": data,
            "names": dict(self.names.base_models),
            "coverage": self.coverage.to_json(),
            "findings": [finding.to_json() for finding in self.findings],
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


_OF_MODEL_REPOS = ("vector", "vector_pt", "features", "sae", "sae_pt", "transferred", "transferred_pt")


def unseen_in_model_repo(audit: Audit, inventory: Inventory) -> int:
    """How many numbers could not be checked and may be about files of a model repo, since the data holds none of these.

    Vectors also say which models the names in file names mean.

    Args:
        audit: The audit.
        inventory: The data that it was made on.
    """
    return 0 if any(True for _ in inventory.of(*_OF_MODEL_REPOS)) else audit.unchecked


def audit_text(text: str, file: str, inventory: Inventory, findings: Sequence[Finding]) -> Audit:
    """Check every number of a Markdown text, and every metric value of its `model-index`.

    Args:
        text: The text.
        file: What to call it.
        inventory: The published data.
        findings: What a check of that data found; rows that contradict themselves support nothing.
    """
    return Evidence.of(inventory, findings).audit(text, file)


@dataclass(frozen=True)
class Evidence:
    """What texts are held to; taken once, it serves any number of texts.

    Args:
        context: What a text may refer to.
        facts: Every number of the data.
        conflicts: What contradicts itself in the data.
    """

    context: Context
    facts: Facts
    conflicts: Conflicts

    @classmethod
    def of(cls, inventory: Inventory, findings: Sequence[Finding]) -> Evidence:
        """The evidence that some repos hold."""
        names = model_names(inventory)
        facts = facts_of(inventory, names)
        return cls(_context(inventory, names, facts), facts, Conflicts.of(findings))

    def audit(self, text: str, file: str) -> Audit:
        """Check a Markdown text."""
        # Lines keep their numbers and columns; patterns need not know how a platform ends them.
        text = text.replace("\r\n", "\n")
        layout = lay_out(text)
        found = list(model_index_claims(text, self.context))
        found += [each for part in layout.parts for each in part_claims(part, self.context)]
        found += [each for placed in layout.tables for each in table_claims(placed, self.context)]
        return self.judge(file, found, text.split("\n"))

    def audit_results(self, text: str, file: str) -> Audit:
        """Check a file of `.eval_results`."""
        return self.judge(file, eval_result_claims(text, self.context))

    def judge(self, file: str, extracted: Iterable[Extracted], lines: Sequence[str] = ()) -> Audit:
        """Check what a text was found to say.

        Args:
            file: What to call the text.
            extracted: What was found.
            lines: The lines of the text; without them a number that is no claim keeps the words that it was found with.
        """
        places: list[Place] = []
        warnings: list[Finding] = []
        for each in sorted(extracted, key=lambda each: (each.line, each.start)):
            result, ties = check(each, self.facts, self.conflicts)
            line = lines[each.line - 1] if each.line <= len(lines) else ""
            claim = replace(each.claim, text=words_of(each, line))
            verdict = Verdict(claim, file, each.line, (result,))
            places.append(Place(each.line, each.start, each.end, verdict))
            warnings += [replace(warning, file=file) for warning in (*ties, *ranking_warnings(each, line, self.facts))]
        return Audit(file, tuple(places), tuple(warnings), self.context.names)


def _context(inventory: Inventory, names: ModelNames, facts: Facts) -> Context:
    sweeps = sweep_files(inventory)
    judges = {named[0] for artifact in inventory.of("judge") if (named := judge_of(artifact.name, sweeps))}
    features: dict[int, tuple[str, ...]] = {}
    for fact in facts.find("feature_delta", Selector()):
        if fact.select.feature is not None and fact.select.model is not None:
            known = features.get(fact.select.feature, ())
            features[fact.select.feature] = tuple(dict.fromkeys((*known, fact.select.model)))
    vectors = {
        artifact.path: (model, layer)
        for model, layers in vectors_by_model(inventory).items()
        for layer, artifact in layers.items()
    }
    files = tuple(artifact.path for artifact in inventory.artifacts)
    labelled = inventory.of("transfer_eval", "phase_i", "judge_labels")
    variants = dict.fromkeys(row.value["label"] for artifact in labelled for row in artifact.value)
    methods = dict.fromkeys(row.value["variant"] for artifact in inventory.of("comparison") for row in artifact.value)
    labels = tuple(dict.fromkeys((*variants, *methods)))
    return Context(names, tuple(sorted(judges)), files, vectors, features, labels, tuple(methods))
