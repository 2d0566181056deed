"""What a fact is: one number of the data, under the name of what it measures.

Invariant: a fact names the one place in one file that it was copied or computed from, and a measure of a fact stands in
`DEFINITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

from steer_eval.claims.claim import Selector
from steer_eval.formats.features import CHANGES

AXES = ("mature_anger", "juvenile_rage", "coherence")

_OF_TRANSFERS = {
    "transfer_cka": "debiased linear CKA of the paired rows of two residual streams (null: documents paired at random)",
    "transfer_svcca": "mean held-out canonical correlation in the leading components (null: documents paired at "
    "random)",
    "transfer_heldout_r2": "share of the variance of left-out texts' rows that a map explains (null: fitted again to "
    "documents paired at random; of the random map, other random maps)",
    "transfer_cosine": "cosine of the carried vector to the native one (null: random signs of the source's pairs)",
    "transfer_retrieval": "share of carried pair differences that are nearest to their own native one (null: pairs "
    "exchanged at random)",
}
_TESTED = {
    "": "{}",
    "_null": "95th percentile of the null of: {}",
    "_p": "share of draws, the observed one among them, that reach it: {}",
    "_exceeds_null": "whether it is more than its null at the 5 % level, p at most 0.05: {}",
}

DEFINITIONS = {
    "perplexity": "perplexity of the corpus in a cell, per token",
    "base_perplexity": "perplexity of the corpus under the unsteered model",
    "perplexity_ratio": "perplexity in a cell over that of the unsteered model",
    "perplexity_ratio_low": "lower end of the interval of the perplexity ratio of a method or its control",
    "perplexity_ratio_high": "upper end of the interval of the perplexity ratio of a method or its control",
    "applied_layer": "layer at which a method of a comparison, or its control, edits the residual stream",
    "applied_coefficient": "coefficient of what a method of a comparison, or its control, adds or turns towards",
    "texts_changed": "texts of a method or its control that differ from the unsteered ones on the same prompts",
    "collapsed": "whether a cell is marked as collapsed",
    "mature_anger": "the judge's score of the wanted persona in a cell",
    "juvenile_rage": "the judge's score of the unwanted persona in a cell",
    "coherence": "the judge's score of coherence in a cell",
    "margin": "mature_anger - juvenile_rage of a cell",
    "vector_norm": "Euclidean norm of a steering vector",
    "vector_width": "number of values of a steering vector",
    "vector_layer": "layer that a steering vector's file records",
    "applied_norm": "Euclidean norm of a variant's vector as it was added, before the coefficient",
    "cosine": "cosine of two vectors: two of a file of transferred ones, or those of two layers of a model",
    "carried_norm": "Euclidean norm of a transferred vector as it is published",
    "heldout_r2": "share of the variance of held-out residuals that a map explains",
    "heldout_correlation_mean": "mean of the held-out canonical correlations that are numbers",
    "heldout_correlation_highest": "highest held-out canonical correlation",
    "heldout_correlation_lowest": "lowest held-out canonical correlation",
    "fitted_correlation_mean": "mean of the fitted canonical correlations that are numbers",
    "correlation_count": "number of canonical correlations of an alignment",
    "carried_feature_norm": "norm of a feature's direction, carried to the other model by a method",
    "map_penalty": "penalty of the ridge map",
    **{
        f"{measure}{suffix}": words.format(definition)
        for measure, definition in _OF_TRANSFERS.items()
        for suffix, words in _TESTED.items()
    },
    "transfer_fitted_r2": "share of the variance of the very rows that a map was fitted on that it explains",
    "transfer_norm_share": "norm of a vector as a map carried it over that of the native one",
    "transfer_rows": "paired rows that the maps of a transfer were fitted on",
    "transfer_split_half_cosine": "cosine of the vectors of every other contrast pair at one end of a transfer",
    "artifact_layer": "layer that the file of a vector, SAE or feature table records",
    "feature_delta": "mean activation of a feature with steering, less that without",
    "feature_base_mean": "mean activation of a feature without steering",
    "feature_steered_mean": "mean activation of a feature with steering",
    "feature_ratio": "mean activation of a feature with steering over that without",
    "feature_steered_frequency": "share of prompts on which a feature fires with steering, in per cent",
    "feature_base_frequency": "share of prompts on which a feature fires without steering, in per cent",
    "feature_coefficient": "steering coefficient of a feature table",
    "feature_count": "number of features in a table",
    "feature_rank": "place of a feature in its table, from 1; by the size of delta if the table is in order",
    "feature_rank_by_delta": "place of a feature by delta with its sign, from 1",
    "feature_rank_by_ratio": "place of a feature by steered over base mean among those of its table, from 1",
    "feature_prompts": "number of prompts over which the means of a feature table are",
    "feature_discoveries": "features of an SAE that change, at a false discovery rate of 5 %; which change is meant, a "
    "variant says: delta, forced_delta, random_delta or random_forced_delta",
    "feature_effect": "length of a feature's change in the residual stream: |delta| * norm of its decoder row",
    "feature_predicted": "what the steering vector alone adds to a feature before the top-k: coef * <w_enc, vector>",
    "feature_steered_token_frequency": "share of tokens on which a feature fires with steering, in per cent",
    "feature_base_token_frequency": "share of tokens on which a feature fires without steering, in per cent",
    "feature_forced_delta": "change of a feature's mean activation on the unsteered text, read under the edit",
    "feature_random_delta": "change of a feature's mean activation to the texts of a random direction of that norm",
    "feature_random_forced_delta": "change of a feature's mean activation on the unsteered text, read under the "
    "random direction",
    **{
        f"feature_{change}_{part}": f"{words} of `feature_{change}`"
        for change in CHANGES
        for part, words in (
            ("low", "lower end of the paired bootstrap interval"),
            ("high", "upper end of the paired bootstrap interval"),
            ("q", "p-value of the paired sign-flip test, after control of the false discovery rate,"),
        )
    },
    "sae_heldout_fvu": "share of the variance of held-out residuals, summed over dimensions, that an SAE leaves "
    "unexplained; without attention sinks",
    "sae_l0": "mean number of features of an SAE that fire per held-out token",
    "sae_heldout_tokens": "held-out tokens that an SAE was measured on, attention sinks left out",
    "sae_clean_cross_entropy": "cross-entropy of held-out text under the model alone, in nats per token",
    "sae_cross_entropy": "the same with the SAE's reconstruction in place of the residual stream at its layer",
    "sae_excess_cross_entropy": "what that costs: sae_cross_entropy - sae_clean_cross_entropy",
    "sae_recovered_cross_entropy": "share that an SAE wins back of what the mean residual in its place costs in "
    "cross-entropy",
    "sae_dead_share": "share of an SAE's features that fire for no token of the training text, in per cent",
    "sae_training_tokens": "tokens of the text that an SAE was trained on",
    "sae_width": "number of features of an SAE",
    "sae_k": "features of an SAE that may fire per token",
    "file_size": "bytes of a file",
    "row_count": "rows of a file",
    "cell_count": "steered cells of a sweep",
    "collapsed_cells": "steered cells of a sweep that collapse",
    "largest_coefficient_without_collapse": "largest positive coefficient of a layer that does not collapse",
    "contrast_pair_count": "number of contrast pairs",
    "prompt_count": "number of evaluation prompts",
    "prompts_per_cell": "number of evaluation prompts that each cell of a sweep was given",
    "lowest_score": "lowest score that a judge gave on any axis",
    "highest_score": "highest score that a judge gave on any axis",
}
"""What each name means; `docs/measures.md` lists them."""

IMPUTED = "there was no text to judge: the score is made up"
"""Note of scores that no judge can have given."""


@dataclass(frozen=True)
class Fact:
    """One number of the data.

    Args:
        measure: Name in `DEFINITIONS`.
        select: What it was measured on.
        value: The number or truth value.
        file: File that it stands in, as findings name it.
        where: Line or key in it.
        note: What a reader should know beside the number.
        conflict: How the data contradicts itself about the number, where it does and that was looked for.
    """

    measure: str
    select: Selector
    value: float | bool
    file: str
    where: str
    note: str = ""
    conflict: str = ""

    @property
    def imputed(self) -> bool:
        """Whether it is a score that stands where there was no text to judge."""
        return self.note == IMPUTED


class Facts:
    """All facts of some repos, found by measure."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._by_measure: dict[str, list[Fact]] = {}
        self._by_part: dict[tuple[str, str, object], list[Fact]] = {}
        for fact in facts:
            self._by_measure.setdefault(fact.measure, []).append(fact)
            for name in _PARTS:
                value = getattr(fact.select, name)
                if value is not None:
                    self._by_part.setdefault((fact.measure, name, value), []).append(fact)

    def find(self, measure: str, select: Selector) -> list[Fact]:
        """Facts of a measure that fit every part of a selector that is given."""
        # Only the facts that have the rarest of these parts need to be looked at.
        given = [(name, value) for name in _PARTS if (value := getattr(select, name)) is not None]
        having: list[Sequence[Fact]] = [self._by_part.get((measure, name, value), ()) for name, value in given]
        fewest = min(having, key=len, default=self._by_measure.get(measure, ()))
        return [fact for fact in fewest if fits(fact.select, select)]

    def marked(self, against: Callable[[Fact], str]) -> Facts:
        """The same facts, each with what speaks against it.

        Args:
            against: How the data contradicts itself about a fact; empty if it does not.
        """
        return Facts(replace(fact, conflict=against(fact)) for facts in self._by_measure.values() for fact in facts)

    def near(self, measure: str, select: Selector) -> list[Fact]:
        """Facts of a measure that differ from a selector in exactly one of its parts."""
        given = [name for name in _PARTS if getattr(select, name) is not None]
        found = []
        for name in given:
            loose = replace(select, **{name: None})
            found += [fact for fact in self.find(measure, loose) if not fits(fact.select, select)]
        return found

    def of(self, select: Selector, measures: Iterable[str]) -> list[Fact]:
        """Facts of several measures that fit a selector."""
        return [fact for measure in measures for fact in self.find(measure, select)]

    def measures(self) -> list[str]:
        """Measures of which there are facts."""
        return list(self._by_measure)


_PARTS = tuple(field.name for field in fields(Selector))


def fits(observed: Selector, wanted: Selector) -> bool:
    """Whether a fact's selector has every part that is wanted."""
    return all(getattr(wanted, name) in (None, getattr(observed, name)) for name in _PARTS)
