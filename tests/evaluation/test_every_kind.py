"""Every kind of edit through the grid: many in one batch, as on the serial path; and what makes each what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edits_by_hand import PATCHED, SAE, adding, clamp, every_kind, rotate
from hypothesis import given, settings
from hypothesis import strategies as st
from some_saes import between
from tiny_models import (
    ARCHITECTURES,
    BLOCKS,
    FREQUENT_EOS,
    TEXT,
    add,
    fingerprint,
    random_vector,
    tiny_conditional_generation,
    tiny_language_model,
)

from steer_eval.evaluation.corpus import TokenisedCorpus, Window, tokenise
from steer_eval.evaluation.generation import Generation, Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.row_cache import new_cache
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.sae import topk
from steer_eval.steering.hooks import captured, residual
from steer_eval.steering.interventions import Add, ClampFeatures, Intervention, Patch, Rotate
from steer_eval.study import PerplexityProtocol

TOKENS = 7
PROMPTS = ["Why?", "Was it the rain in the valley?", "Who?"]
CONTEXT = [31, 7, 200, 13, 54]


@pytest.fixture(scope="module", params=[*ARCHITECTURES, "wrapper"])
def lm(request):
    """A model whose rows end at different times; `wrapper` is what Qwen3.5 checkpoints are published as."""
    if request.param == "wrapper":
        return tiny_conditional_generation(eos_ids=FREQUENT_EOS)
    return tiny_language_model(request.param, eos_ids=FREQUENT_EOS)


def residuals(lm, ids, layer: int) -> torch.Tensor:
    """The unsteered residuals of a text, `[tokens, hidden_size]`, read as generation reads it: into a cache."""
    with captured(lm.blocks, [layer], stop=True) as outputs:
        lm.final_hidden(torch.tensor([list(ids)]), cache=new_cache(lm))
    return residual(outputs[layer])[0]


def kinds(lm) -> dict[str, Intervention]:
    """All kinds, with some of the model's tokens as sinks."""
    norms = torch.cat([residuals(lm, lm.chat_ids(PROMPTS[1]), layer).norm(dim=1) for layer in (1, 2)])
    return every_kind(sink_norm=between(norms))


def texts(lm, requests, *, max_new_tokens=TOKENS, **options) -> list[Generation]:
    found = dict(generate_grid(lm, requests, max_new_tokens=max_new_tokens, **options))
    return [found[index] for index in range(len(requests))]


def scores(lm, corpus, cells, **options) -> list[np.ndarray]:
    found = dict(perplexity_grid(lm, corpus, cells, **options))
    return [found[index] for index in range(len(cells))]


def corpus_of(lm, *, context=CONTEXT, window=32) -> TokenisedCorpus:
    return tokenise(TEXT, lm, PerplexityProtocol("", window=window, beyond="truncate")).with_context(context)


class TestAgainstTheSerialPath:
    def test_texts(self, lm):
        """In places for half of the rows, so that kinds and prompts of all lengths meet."""
        before = fingerprint(lm)
        requests = [Request(tuple(lm.chat_ids(prompt)), row) for prompt in PROMPTS for row in kinds(lm).values()]
        found = texts(lm, requests, rows_per_batch=len(requests) // 2)
        for request, text in zip(requests, found, strict=True):
            serial = generate_serial(lm, request, max_new_tokens=TOKENS)
            assert serial.agrees_with(text.ids)
            if serial.tie_at is None:
                assert text.gaps == pytest.approx(serial.gaps, abs=1e-3)
        assert {text.stop for text in found} == {"eos", "length"}
        assert fingerprint(lm) == before

    def test_perplexities(self, lm):
        rows = kinds(lm)
        corpus = corpus_of(lm)
        found = scores(lm, corpus, [*rows.values()])
        for (name, row), nll in zip(rows.items(), found, strict=True):
            serial = perplexity_serial(lm, corpus, row)
            np.testing.assert_allclose(nll, serial, rtol=1e-3, atol=1e-3)
            assert np.exp(nll.mean()) == pytest.approx(np.exp(serial.mean()), rel=2e-5)
            # Every kind does something, and each something else.
            assert np.allclose(nll, found[0], atol=1e-3) is (name == "unsteered")
        assert len({round(float(nll.mean()), 4) for nll in found}) == len(rows)

    @settings(max_examples=10, deadline=None)
    @given(data=st.data())
    def test_any_mixture(self, lm, data):
        """Rows of random prompts, each with edits taken from several kinds, in places that are too few for all."""
        every = [edit for row in kinds(lm).values() for edit in row]
        rows = st.lists(st.sampled_from(every), max_size=4).map(tuple)
        prompts = st.lists(st.integers(0, 255), min_size=len(CONTEXT), max_size=9).map(tuple)
        requests = data.draw(st.lists(st.builds(Request, prompts, rows), min_size=1, max_size=5))
        found = texts(lm, requests, max_new_tokens=4, rows_per_batch=data.draw(st.integers(1, 4)))
        for request, text in zip(requests, found, strict=True):
            assert generate_serial(lm, request, max_new_tokens=4).agrees_with(text.ids)
        cells = [request.intervention for request in requests]
        corpus = corpus_of(lm, window=8)
        for cell, nll in zip(cells, scores(lm, corpus, cells), strict=True):
            np.testing.assert_allclose(nll, perplexity_serial(lm, corpus, cell), rtol=2e-3, atol=2e-3)


class TestPatching:
    @pytest.mark.parametrize("layer", [0, 2, BLOCKS - 1])
    def test_a_patch_with_the_prompts_own_residuals_changes_no_bit(self, lm, layer):
        """The cache is on, and the text runs beyond any sliding window."""
        for prompt in PROMPTS[:2]:
            ids = tuple(lm.chat_ids(prompt))
            own = Patch(layer, residuals(lm, ids, layer), tuple(range(len(ids))))
            plain, patched = Request(ids, ()), Request(ids, (own,))
            assert generate_serial(lm, patched, max_new_tokens=12) == generate_serial(lm, plain, max_new_tokens=12)
            assert texts(lm, [patched], max_new_tokens=12) == texts(lm, [plain], max_new_tokens=12)

    @pytest.mark.parametrize("architecture", ["llama", "qwen3_5"])
    def test_nor_does_it_in_bfloat16(self, architecture):
        lm = tiny_language_model(architecture)
        lm.module.to(torch.bfloat16)
        ids = tuple(lm.chat_ids(PROMPTS[1]))
        own = Patch(1, residuals(lm, ids, 1), tuple(range(len(ids))))
        assert texts(lm, [Request(ids, (own,))]) == texts(lm, [Request(ids, ())])

    def test_it_changes_nothing_among_other_rows_either(self, lm):
        ids = tuple(lm.chat_ids(PROMPTS[1]))
        own = [Patch(layer, residuals(lm, ids, layer), tuple(range(len(ids)))) for layer in range(BLOCKS)]
        rows = [(), *((each,) for each in own), tuple(own), (add(1, 2.0),), (rotate(2, 3.0),), (clamp(0, 5.0),)]
        plain, *others = texts(lm, [Request(ids, row) for row in rows])
        for other in others[: BLOCKS + 1]:
            assert plain.agrees_with(other.ids)
            assert other.gaps == pytest.approx(plain.gaps, abs=1e-3) or plain.tie_at is not None
        assert any(not plain.agrees_with(other.ids) for other in others[BLOCKS + 1 :])

    def test_scores_after_a_prompt_are_the_same_with_its_own_residuals(self, lm):
        corpus = corpus_of(lm)
        [window] = corpus.windows
        own = residuals(lm, [*window.context, *window.ids], 1)[: len(CONTEXT)]
        plain, patched = scores(lm, corpus, [(), (Patch(1, own, tuple(range(len(CONTEXT)))),)], rows_per_batch=1)
        assert np.array_equal(patched, plain)

    @pytest.mark.parametrize("decoding", ["serial", "grid"])
    def test_what_is_written_is_never_patched(self, lm, decoding):
        """The patched block's output is the patch at every token of the prompt, and at none after it."""
        ids = tuple(lm.chat_ids(PROMPTS[0]))
        marked = torch.stack([random_vector(place, norm=6.0) for place in range(len(ids))])
        request = Request(ids, (Patch(2, marked, tuple(range(len(ids)))),))
        lm.module.generation_config.eos_token_id, eos = None, lm.module.generation_config.eos_token_id
        seen = []
        # The block above sees what the patched block gives.
        handle = lm.blocks[3].register_forward_pre_hook(lambda _block, inputs: seen.append(inputs[0][0].clone()))
        try:
            if decoding == "serial":
                generate_serial(lm, request, max_new_tokens=TOKENS)
            else:
                texts(lm, [request])
        finally:
            handle.remove()
            lm.module.generation_config.eos_token_id = eos
        prompts = [hidden for hidden in seen if len(hidden) == len(ids)]
        written = [hidden[0] for hidden in seen if len(hidden) == 1]
        assert torch.equal(prompts[-1], marked)
        assert len(written) == TOKENS - 1
        assert not any(torch.allclose(token, place, atol=0.1) for token in written for place in marked)

    def test_patched_tokens_of_the_text_stay_as_they_are_while_others_follow(self, lm):
        """What the patch does to a text is what the same residuals do to a text that is read at once."""
        ids = tuple(lm.chat_ids(PROMPTS[1]))
        swapped = residuals(lm, ids[::-1], 1)[list(PATCHED)]
        request = Request(ids, (Patch(1, swapped, PATCHED),))
        [text] = texts(lm, [request])

        def put(_module, _inputs, output):
            output = output.clone()
            output[0, list(PATCHED)] = swapped
            return output

        handle = lm.blocks[1].register_forward_hook(put)
        try:
            with torch.no_grad():
                logits = lm.module(input_ids=torch.tensor([[*ids, *text.ids]]), use_cache=False).logits[0]
        finally:
            handle.remove()
        gaps = [float(first - second) for first, second in logits[len(ids) - 1 :].topk(2).values]
        assert text.gaps == pytest.approx(gaps[: len(text.gaps)], abs=1e-3)


class TestPositions:
    def test_the_prompt_of_a_scored_text_is_the_context_of_its_window(self, lm):
        """With none, edits of prompts do nothing; with one, both parts together are all."""
        prompt, generated = adding(1, 2.0, "prompt"), adding(1, 2.0, "generated")
        cells = [(), (prompt,), (generated,), (prompt, generated), (add(1, 2.0),)]
        plain, before, after, both, everywhere = scores(lm, corpus_of(lm, context=[]), cells)
        np.testing.assert_allclose(before, plain, atol=1e-5)
        np.testing.assert_allclose(after, everywhere, atol=1e-4)
        plain, before, after, both, everywhere = scores(lm, corpus_of(lm), cells)
        np.testing.assert_allclose(both, everywhere, atol=1e-4)
        for one, other in [(plain, before), (plain, after), (before, after), (before, both), (after, both)]:
            assert not np.allclose(one, other, atol=1e-2)

    def test_the_last_token_of_the_context_belongs_to_the_prompt_and_the_next_does_not(self, lm):
        """One text, divided at two places."""
        corpus = corpus_of(lm)
        [window] = corpus.windows
        longer = Window((*CONTEXT, window.ids[0]), window.ids[1:], window.sentences[1:])
        later = TokenisedCorpus((longer,), corpus.sentence_count)
        cells = [(), (add(1, 2.0),), (adding(1, 2.0, "prompt"),)]
        for cell, here, there in zip(cells, scores(lm, corpus, cells), scores(lm, later, cells), strict=True):
            of_prompt = any(edit.positions == "prompt" for edit in cell)
            assert np.allclose(here[1:], there, atol=1e-4) is not of_prompt
        last = (Patch(1, random_vector(5, norm=6.0)[None], (len(CONTEXT),)),)
        with pytest.raises(ValueError, match=f"a patch of token {len(CONTEXT)}"):
            scores(lm, corpus, [last])
        assert not np.allclose(*scores(lm, later, [(), last]), atol=1e-2)

    def test_the_prompt_of_a_text_is_what_was_given(self, lm):
        ids = tuple(lm.chat_ids(PROMPTS[1]))
        prompt, generated = adding(1, 3.0, "prompt"), adding(1, 3.0, "generated")
        rows = [(), (prompt,), (generated,), (prompt, generated), (add(1, 3.0),)]
        plain, before, after, both, everywhere = texts(lm, [Request(ids, row) for row in rows])
        assert both.agrees_with(everywhere.ids)
        # The first token follows from the prompt alone.
        assert after.gaps[0] == pytest.approx(plain.gaps[0], abs=1e-4)
        assert before.gaps[0] == pytest.approx(both.gaps[0], abs=1e-4)
        assert before.gaps[0] != pytest.approx(plain.gaps[0], abs=1e-3)
        assert len({plain.gaps, before.gaps, after.gaps, both.gaps}) == 4


class TestKinds:
    @staticmethod
    def after(lm, ids, layer, row) -> torch.Tensor:
        """Residuals at a layer under an intervention that begins there, as the grid makes them."""
        seen = {}
        handle = lm.blocks[layer + 1].register_forward_pre_hook(lambda _block, inputs: seen.update(hidden=inputs[0][0]))
        try:
            texts(lm, [Request(tuple(ids), row)], max_new_tokens=1)
        finally:
            handle.remove()
        return seen["hidden"]

    def test_rotation_keeps_every_norm_and_turns_as_addition_does(self, lm):
        ids = lm.chat_ids(PROMPTS[1])
        plain = residuals(lm, ids, 1).double()
        turned = self.after(lm, ids, 1, (Rotate(1, random_vector(3), 2.0),)).double()
        pushed = self.after(lm, ids, 1, (Add(1, random_vector(3), 2.0),)).double()
        torch.testing.assert_close(turned.norm(dim=1), plain.norm(dim=1), rtol=1e-6, atol=0)
        expected = pushed * (plain.norm(dim=1) / pushed.norm(dim=1))[:, None]
        torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(turned, plain, atol=0.1)

    def test_clamping_holds_its_features_and_leaves_sinks(self, lm):
        ids = lm.chat_ids(PROMPTS[1])
        plain = residuals(lm, ids, 2)
        threshold = between(plain.norm(dim=1))
        found = self.after(lm, ids, 2, (clamp(2, 0.0, 5.0, 9.0, sink_norm=threshold),))
        sinks = plain.norm(dim=1) > threshold
        assert 0 < int(sinks.sum()) < len(ids)
        assert torch.equal(found[sinks], plain[sinks])
        natural = topk.encode(SAE, plain)[:, 3:6]
        expected = plain + (torch.tensor([0.0, 5.0, 9.0]) - natural) @ SAE.w_dec[3:6]
        torch.testing.assert_close(found[~sinks], expected[~sinks], rtol=1e-4, atol=1e-4)

    def test_a_clamp_to_what_a_token_has_anyway_changes_nothing(self, lm):
        """Of a prompt of one token, so that there is one natural activation."""
        [activations] = topk.encode(SAE, residuals(lm, [17], 2))
        features = tuple(activations.nonzero()[:, 0].tolist())
        natural = ClampFeatures(2, SAE, features, activations[list(features)], positions="prompt")
        plain, held = (texts(lm, [Request((17,), row)]) for row in [(), (natural,)])
        assert len(features) > 0
        assert held == plain


@pytest.mark.slow
def test_smollm2_writes_the_same_texts_under_every_kind(smollm2):
    from some_saes import random_sae

    size = smollm2.hidden_size
    sae = random_sae(size, 1024, 16, spread=0.1)
    ids = tuple(smollm2.chat_ids("Why did you leave the door open?"))
    vectors = {layer: random_vector(layer, norm=20.0, size=size) for layer in (5, 15, 25)}
    own = Patch(15, residuals(smollm2, ids, 15), tuple(range(len(ids))))
    held = ClampFeatures(15, sae, (3, 700), torch.tensor([1.0, 2.0]), sink_norm=1000.0)
    rows = [
        (),
        (Add(15, vectors[15], 1.0),),
        (Rotate(15, vectors[15], 2.0),),
        (held,),
        (own,),
        (Patch(15, 1.1 * own.residuals[3:6], (3, 4, 5)),),
        tuple(Add(layer, vector, 0.5) for layer, vector in vectors.items()),
        (Rotate(5, vectors[5], 1.0), held, Add(25, vectors[25], 1.0, "generated")),
    ]
    requests = [Request(ids, row) for row in rows]
    found = texts(smollm2, requests, max_new_tokens=10)
    for request, text in zip(requests, found, strict=True):
        serial = generate_serial(smollm2, request, max_new_tokens=10)
        assert serial.agrees_with(text.ids)
    assert found[0].agrees_with(found[4].ids)
    assert len({text.ids for text in found}) > 3
