"""Counts of what a study's data holds; nothing to re-run."""

from __future__ import annotations

from steer_eval.claims.claim import Label
from steer_eval.claims.measures.measure import Case, Evidence, Measure, NotCheckable, Observation
from steer_eval.results_files import sweep_file

_PUBLISHED: frozenset[Evidence] = frozenset({"published data"})


def _pairs(case: Case) -> Observation:
    file = case.study.extraction.pairs
    if case.results.pairs is None:
        raise NotCheckable(case.results.why_absent(file))
    return Observation(len(case.results.pairs), file, f"{len(case.results.pairs)} rows")


def _prompts(case: Case) -> Observation:
    file = case.study.sweep.prompts
    if case.results.prompts is None:
        raise NotCheckable(case.results.why_absent(file))
    return Observation(len(case.results.prompts), file, f"{len(case.results.prompts)} rows")


def _corpus_words(case: Case) -> Observation:
    file = case.study.perplexity.corpus
    if case.results.corpus is None:
        raise NotCheckable(case.results.why_absent(file))
    return Observation(len(case.results.corpus.split()), file, "")


def _cells(case: Case) -> Observation:
    file = sweep_file(case.model)
    sweep = case.results.sweeps.get(case.model)
    if sweep is None:
        raise NotCheckable(case.results.why_absent(file))
    label: Label = case.select.label or "steered"
    return Observation(sum(1 for _ in sweep.labelled(label)), file, "")


MEASURES = (
    Measure("contrast_pair_count", "number of contrast pairs", "count", _pairs, evidence=_PUBLISHED),
    Measure("prompt_count", "number of evaluation prompts", "count", _prompts, evidence=_PUBLISHED),
    Measure("corpus_words", "words of the perplexity corpus", "count", _corpus_words, evidence=_PUBLISHED),
    Measure(
        "cell_count", "number of measured cells with a label, steered by default", "count", _cells, evidence=_PUBLISHED
    ),
)
