"""What the methods of a comparison are made of: vectors, an SAE with its table, carried vectors.

Invariant: each is read when a method first needs it, from the published files and no others, so that a method can be
measured where the files of another are absent. What is absent, bad or of something else is an error that says which
command makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from steer_eval.comparison.cells import transfer_of
from steer_eval.comparison.controls import matched_features
from steer_eval.comparison.plan import ComparisonPlan
from steer_eval.consistency import shown_apart
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.containment import inside
from steer_eval.formats.features import FeatureTable, read_features
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import StoredSae, folder_name
from steer_eval.formats.vector import read_vector
from steer_eval.results import Results
from steer_eval.sae.belongs import Mismatch, table_off_plan, table_off_sae
from steer_eval.sae.feature_activity import FeatureActivity, read_feature_activity
from steer_eval.sae.results import features_file
from steer_eval.sae.stored import sink_threshold, study_sae
from steer_eval.study import Study
from steer_eval.transfer.plan import TransferPlan

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class HeldFeatures:
    """Features and the activations at which they are held.

    Args:
        features: Their indices.
        values: float32 `[features]`.
    """

    features: tuple[int, ...]
    values: NDArray[np.float32]


class Ingredients:
    """What the methods of a model's comparison are made of.

    Args:
        study: The study.
        plan: What it says of the comparison.
        published: The study's results, for the vectors.
        repo: The model repo, for the SAE and the carried vectors.
        width: Width of the model's residual stream; None where nothing is computed with it.
    """

    def __init__(
        self, study: Study, plan: ComparisonPlan, published: Results, repo: Path, *, width: int | None
    ) -> None:
        self._study = study
        self._plan = plan
        self._published = published
        self._repo = repo
        self._width = width

    def vector(self, layer: int) -> NDArray[np.float32]:
        """The steering vector of a layer.

        Raises:
            FormatError: It is absent or bad.
        """
        vector = self._published.vectors.get((self._plan.model, layer))
        if vector is None:
            file = self._published.vector_file(self._plan.model, layer)
            reason = self._published.unusable.get(file, "absent")
            raise FormatError(file, "", reason, fix="run `steer-eval extract` on the study first")
        return vector.values

    @cached_property
    def sae(self) -> TopKSae:
        """The SAE of the layer, to compute with.

        Raises:
            FormatError: It is absent or bad, or of another layer, model or width.
        """
        return self.stored_sae.read()

    @cached_property
    def stored_sae(self) -> StoredSae:
        """The SAE of the layer, in its file.

        Raises:
            FormatError: It is absent or bad, or of another layer, model or width.
        """
        reference = self._study.models[self._plan.model]
        return study_sae(self._repo, reference, self._plan.layer, width=self._width)

    @property
    def sink_norm(self) -> float:
        """Norm above which a residual is an attention sink, as the SAE's training found it; without one, none is."""
        return sink_threshold(self.stored_sae, self._sae_name)

    @cached_property
    def raised(self) -> HeldFeatures:
        """The first features of the table that steering raises, at the planned multiple of their largest activation.

        A feature that steering lowers is left out: to hold it high would undo what steering does.

        Raises:
            FormatError: The SAE, its activity or its table is absent or bad, or too few features are raised.
        """
        wanted = self._plan.features or 0
        raised = [feature for feature, delta in self._rows.items() if delta > 0][:wanted]
        if len(raised) < wanted:
            raise FormatError(
                self._table_name, "top_features", f"steering raises {len(raised)} of the listed features",
                expected=f"at least {wanted}", observed=len(raised),
                fix="raise saes.table.top in study.yaml and run `steer-eval sae features`, or clamp fewer features",
            )  # fmt: skip
        return self._held(raised)

    @cached_property
    def matched(self) -> HeldFeatures:
        """As many random features that fire about as often, at the same multiple of their own largest activations.

        Raises:
            FormatError: As for `raised`.
            SteerEvalError: Too few features fire outside the table.
        """
        chosen = self.raised.features
        frequency = self._activity.frequency
        return self._held(matched_features(frequency, chosen, barred=self._rows, seed=self._plan.seed))

    def carried(self, kind: str) -> tuple[TransferPlan, NDArray[np.float32]]:
        """A carried vector, and the transfer that it is of.

        Raises:
            FormatError: It is absent or bad, or of another layer or width.
        """
        transfer = transfer_of(self._study, self._plan)
        if transfer is None:
            raise SteerEvalError(f"the study plans no transfer {self._plan.transfer}", "name one under comparisons")
        file = transfer.vector_file(kind)
        vector = _made_by("steer-eval transfer apply", lambda: read_vector(inside(self._repo, file), name=file))
        native = self.vector(transfer.target.layer)
        place = (vector.layer, vector.values.size)
        if place != (transfer.target.layer, native.size):
            raise FormatError(
                file, "vector", "the carried vector does not fit the native one",
                expected=f"layer {transfer.target.layer}, width {native.size}",
                observed=f"layer {place[0]}, width {place[1]}", fix="run `steer-eval transfer apply` on the study",
            )  # fmt: skip
        return transfer, vector.values

    @property
    def _sae_name(self) -> str:
        return folder_name(self._plan.model, self._plan.layer)

    @property
    def _sae_folder(self) -> Path:
        return inside(self._repo, self._sae_name)

    @property
    def _table_name(self) -> str:
        return features_file(self._plan.model, self._plan.layer)

    @cached_property
    def _rows(self) -> dict[int, float]:
        """How much steering changes each feature of the table, in the order of the table.

        Raises:
            FormatError: The table is absent or bad, or not that of the SAE, the vector and the plan.
        """
        name, d_sae = self._table_name, self.stored_sae.d_sae
        table = _made_by("steer-eval sae features", lambda: read_features(inside(self._repo, name), name=name))
        strays = [row.feature for row in table.rows if row.feature >= d_sae]
        if strays:
            raise FormatError(
                name, "top_features", "the table lists features that the SAE does not have",
                expected=f"less than {d_sae}", observed=strays[0], fix="run `steer-eval sae features`",
            )  # fmt: skip
        # Where nothing is computed a table is only described, and the rules on tables say what is wrong with it.
        wrong = None if self._width is None else next(self._strange(table), None)
        if wrong is not None:
            wanted, has = shown_apart(wrong.expected, wrong.observed)
            raise FormatError(
                name, wrong.where, f"{wrong.message}: {has}, not {wanted}",
                expected=wrong.expected, observed=wrong.observed,
                fix="run `steer-eval sae features` on the study again",
            )  # fmt: skip
        return {row.feature: row.delta for row in table.rows}

    def _strange(self, table: FeatureTable) -> Iterator[Mismatch]:
        """Signs that a table is not that of the SAE, the vector and the plan."""
        sae, layer = self.stored_sae, self._plan.layer
        for where, wanted, has in (("model", sae.model, table.model), ("layer", sae.layer, table.layer)):
            if has != wanted:
                yield Mismatch(where, f"the table is of another {where} than the SAE in {self._sae_name}", wanted, has)
        for planned in self._study.saes:
            if (planned.model, planned.layer) == (self._plan.model, layer) and planned.table is not None:
                yield from table_off_plan(table, planned.table)
        yield from table_off_sae(table, sae, self._sae_name, self.vector(layer))

    @cached_property
    def _activity(self) -> FeatureActivity:
        d_sae = self.stored_sae.d_sae
        return _made_by(
            "steer-eval sae train", lambda: read_feature_activity(self._sae_folder, d_sae, name=self._sae_name)
        )

    def _held(self, features: list[int]) -> HeldFeatures:
        values = self._activity.maximum[features] * np.float32(self._plan.clamp)
        return HeldFeatures(tuple(features), values)


def _made_by(command: str, read: Callable[[], Value]) -> Value:
    """What a file holds; a file that is not there is one that a command has not made yet."""
    try:
        return read()
    except FormatError as error:
        fix = f"run `{command}` on the study first"
        raise FormatError(
            error.file, error.where, error.reason, expected=error.expected, observed=error.observed, fix=fix
        ) from None
