"""Measuring again what claims rest on beside the cells of a sweep: SAEs, feature tables, transfers.

Invariant: what is measured again goes through the functions that made what is published, into files that the same code
reads. Each document is journalled, so that a run that is resumed makes none twice. What can't be measured says why and
what to do, and takes nothing from the rest. An SAE is measured on held-out text alone; nothing is trained again.

One model is in memory at a time: of a transfer between two, what the first one read waits for the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from steer_eval.claims.measures import Needs
from steer_eval.contrast import pairs_digest
from steer_eval.digest import sha256_value, sha256_vector
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.estimate import PROMPT_TOKENS, TOKENS_PER_WORD
from steer_eval.formats.containment import inside
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import folder_name
from steer_eval.formats.strict_json import write_json
from steer_eval.produce import LoadedModel
from steer_eval.repository import StudyRepositories, bring
from steer_eval.results import Results
from steer_eval.run import Journal
from steer_eval.sae.activations import HELD_OUT_EVERY
from steer_eval.sae.contexts import AFTER, BEFORE
from steer_eval.sae.feature_statistics import CONFIDENCE, DRAWS, INTERVAL, RESAMPLES
from steer_eval.sae.plan import SaePlan
from steer_eval.sae.produce import CE_PASSAGES, held_out_quality, held_out_text
from steer_eval.sae.produce_table import CONTEXTS, measured_table, table_replies
from steer_eval.sae.results import features_file, quality_file
from steer_eval.sae.stored import sink_threshold, study_sae
from steer_eval.sae.text import source_digest
from steer_eval.study import Study
from steer_eval.transfer.diagnose import EndRead, diagnosed, read_ends
from steer_eval.transfer.plan import End, TransferPlan
from steer_eval.transfer.protocol import PROTOCOLS
from steer_eval.treatment import sae_digest

PROTOCOL = "steer-eval/remeasured/4"
_STOPPED = 0.6
"""Share of a pass that is made where it stops at the block that is wanted, and never comes to the LM head."""
_NO_MODEL = "a model that it needs was not run, see the findings"

Document = dict[str, Any]


def everything_beside_cells(study: Study) -> Needs:
    """All that a study plans beside its cells."""
    return Needs(
        saes=frozenset((plan.model, plan.layer) for plan in study.saes),
        features=frozenset((plan.model, plan.layer) for plan in study.saes if plan.table),
        transfers=frozenset((plan.name, name) for plan in study.transfers for name in plan.protocols),
    )


def tokens_to_read(study: Study, wanted: Needs, model: str, *, prompts: int, pairs: int) -> int:
    """About how many tokens a model reads to measure it all again, in whole passes.

    Args:
        study: The study.
        wanted: What is measured again.
        model: Name of the model.
        prompts: Evaluation prompts.
        pairs: Contrast pairs.
    """
    total = 0.0
    for plan in study.saes:
        if plan.model == model and (plan.model, plan.layer) in wanted.saes:
            # The blocks below the SAE run once, those above three times.
            total += _STOPPED * plan.tokens / HELD_OUT_EVERY + 2 * CE_PASSAGES * plan.context
        if plan.model == model and (plan.model, plan.layer) in wanted.features:
            total += _STOPPED * 5 * prompts * (PROMPT_TOKENS + study.sweep.max_new_tokens)
    for transfer in study.transfers:
        if _protocols(transfer, wanted) and model in {transfer.source.model, transfer.target.model}:
            total += _STOPPED * transfer.words * TOKENS_PER_WORD
            if _reads_pairs(transfer, wanted, model):
                total += _STOPPED * 2 * pairs * (PROMPT_TOKENS + study.sweep.max_new_tokens)
    return round(total)


def _reads_pairs(plan: TransferPlan, wanted: Needs, model: str) -> bool:
    """Whether a model reads the contrast pairs for a transfer; what it reads for vectors serves both."""
    return any(end.model == model and (model, end.layer) not in wanted.vectors for end in (plan.source, plan.target))


def _protocols(plan: TransferPlan, wanted: Needs) -> list[str]:
    """Under which protocols a transfer is diagnosed again."""
    return [name for name in plan.protocols if (plan.name, name) in wanted.transfers]


class Remeasurement:
    """What a run measures again beside its cells.

    Args:
        repositories: The study and its repos, with the SAEs.
        published: What was published: vectors, pairs, and texts of the sweep.
        wanted: What is measured again.
        run: The run directory; what an earlier run left there of these is removed.
        journal: Where finished documents are kept.
    """

    def __init__(
        self, repositories: StudyRepositories, published: Results, wanted: Needs, run: Path, journal: Journal
    ) -> None:
        self._study, self._published, self._wanted = repositories.study, published, wanted
        self._model_repo, self._data = repositories.model, repositories.data.folder
        self._run, self._journal = run, journal
        self._ends: dict[str, dict[End, EndRead]] = {}
        self._conditions: dict[str, list[str]] = {}
        self._reasons: dict[str, str] = {}
        for plan in self._study.saes:
            key = (plan.model, plan.layer)
            self._expect(quality_file(*key), needed=key in wanted.saes)
            self._expect(features_file(*key), needed=key in wanted.features)
        for transfer in self._study.transfers:
            self._expect(transfer.diagnostics_file, needed=bool(_protocols(transfer, wanted)))

    def measure(self, model: LoadedModel) -> None:
        """Measure again what rests on a model.

        Args:
            model: The model, loaded.
        """
        name = model.reference.name
        self._conditions[name] = [model.conditions.weights_sha256, model.conditions.circumstances]
        for plan in self._study.saes:
            if plan.model == name:
                self._of_sae(plan, model)
        for transfer in self._study.transfers:
            if _protocols(transfer, self._wanted) and name in {transfer.source.model, transfer.target.model}:
                self._attempt(transfer.diagnostics_file, partial(self._diagnostics, transfer, model))

    def told(self, results: Results) -> Results:
        """Results of the run that also say why something of this is not among them.

        Args:
            results: The results as they stand in the run directory.
        """
        return replace(results, unusable={**results.unusable, **self._reasons})

    def _expect(self, file: str, *, needed: bool) -> None:
        inside(self._run, file).unlink(missing_ok=True)
        if needed:
            self._reasons[file] = _NO_MODEL

    def _attempt(self, file: str, make: Callable[[], Document | None]) -> None:
        """Make a document and write it, or keep why it can't be made."""
        try:
            document = make()
        except SteerEvalError as error:
            self._reasons[file] = "; ".join(part for part in (error.message, error.fix) if part)
            return
        if document is not None:
            write_json(inside(self._run, file), document)
            del self._reasons[file]

    def _once(self, kind: str, decides: dict[str, Any], make: Callable[[], Document]) -> Document:
        """A document from the journal, or made and put there."""
        key = sha256_value({"protocol": PROTOCOL, "kind": kind, **decides})
        if key not in self._journal:
            self._journal.add(key, {"kind": kind, "document": make()})
        document: Document = self._journal[key]["document"]
        return document

    def _of_sae(self, plan: SaePlan, model: LoadedModel) -> None:
        key = (plan.model, plan.layer)
        quality, table = quality_file(*key), features_file(*key)
        # Both need the held-out text, which takes longer than anything else here.
        text = cache(partial(held_out_text, plan, model, self._data))
        if key in self._wanted.saes:

            def measured() -> Document:
                sae = self._sae(plan, model)
                threshold = sink_threshold(sae, folder_name(*key))
                return self._once(
                    "sae_quality",
                    {**self._of_values(plan, sae), **self._text(plan), "passages": CE_PASSAGES},
                    lambda: held_out_quality(sae, model, *text(), threshold=threshold),
                )

            self._attempt(quality, measured)
        if key in self._wanted.features:
            # Features are shown at work in the text only where it is read anyway.
            shown = key in self._wanted.saes and quality not in self._reasons
            self._attempt(table, partial(self._table, plan, model, (lambda: text()[0]) if shown else None))

    def _table(self, plan: SaePlan, model: LoadedModel, held_out: Callable[[], Any] | None) -> Document:
        sae = self._sae(plan, model)
        replies = table_replies(self._study, plan, model, self._published)
        vector = self._published.vectors.get((plan.model, plan.layer))
        decides = {
            **self._of_values(plan, sae),
            "vector": None if vector is None else sha256_vector(vector.values),
            "replies": sha256_value(asdict(replies)),
            "table": asdict(plan.table) if plan.table else None,
            "random_seed": self._study.sweep.random_seed,
            "statistics": [CONFIDENCE, INTERVAL, RESAMPLES, DRAWS],
            "contexts": None if held_out is None else {**self._text(plan), "shown": [CONTEXTS, BEFORE, AFTER]},
        }
        return self._once(
            "features",
            decides,
            lambda: measured_table(
                self._study, plan, model, self._published, sae, replies, None if held_out is None else held_out()
            ),
        )

    def _diagnostics(self, plan: TransferPlan, model: LoadedModel) -> Document | None:
        """Diagnostics of a transfer; None while an end of it has not been read."""
        pairs = self._published.pairs
        if pairs is None:
            file = self._study.extraction.pairs
            raise FormatError(file, "", self._published.unusable.get(file, "absent"))
        read = self._ends.setdefault(plan.name, {})
        protocols = _protocols(plan, self._wanted)
        ends = (plan.source, plan.target)
        if not all(end.model in self._conditions for end in ends):
            read |= read_ends(plan, model, pairs, protocols, data_folder=self._data)
            return None
        decides = {
            "models": [self._conditions[end.model] for end in ends],
            "plan": plan.to_json(),
            "draws": plan.draws,
            "protocols": [PROTOCOLS[name].to_json() for name in protocols],
            "text": source_digest(plan.text, self._data),
            "pairs": pairs_digest(pairs),
        }

        def made() -> Document:
            read.update(read_ends(plan, model, pairs, protocols, data_folder=self._data))
            missing = [end.model for end in ends if end not in read]
            if missing:
                raise SteerEvalError(self._reasons[plan.diagnostics_file])
            return diagnosed(plan, read[plan.source], read[plan.target], pairs, data_folder=self._data)

        try:
            return self._once("transfer", decides, made)
        finally:
            del self._ends[plan.name]

    def _sae(self, plan: SaePlan, model: LoadedModel) -> TopKSae:
        bring(self._model_repo, folder_name(plan.model, plan.layer))
        return study_sae(self._model_repo.folder, model.reference, plan.layer, width=model.lm.hidden_size).read()

    def _of_values(self, plan: SaePlan, sae: TopKSae) -> dict[str, Any]:
        """What decides which features fire on a token."""
        threshold = sink_threshold(sae, folder_name(plan.model, plan.layer))
        place = {"model": self._conditions[plan.model], "base_model": sae.model, "layer": sae.layer}
        return {**place, "sae": sae_digest(sae), "sinks": repr(threshold)}

    def _text(self, plan: SaePlan) -> dict[str, Any]:
        """What decides the held-out text."""
        return {"text": source_digest(plan.text, self._data), "tokens": plan.tokens, "context": plan.context}
