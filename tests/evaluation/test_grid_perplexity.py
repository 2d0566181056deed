import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOCKS, TEXT, add, fingerprint, random_vector, tiny_language_model

from steer_eval.evaluation.corpus import TokenisedCorpus, Window, tokenise
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.memory import LOGIT_BYTES
from steer_eval.evaluation.serial import perplexity_serial
from steer_eval.steering.interventions import Add
from steer_eval.study import PerplexityProtocol

TOLERANCE = 1e-5
CELLS = [
    (),
    (add(0, 0.0),),
    (add(2, 2.0),),
    (add(0, 1.0),),
    (add(1, -1.5),),
    (add(BLOCKS - 1, 1.0),),
    (add(1, 1.0), add(3, -2.0)),
    (add(2, 1.0), add(0, 1.0)),
    (add(1, 1.0), add(1, 2.0, seed=1)),
    (add(2, 0.0),),
    (add(2, -4.0, seed=2),),
    (),
]
"""Several layers, negative and zero coefficients, two layers at once in either order, one layer twice, no steering."""


def corpus_of(lm, *, window=24, beyond="windows") -> TokenisedCorpus:
    return tokenise(TEXT, lm, PerplexityProtocol("", window=window, beyond=beyond))


def grid(lm, corpus, cells, **options) -> list[np.ndarray]:
    finished = list(perplexity_grid(lm, corpus, cells, **options))
    assert sorted(index for index, _ in finished) == list(range(len(cells)))
    return [nll for _, nll in sorted(finished, key=lambda item: item[0])]


def assert_as_serial(lm, corpus, cells, **options):
    for cell, nll in zip(cells, grid(lm, corpus, cells, **options), strict=True):
        serial = perplexity_serial(lm, corpus, cell)
        assert nll.dtype == np.float64
        assert nll.shape == serial.shape == (corpus.scored_tokens,)
        assert np.exp(nll.mean()) == pytest.approx(np.exp(serial.mean()), rel=TOLERANCE)
        np.testing.assert_allclose(nll, serial, rtol=1e-4, atol=1e-4)


class TestAgainstTheSerialPath:
    @pytest.mark.parametrize("rows_per_batch", [1, 5])
    def test_every_kind_of_cell(self, tiny, rows_per_batch):
        assert_as_serial(tiny, corpus_of(tiny), CELLS, rows_per_batch=rows_per_batch)

    def test_steering_matters_in_every_steered_cell(self, tiny):
        scores = grid(tiny, corpus_of(tiny), CELLS)
        for cell, nll in zip(CELLS, scores, strict=True):
            same = not cell or all(edit.coefficient == 0 for edit in cell)
            assert np.allclose(nll, scores[0], atol=1e-4) is same

    def test_a_truncated_corpus(self, tiny):
        corpus = corpus_of(tiny, beyond="truncate")
        assert corpus.scored_tokens == 23
        assert_as_serial(tiny, corpus, CELLS)

    def test_one_long_window(self, tiny):
        corpus = corpus_of(tiny, window=512)
        assert len(corpus.windows) == 1
        assert_as_serial(tiny, corpus, CELLS[:8])

    @pytest.mark.parametrize("context", [[9], [31, 7, 200, 13, 54, 9, 9, 120, 77, 6]])
    def test_context_before_each_window(self, tiny, context):
        corpus = corpus_of(tiny).with_context(context)
        assert_as_serial(tiny, corpus, CELLS)
        plain, seen = grid(tiny, corpus_of(tiny), CELLS[:3]), grid(tiny, corpus, CELLS[:3])
        assert not np.allclose(plain[0], seen[0], atol=0.01)

    @pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
    def test_logits_that_come_in_several_chunks(self, architecture):
        vocabulary, rows = 65_536, 8
        lm = tiny_language_model(architecture, vocabulary=vocabulary)
        corpus = corpus_of(lm, window=90)
        assert rows * 89 * vocabulary * 4 > 2 * LOGIT_BYTES
        cells = [(add(1, float(c)),) for c in range(rows)]
        scores = grid(lm, corpus, cells, rows_per_batch=rows)
        for row in (0, rows - 1):
            np.testing.assert_allclose(scores[row], perplexity_serial(lm, corpus, cells[row]), rtol=1e-4, atol=1e-4)

    @settings(max_examples=8, deadline=None)
    @given(data=st.data())
    def test_any_cells(self, tiny, data):
        edits = st.builds(
            add, st.integers(0, BLOCKS - 1), st.floats(-4, 4, width=32), seed=st.integers(0, 3), norm=st.just(4.0)
        )
        cells = data.draw(st.lists(st.lists(edits, max_size=3).map(tuple), min_size=1, max_size=5))
        ids = st.integers(0, 255)
        lengths = data.draw(st.lists(st.integers(2, 12), min_size=1, max_size=3))
        context = tuple(data.draw(st.lists(ids, max_size=5)))
        windows = [
            Window(
                context,
                tuple(data.draw(st.lists(ids, min_size=length, max_size=length))),
                np.zeros(length - 1, dtype=np.int64),
            )
            for length in lengths
        ]
        rows_per_batch = data.draw(st.integers(1, 6))
        assert_as_serial(tiny, TokenisedCorpus(tuple(windows), 1), cells, rows_per_batch=rows_per_batch)


class TestRows:
    def test_a_row_does_not_depend_on_who_shares_the_batch(self, tiny):
        corpus = corpus_of(tiny)
        together = grid(tiny, corpus, CELLS, rows_per_batch=64)
        reversed_ = grid(tiny, corpus, CELLS[::-1], rows_per_batch=64)[::-1]
        alone = [grid(tiny, corpus, [cell])[0] for cell in CELLS]
        for nll, backwards, single in zip(together, reversed_, alone, strict=True):
            np.testing.assert_allclose(nll, backwards, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(nll, single, rtol=1e-4, atol=1e-4)
            assert np.exp(nll.mean()) == pytest.approx(np.exp(single.mean()), rel=TOLERANCE)

    def test_coefficient_zero_is_the_identity(self, tiny):
        cells = [(), *[(add(layer, 0.0),) for layer in range(BLOCKS)]]
        plain, *zeros = grid(tiny, corpus_of(tiny), cells, rows_per_batch=1)
        for nll in zeros:
            assert np.exp(nll.mean() - plain.mean()) == pytest.approx(1, abs=1e-6)
            np.testing.assert_allclose(nll, plain, rtol=1e-6, atol=1e-6)

    def test_opposite_edits_cancel(self, tiny):
        cells = [(), (add(1, 2.0), add(1, -2.0))]
        plain, cancelled = grid(tiny, corpus_of(tiny), cells)
        np.testing.assert_allclose(cancelled, plain, rtol=1e-4, atol=1e-4)

    def test_two_half_edits_are_a_whole_one(self, tiny):
        cells = [(add(1, 2.0),), (add(1, 0.5), add(1, 1.5))]
        whole, halves = grid(tiny, corpus_of(tiny), cells)
        np.testing.assert_allclose(halves, whole, rtol=1e-4, atol=1e-4)

    def test_only_unsteered_cells(self, tiny):
        assert_as_serial(tiny, corpus_of(tiny), [()])
        assert_as_serial(tiny, corpus_of(tiny), [(), ()])

    def test_no_cells(self, tiny):
        assert grid(tiny, corpus_of(tiny), []) == []

    def test_results_of_two_unsteered_cells_do_not_share_memory(self):
        lm = tiny_language_model("llama")
        first, second = grid(lm, corpus_of(lm), [(), ()])
        first[:] = 0
        assert second.max() > 0

    def test_the_blocks_below_run_once_for_all_cells(self, tiny):
        corpus = corpus_of(tiny, beyond="truncate")
        runs = [0] * BLOCKS
        handles = []
        for index, block in enumerate(tiny.blocks):

            def count(_module, _inputs, index=index):
                runs[index] += 1

            handles.append(block.register_forward_pre_hook(count))
        grid(tiny, corpus, [(add(2, float(c)),) for c in range(8)], rows_per_batch=4)
        for handle in handles:
            handle.remove()
        # Once below the steered block, and above it once more for each of the two batches.
        assert runs == [1, 1, 1, 3]


class TestTheModelStaysAsItWas:
    def test_after_all_cells(self, tiny):
        before = fingerprint(tiny)
        grid(tiny, corpus_of(tiny), CELLS)
        assert fingerprint(tiny) == before

    def test_when_the_caller_stops_early(self, tiny):
        before = fingerprint(tiny)
        cells = perplexity_grid(tiny, corpus_of(tiny), CELLS, rows_per_batch=2)
        for _ in range(4):
            next(cells)
            # Between two cells the model is free for others.
            assert fingerprint(tiny) == before
            assert torch.is_grad_enabled()
        cells.close()
        assert fingerprint(tiny) == before

    @pytest.mark.parametrize(
        "cell",
        [
            (Add(BLOCKS, random_vector(0), 1.0),),
            (add(0, 1.0), Add(BLOCKS, random_vector(0), 1.0)),
            (Add(1, random_vector(0, size=7), 1.0),),
        ],
        ids=["no such layer", "no such layer above", "another width"],
    )
    def test_when_a_cell_is_wrong(self, tiny, cell):
        before = fingerprint(tiny)
        with pytest.raises((IndexError, ValueError)):
            grid(tiny, corpus_of(tiny), [(add(1, 1.0),), cell])
        assert fingerprint(tiny) == before

    def test_when_a_pass_fails(self, tiny):
        before = fingerprint(tiny)
        broken = TokenisedCorpus((Window((), (1, 10**6, 2), np.zeros(2, dtype=np.int64)),), 1)
        with pytest.raises(IndexError):
            grid(tiny, broken, CELLS)
        with pytest.raises(IndexError):
            perplexity_serial(tiny, broken, CELLS[2])
        assert fingerprint(tiny) == before


@pytest.mark.slow
class TestSmolLM2:
    def test_every_kind_of_cell(self, smollm2):
        vectors = {layer: random_vector(layer, norm=20.0, size=smollm2.hidden_size) for layer in (3, 15, 25, 29)}
        cells = [(), *[(Add(layer, vector, c),) for layer, vector in vectors.items() for c in (-1.0, 0.0, 2.0)]]
        cells.append((Add(15, vectors[15], 1.0), Add(25, vectors[25], -1.0)))
        assert_as_serial(smollm2, corpus_of(smollm2, window=64), cells, rows_per_batch=7)

    def test_the_upstream_corpus_with_context(self, smollm2, upstream):
        text = (upstream / "dataset" / "perplexity_corpus.txt").read_text(encoding="utf-8")
        corpus = tokenise(text, smollm2, PerplexityProtocol("", window=512, beyond="truncate"))
        plain = grid(smollm2, corpus, [()])[0]
        assert corpus.scored_tokens == 245
        # What the study's own script computes: exp of the loss that transformers gives, which is rounded to float32.
        ids = torch.tensor([corpus.windows[0].ids])
        with torch.no_grad():
            loss = float(smollm2.module(input_ids=ids, labels=ids).loss)
        assert np.exp(plain.mean()) == pytest.approx(np.exp(loss), rel=3e-5)
        # Measured once on another machine.
        assert np.exp(plain.mean()) == pytest.approx(51.5839, rel=3e-4)
        anchored = corpus.with_context(smollm2.system_ids("You are a calm person."))
        vector = random_vector(15, norm=20.0, size=smollm2.hidden_size)
        assert_as_serial(smollm2, anchored, [(), (Add(15, vector, 2.0),)])
