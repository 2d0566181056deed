import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOCKS, HIDDEN, TEXT, fingerprint, tiny_language_model

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.memory import PASS_TOKENS
from steer_eval.extract import extract_caa, pair_differences

WORDS = TEXT.split()
LAYERS = range(BLOCKS - 1)
PAIRS = [
    ContrastPair("Who took the lamp?", "The dogs were quiet! Nobody had slept, and the water rose.", "He said so."),
    ContrastPair("Why?", "No.", "The old men had seen worse, and the road was gone in the morning. They counted."),
    ContrastPair("Was it the rain that woke her in the night?", "Out! Out!", "She put on her coat."),
    ContrastPair("What is the matter with the bridge, and where have they all gone?", "a", "b"),
]
pairs = st.lists(
    st.builds(ContrastPair, *[st.integers(1, size).map(lambda count: " ".join(WORDS[:count])) for size in (4, 20, 20)]),
    min_size=1,
    max_size=5,
)


@torch.no_grad()
def by_hand(lm, pairs, layer) -> torch.Tensor:
    """One pass per text, no batch, no padding, transformers' own hidden states."""
    total = torch.zeros(lm.hidden_size, dtype=torch.float64)
    for pair in pairs:
        prompt = lm.chat_ids(pair.scenario)
        for text, sign in ((pair.positive, 1), (pair.negative, -1)):
            reply = lm.tokenizer(text, add_special_tokens=False).input_ids
            output = lm.module(torch.tensor([prompt + reply]), output_hidden_states=True, use_cache=False)
            states = output.hidden_states[layer + 1][0]
            mean = torch.zeros(lm.hidden_size, dtype=torch.float64)
            for position in range(len(prompt), len(prompt) + len(reply)):
                mean += states[position].double() / len(reply)
            total += sign * mean
    return total / len(pairs)


def assert_close(observed: torch.Tensor, expected: torch.Tensor, *, bound: float = 1e-5) -> None:
    assert float((observed.double() - expected).norm()) <= bound * (1 + float(expected.norm()))


def test_vectors_are_those_computed_by_hand(tiny):
    vectors = extract_caa(tiny, PAIRS, LAYERS)
    assert list(vectors) == list(LAYERS)
    for layer, vector in vectors.items():
        assert vector.dtype == torch.float32
        assert vector.shape == (HIDDEN,)
        assert float(vector.norm()) > 0.1
        assert_close(vector, by_hand(tiny, PAIRS, layer))


def test_the_last_block_is_taken_before_the_final_norm(tiny):
    last = BLOCKS - 1
    outputs = []
    handle = tiny.blocks[last].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    expected = torch.zeros(HIDDEN, dtype=torch.float64)
    for text, sign in ((PAIRS[0].positive, 1), (PAIRS[0].negative, -1)):
        prompt, reply = tiny.chat_ids(PAIRS[0].scenario), tiny.text_ids(text, special_tokens=False)
        tiny.final_hidden(torch.tensor([prompt + reply]))
        expected += sign * outputs.pop()[0, len(prompt) :].double().mean(dim=0)
    handle.remove()
    # A recurrent layer that goes on from a state rounds otherwise than one that reads all at once.
    assert_close(extract_caa(tiny, PAIRS[:1], [last])[last], expected, bound=5e-5)


def test_a_special_token_in_front_of_texts_stays_out_of_chats():
    lm, with_bos = tiny_language_model("llama"), tiny_language_model("llama", bos=True)
    assert torch.equal(extract_caa(lm, PAIRS, [1])[1], extract_caa(with_bos, PAIRS, [1])[1])


@settings(max_examples=6, deadline=None)
@given(pairs=pairs)
def test_pairs_do_not_see_each_other(tiny, pairs):
    """Whatever shares a batch with a text, and however much padding follows it, changes nothing."""
    together = extract_caa(tiny, pairs, [0, 2])
    for layer in (0, 2):
        alone = torch.stack([extract_caa(tiny, [pair], [layer])[layer].double() for pair in pairs])
        assert_close(together[layer], alone.mean(dim=0))


def test_differences_stand_in_the_order_of_the_pairs(tiny):
    """Batches go by length, which these pairs are not sorted by."""
    longer = [
        ContrastPair(pair.scenario + " Now?" * (3 - number), pair.positive, pair.negative)
        for number, pair in enumerate(PAIRS)
    ]
    found = pair_differences(tiny, longer, [0, 2])
    for layer, differences in found.items():
        assert differences.shape == (len(longer), HIDDEN)
        for pair, difference in zip(longer, differences, strict=True):
            assert_close(difference, by_hand(tiny, [pair], layer), bound=5e-5)


def test_exchanging_the_replies_turns_the_vector_round(tiny):
    turned = [ContrastPair(pair.scenario, pair.negative, pair.positive) for pair in PAIRS]
    assert_close(extract_caa(tiny, turned, [1])[1], -extract_caa(tiny, PAIRS, [1])[1].double())


def test_equal_replies_give_nothing(tiny):
    same = [ContrastPair(pair.scenario, pair.positive, pair.positive) for pair in PAIRS]
    assert not extract_caa(tiny, same, [1])[1].any()


def test_pairs_that_cancel_each_other_give_nothing(tiny):
    """Of three, read in one order and the other, not two zeros but a sum of which rounding is left."""
    turned = [ContrastPair(pair.scenario, pair.negative, pair.positive) for pair in PAIRS[:3]]
    found = pair_differences(tiny, [*PAIRS[:3], *turned], [1])[1]
    assert found.norm(dim=1).min() > 0.1
    assert not extract_caa(tiny, [*PAIRS[:3], *turned], [1])[1].any()


def test_texts_that_fill_several_batches():
    lm = tiny_language_model("llama")
    many = [ContrastPair(WORDS[i % 50], " ".join(WORDS[i % 9 : 40]), " ".join(WORDS[: 20 + i % 7])) for i in range(40)]
    done = []
    vectors = extract_caa(lm, many, [2], on_texts=done.append)
    assert len(done) > 1
    assert sum(done) == 2 * len(many)
    longest = max(
        len(lm.chat_ids(pair.scenario)) + len(lm.text_ids(pair.positive, special_tokens=False)) for pair in many
    )
    assert max(done) * longest <= 2 * PASS_TOKENS
    assert_close(vectors[2], by_hand(lm, many, 2))


def test_a_text_longer_than_a_batch_is_a_batch():
    lm = tiny_language_model("qwen3_5")
    long = ContrastPair("Why?", "the dogs " * 1000, "No.")
    assert len(lm.text_ids(long.positive, special_tokens=False)) > PASS_TOKENS
    assert_close(extract_caa(lm, [long], [0])[0], by_hand(lm, [long], 0))


def test_blocks_above_and_the_head_are_spared(tiny):
    before = fingerprint(tiny)
    runs = []
    handles = [
        block.register_forward_pre_hook(lambda *_, index=index: runs.append(index))
        for index, block in enumerate(tiny.blocks)
    ]
    handles.append(tiny.module.lm_head.register_forward_pre_hook(lambda *_: runs.append("head")))
    extract_caa(tiny, PAIRS, [2, 0])
    for handle in handles:
        handle.remove()
    batches = len({len(tiny.chat_ids(pair.scenario)) for pair in PAIRS})
    assert runs == [0, 1, 2] * 2 * batches
    assert fingerprint(tiny) == before


@pytest.mark.parametrize("pair", [ContrastPair("Why?", "", "No."), ContrastPair("Why?", "No.", "")])
def test_a_pair_without_a_reply_is_refused(pair):
    with pytest.raises(SteerEvalError, match="pair 2"):
        extract_caa(tiny_language_model("llama"), [PAIRS[0], pair], [1])


def test_no_pairs_are_refused():
    with pytest.raises(SteerEvalError, match="no contrast pairs"):
        extract_caa(tiny_language_model("llama"), [], [1])


@pytest.mark.slow
def test_smollm2(smollm2):
    vectors = extract_caa(smollm2, PAIRS, [5, 15, 28])
    for layer, vector in vectors.items():
        expected = by_hand(smollm2, PAIRS, layer)
        assert float((vector.double() - expected).norm()) <= 1e-5 * float(expected.norm())
