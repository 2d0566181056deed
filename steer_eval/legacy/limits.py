"""What a study's files leave open: controls that were not measured, parts that are not published.

Invariant: a limit is a fact about what is in the repos; nothing is listed because studies usually have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from steer_eval.cells import Cell
from steer_eval.claims.claim import Selector
from steer_eval.formats.features import FeatureTable
from steer_eval.legacy.best import Judgement, Score
from steer_eval.legacy.checks import row_count
from steer_eval.legacy.study import LegacyStudy
from steer_eval.rules.sweep_files import SweepFile

_PROVENANCE = frozenset({"judge", "judge_model", "model", "date", "protocol", "prompt", "rubric", "seed"})
"""Fields by any of which a row of scores says who gave it, or how."""


@dataclass(frozen=True)
class Incoherent:
    """Cells that do not count as collapsed and that a judge finds as incoherent as its scale allows."""

    judgement: Judgement
    cells: tuple[Score, ...]


@dataclass(frozen=True)
class OtherCoefficient:
    """A feature table measured at another coefficient than the best cell of its layer."""

    model: str
    table: FeatureTable
    judge: str
    best: Score


@dataclass(frozen=True)
class Limits:
    """What the files leave open.

    Args:
        no_zero: Models whose sweep has no cell with coefficient 0.
        no_random: Models whose sweep has no random direction.
        no_negative: Models whose sweep has no negative coefficient.
        no_anchor: Whether no file has texts under a system prompt alone.
        unjudged: Judges and models of whose sweep they have no scores, though of others they have.
        no_features: Models without a feature table, where others have one.
        no_sae: Base models with a feature table and no SAE.
        no_map: Whether there are vectors that were carried over and no map that gives them.
        absent: Paths that the present card names and that are absent.
        prompts: Prompts that sweeps have texts for, and published prompts; None if all are used.
        anonymous: Judges of whose scores no file says which model gave them, or how it was asked.
        ties: Judgements whose highest margin several cells share.
        incoherent: Incoherent cells below the collapse ratio.
        coefficients: Feature tables that are not of the best cell.
    """

    no_zero: tuple[str, ...]
    no_random: tuple[str, ...]
    no_negative: tuple[str, ...]
    no_anchor: bool
    unjudged: tuple[tuple[str, str], ...]
    no_features: tuple[str, ...]
    no_sae: tuple[str, ...]
    no_map: bool
    absent: tuple[str, ...]
    prompts: tuple[int, int] | None
    anonymous: tuple[str, ...]
    ties: tuple[Judgement, ...]
    incoherent: tuple[Incoherent, ...]
    coefficients: tuple[OtherCoefficient, ...]


def limits(study: LegacyStudy) -> Limits:
    """What a study's files leave open."""
    sweeps, inventory = study.sweeps, study.inventory
    judges = dict.fromkeys(judgement.judge for judgement in study.judgements)
    scored = {(judgement.judge, judgement.model) for judgement in study.judgements}
    tables: list[FeatureTable] = [artifact.value for artifact in inventory.of("features")]
    with_table = {study.names.resolve(table.model) for table in tables}
    saes = {(sae.value.model, sae.value.layer) for sae in inventory.of("sae", "sae_pt")}
    return Limits(
        no_zero=_lacking(sweeps, lambda cell: cell.coef == 0 and cell.label != "anchor"),
        no_random=_lacking(sweeps, lambda cell: cell.label == "random"),
        no_negative=_lacking(sweeps, lambda cell: cell.coef < 0),
        no_anchor=not _has_anchor(study),
        unjudged=tuple((judge, model) for judge in judges for model in sweeps if (judge, model) not in scored),
        no_features=tuple(model for model in study.models if tables and model not in with_table),
        no_sae=tuple(dict.fromkeys(table.model for table in tables if (table.model, table.layer) not in saes)),
        no_map=any(inventory.of("transferred", "transferred_pt"))
        and not any(inventory.of("transfer_map", "transfer_map_pt")),
        absent=tuple(study.absent),
        prompts=_prompts(study),
        anonymous=tuple(judge for judge in judges if not _says_how(study, judge)),
        ties=tuple(judgement for judgement in study.judgements if len(judgement.best) > 1),
        incoherent=tuple(_incoherent(study)),
        coefficients=tuple(_coefficients(study, tables)),
    )


def _lacking(sweeps: Mapping[str, SweepFile], wanted: Callable[[Cell], bool]) -> tuple[str, ...]:
    """Models whose sweep has no row of a cell that is wanted."""
    return tuple(model for model, sweep in sweeps.items() if not any(wanted(row.cell) for row in sweep.rows))


def _has_anchor(study: LegacyStudy) -> bool:
    rows = [row for sweep in study.sweeps.values() for row in sweep.rows]
    variants = [row.value for artifact in study.inventory.of("phase_i") for row in artifact.value]
    return any(row.cell.label == "anchor" for row in rows) or any(row.get("system_prompt") for row in variants)


def _prompts(study: LegacyStudy) -> tuple[int, int] | None:
    published = row_count(study, "eval_prompts")
    used = {text.prompt_idx for sweep in study.sweeps.values() for row in sweep.rows for text in row.generations}
    return (len(used), published) if published and used and len(used) < published else None


def _says_how(study: LegacyStudy, judge: str) -> bool:
    files = {fact.file for fact in study.facts.find("margin", Selector(judge=judge))}
    tables = [artifact.value for artifact in study.inventory.of("judge") if artifact.file in files]
    return all(any(_PROVENANCE & set(row.value) for row in table) for table in tables)


def _incoherent(study: LegacyStudy) -> Iterator[Incoherent]:
    lowest = study.facts.find("lowest_score", Selector())
    bottom = min((float(fact.value) for fact in lowest), default=None)
    for judgement in study.judgements:
        cells = tuple(
            score
            for score in judgement.judged
            if score.values["coherence"] == bottom and score.ratio is not None and score.ratio <= study.collapse_ratio
        )
        if cells:
            yield Incoherent(judgement, cells)


def _coefficients(study: LegacyStudy, tables: Sequence[FeatureTable]) -> Iterator[OtherCoefficient]:
    for table in tables:
        for judgement in study.judgements:
            best = judgement.best
            if judgement.model != study.names.resolve(table.model) or not best or best[0].layer != table.layer:
                continue
            if (table.layer, table.coefficient) not in {score.cell for score in best}:
                yield OtherCoefficient(judgement.model, table, judgement.judge, best[0])
