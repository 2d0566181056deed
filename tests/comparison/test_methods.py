"""Every method and its control, on two architectures, held to the serial path and to what they promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compared import (
    CARRIED_COEFFICIENT,
    CLAMP,
    COEFFICIENT,
    LAYER,
    METHODS,
    PROMPTS,
    RAISED,
    SINK_NORM,
    STACK,
    TABLE,
    WITHOUT_CONTROL,
    activity,
    bench_of,
    study_of,
    vectors,
    write_ingredients,
)
from tiny_models import fingerprint, tiny_language_model

from steer_eval.cells import Cell
from steer_eval.comparison.cells import comparison_cells
from steer_eval.comparison.patching import ConversationPatch
from steer_eval.errors import FormatError
from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Generation
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.formats.saelens import folder_name
from steer_eval.measure import Bench, measure
from steer_eval.results import SweepRow, Text
from steer_eval.run import Journal
from steer_eval.steering.interventions import Add, ClampFeatures, Rotate

ARCHITECTURES = ("llama", "qwen3_5")


@dataclass(frozen=True)
class Measured:
    bench: Bench
    rows: dict[tuple[str | None, str], SweepRow]

    def row(self, variant: str, label: str = "steered") -> SweepRow:
        return self.rows[variant, label]

    def cell(self, variant: str, label: str = "steered") -> Cell:
        return self.row(variant, label).cell


@pytest.fixture(scope="module", params=ARCHITECTURES)
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp(request.param)
    lm = tiny_language_model(request.param)
    before = fingerprint(lm)
    write_ingredients(folder, vectors()[LAYER])
    study = study_of(folder)
    journal = Journal(folder / "journal.jsonl")
    bench = bench_of(lm, study, folder, journal)
    cells = comparison_cells(study, "tiny")
    rows = measure(bench, cells, cells)
    assert fingerprint(lm) == before
    yield Measured(bench, {(row.cell.variant, row.cell.label): row for row in rows})
    journal.close()


def test_every_method_is_measured_and_each_but_two_has_a_control(measured: Measured) -> None:
    expected = []
    for method in METHODS:
        expected.append((method, "zero" if method == "unsteered" else "steered"))
        expected += [] if method in WITHOUT_CONTROL else [(method, "random")]

    assert list(measured.rows) == expected
    for row in measured.rows.values():
        assert np.isfinite(row.ppl_ratio)
        assert len(row.generations) == (0 if row.collapsed else PROMPTS)
    assert sum(not row.collapsed for row in measured.rows.values()) > len(METHODS)


def test_all_of_it_is_what_the_serial_path_gives(measured: Measured) -> None:
    bench = measured.bench
    corpus = tokenise(bench.corpus, bench.lm, bench.study.perplexity)
    for row in measured.rows.values():
        treatment = bench.treatment(row.cell)
        if treatment.after is not None:
            seen = corpus.with_context(bench.lm.chat_ids(treatment.after))
        elif treatment.system is not None:
            seen = corpus.with_context(bench.lm.system_ids(treatment.system))
        else:
            seen = corpus
        alone = perplexity_serial(bench.lm, seen, treatment.intervention(treatment.after))
        assert np.allclose(row.sentence_nll, corpus.by_sentence(alone)[0], rtol=1e-4, atol=1e-4), row.cell
    limit = bench.study.sweep.max_new_tokens
    texts = [(row.cell, text) for row in measured.rows.values() for text in row.generations]
    requests = [bench.request(cell, text.prompt) for cell, text in texts]
    together = dict(generate_grid(bench.lm, requests, max_new_tokens=limit))
    for index, (cell, text) in enumerate(texts):
        by_itself = generate_serial(bench.lm, requests[index], max_new_tokens=limit)
        assert by_itself.agrees_with(together[index].ids), cell
        assert as_text(bench, text, by_itself).same_as(text), cell


def as_text(bench: Bench, text: Text, generation: Generation) -> Text:
    tie = generation.tie_at
    determined = None if tie is None else len(bench.lm.decode(generation.ids[:tie]))
    return replace(text, gen=bench.lm.decode(generation.ids), determined=determined)


def test_the_identity_patch_changes_nothing(measured: Measured) -> None:
    identity, unsteered = measured.row("patch-identity"), measured.row("unsteered", "zero")

    assert [text.gen for text in identity.generations] == [text.gen for text in unsteered.generations]
    assert identity.ppl_ratio == pytest.approx(1.0, abs=1e-5)
    assert identity.corpus_after == 0
    assert identity.base_sentence_nll is not None
    assert not np.allclose(identity.base_sentence_nll, unsteered.sentence_nll, rtol=1e-3)


def test_every_other_method_does_something(measured: Measured) -> None:
    unsteered = measured.row("unsteered", "zero").sentence_nll
    for (variant, label), row in measured.rows.items():
        base = unsteered if row.base_sentence_nll is None else row.base_sentence_nll
        assert row.sentence_nll is not None
        assert base is not None
        moved = np.abs(row.sentence_nll - base).max() > 1e-2
        assert moved == (variant not in WITHOUT_CONTROL), (variant, label)


def test_addition_and_rotation_turn_towards_one_vector_and_their_controls_towards_another(measured: Measured) -> None:
    directions = {}
    for variant, kind in (("addition", Add), ("rotation", Rotate)):
        for label in ("steered", "random"):
            [edit] = measured.bench.treatment(measured.cell(variant, label)).edits
            assert isinstance(edit, kind)
            assert (edit.layer, edit.coefficient, edit.positions) == (LAYER, COEFFICIENT, "all")
            directions[variant, label] = edit.vector
    vector = torch.from_numpy(vectors()[LAYER].values)

    assert torch.equal(directions["addition", "steered"], vector)
    assert torch.equal(directions["rotation", "steered"], vector)
    assert torch.equal(directions["addition", "random"], directions["rotation", "random"])
    assert directions["addition", "random"].norm() == pytest.approx(float(vector.norm()), rel=1e-6)
    assert abs(torch.cosine_similarity(directions["addition", "random"], vector, dim=0)) < 0.5


@pytest.mark.parametrize("label", ["steered", "random"])
def test_a_stack_adds_as_much_as_addition_and_the_same_at_each_layer(measured: Measured, label: str) -> None:
    stacked = measured.bench.treatment(measured.cell("stack", label)).edits
    [added] = measured.bench.treatment(measured.cell("addition", label)).edits
    norms = [float(edit.delta().norm()) for edit in stacked if isinstance(edit, Add)]
    assert isinstance(added, Add)

    assert [edit.layer for edit in stacked if isinstance(edit, Add)] == list(STACK)
    assert sum(norms) == pytest.approx(float(added.delta().norm()), rel=1e-6)
    assert norms == pytest.approx([norms[0]] * len(STACK), rel=1e-6)
    assert sum(edit["norm"] for edit in measured.row("stack", label).edits or ()) == pytest.approx(sum(norms))


def test_features_are_those_that_steering_raises_and_their_control_is_not_in_the_table(measured: Measured) -> None:
    known = activity()
    held = {}
    for label in ("steered", "random"):
        [edit] = measured.bench.treatment(measured.cell("features", label)).edits
        assert isinstance(edit, ClampFeatures)
        assert edit.sink_norm == SINK_NORM
        assert torch.allclose(edit.values, CLAMP * known.maximum[torch.tensor(edit.features)])
        held[label] = edit.features

    assert held["steered"] == RAISED
    assert len(set(held["random"])) == len(RAISED)
    assert not set(held["random"]) & set(TABLE)
    assert all(known.frequency[feature] > 0 for feature in held["random"])


def test_the_control_of_the_anchor_has_its_words(measured: Measured) -> None:
    anchor, shuffled = measured.row("anchor").system_prompt, measured.row("anchor", "random").system_prompt
    assert anchor == measured.bench.study.sweep.anchor
    assert shuffled is not None

    assert shuffled != anchor
    assert sorted(shuffled.split()) == sorted(anchor.split())
    assert {measured.row("anchor+addition", label).system_prompt for label in ("steered", "random")} == {anchor}


def test_a_patch_and_its_control_move_each_token_as_far(measured: Measured) -> None:
    edits = {}
    for variant, label in (("patch", "steered"), ("patch", "random"), ("patch-identity", "steered")):
        [edit] = measured.bench.treatment(measured.cell(variant, label)).edits
        assert isinstance(edit, ConversationPatch)
        edits[variant, label] = edit.of(measured.bench.prompts[1])
    own = edits["patch-identity", "steered"]
    moved, pushed = edits["patch", "steered"], edits["patch", "random"]

    assert own.at == moved.at == pushed.at
    assert torch.allclose(
        (moved.residuals - own.residuals).norm(dim=1), (pushed.residuals - own.residuals).norm(dim=1), rtol=1e-4
    )
    assert not torch.allclose(moved.residuals, pushed.residuals, rtol=0.1)


def test_carried_vectors_are_the_published_ones(measured: Measured) -> None:
    by_cell = {}
    for variant in ("carried-ridge", "carried-procrustes"):
        for label in ("steered", "random"):
            [edit] = measured.bench.treatment(measured.cell(variant, label)).edits
            assert isinstance(edit, Add)
            assert (edit.layer, edit.coefficient) == (LAYER, CARRIED_COEFFICIENT)
            by_cell[variant, label] = edit.vector

    assert torch.equal(by_cell["carried-ridge", "random"], by_cell["carried-procrustes", "random"])
    assert not torch.equal(by_cell["carried-ridge", "steered"], by_cell["carried-procrustes", "steered"])


def test_nothing_is_measured_twice(measured: Measured) -> None:
    bench = measured.bench
    cells = comparison_cells(bench.study, "tiny")
    added = bench.journal.added
    again = measure(bench, cells, cells)

    assert bench.journal.added == added
    assert [row.ppl for row in again] == [row.ppl for row in measured.rows.values()]
    # Both carried vectors have the same control, which stands in the journal once.
    keys = {bench.perplexity_key(cell) for cell in cells}
    assert len(keys) == len(cells) - 1


def test_what_was_measured_before_a_kill_is_kept(measured: Measured, tmp_path: Path) -> None:
    lines = measured.bench.journal.path.read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[: len(lines) - 7]) + lines[-1][:20])
    journal = Journal(tmp_path / "journal.jsonl")
    bench = bench_of(measured.bench.lm, measured.bench.study, measured.bench.journal.path.parent, journal)
    cells = comparison_cells(bench.study, "tiny")
    rows = measure(bench, cells, cells)
    journal.close()

    assert journal.added == 7
    assert [[text.gen for text in row.generations] for row in rows] == [
        [text.gen for text in row.generations] for row in measured.rows.values()
    ]


def test_a_method_needs_its_own_files_and_no_others(tmp_path: Path) -> None:
    lm = tiny_language_model()
    write_ingredients(tmp_path, vectors()[LAYER])
    (tmp_path / folder_name("tiny", LAYER) / "activity.safetensors").unlink()
    bench = bench_of(lm, study_of(tmp_path), tmp_path, Journal(tmp_path / "journal.jsonl"))
    for cell in comparison_cells(bench.study, "tiny"):
        if cell.variant == "features":
            with pytest.raises(FormatError, match=r"activity\.safetensors") as caught:
                bench.treatment(cell)
            assert "sae train" in caught.value.fix
        else:
            bench.treatment(cell)


def test_a_table_with_too_few_raised_features_says_so(tmp_path: Path) -> None:
    write_ingredients(tmp_path, vectors()[LAYER])
    study = study_of(tmp_path, features=len(TABLE))
    bench = bench_of(tiny_language_model(), study, tmp_path, Journal(tmp_path / "journal.jsonl"))
    with pytest.raises(FormatError, match="raises 4 of the listed features"):
        bench.treatment(Cell("tiny", "steered", LAYER, 0.0, "features"))


def test_a_threshold_above_which_every_token_lies_is_refused(tmp_path: Path) -> None:
    """Nothing would be clamped, and the method would look as if it did nothing."""
    write_ingredients(tmp_path, vectors()[LAYER])
    config = tmp_path / folder_name("tiny", LAYER) / "cfg.json"
    config.write_text(config.read_text().replace(repr(SINK_NORM), "0.001"))
    bench = bench_of(tiny_language_model(), study_of(tmp_path), tmp_path, Journal(tmp_path / "journal.jsonl"))

    with pytest.raises(FormatError, match="no feature is clamped") as caught:
        bench.treatment(Cell("tiny", "steered", LAYER, 0.0, "features"))
    assert caught.value.where == "metadata.steer_eval.sink_norm"
