"""Which tokens of a conversation are patched, and with what."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CHAT_TEMPLATE, tiny_language_model

from steer_eval.comparison.patching import ConversationPatch, Conversations, shared_tail

ANCHOR = "Be firm."
PROMPT = "The river rose."
WITH_DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nShe slept.<|im_end|>\n{% endif %}"
IDS = st.lists(st.integers(0, 3), max_size=8)


@given(IDS, IDS)
def test_the_shared_tail_is_the_longest(first, second):
    length = shared_tail(first, second)

    assert first[len(first) - length :] == second[len(second) - length :]
    longer = length + 1
    assert longer > min(len(first), len(second)) or first[-longer:] != second[-longer:]


@pytest.fixture(params=["llama", "qwen3_5", "gpt2"])
def lm(request):
    return tiny_language_model(request.param)


def hidden(lm, ids, layer):
    """Residuals as transformers itself tells them: entry 0 is what the first block is given."""
    output = lm.module(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return output.hidden_states[layer + 1][0].detach()


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, WITH_DEFAULT + CHAT_TEMPLATE])
def test_residuals_go_from_each_token_to_the_same_token(lm, template):
    lm.tokenizer.chat_template = template
    layer = 1
    shared = Conversations(lm, layer, ANCHOR).shared(PROMPT)
    plain, anchored = lm.chat_ids(PROMPT), lm.chat_ids(PROMPT, system=ANCHOR)
    places = [len(anchored) - len(plain) + place for place in shared.at]

    assert [plain[place] for place in shared.at] == [anchored[place] for place in places]
    assert torch.allclose(shared.plain, hidden(lm, plain, layer)[list(shared.at)], atol=1e-5)
    assert torch.allclose(shared.anchored, hidden(lm, anchored, layer)[places], atol=1e-5)
    # The whole user's turn is there, up to the last token.
    assert shared.at[-1] == len(plain) - 1
    assert PROMPT in lm.decode([plain[place] for place in shared.at])


def test_the_first_token_of_a_text_is_never_patched(lm):
    plain = lm.chat_ids(PROMPT)
    anchored = lm.chat_ids(PROMPT, system=ANCHOR)

    # Without a system turn of its own, the whole conversation is the tail of the anchored one.
    assert shared_tail(plain, anchored) == len(plain)
    assert Conversations(lm, 1, ANCHOR).shared(PROMPT).at == tuple(range(1, len(plain)))


def test_keys_tell_sources_apart_and_need_no_model(lm):
    conversations = Conversations(lm, 1, ANCHOR)
    lm.module.forward = None
    patches = [
        ConversationPatch(conversations, "anchor"),
        ConversationPatch(conversations, "prompt"),
        ConversationPatch(conversations, "random", 1),
        ConversationPatch(conversations, "random", 2),
        ConversationPatch(Conversations(lm, 1, "Be calm."), "anchor"),
        ConversationPatch(Conversations(lm, 2, ANCHOR), "anchor"),
    ]

    assert len({patch.key() for patch in patches}) == len(patches)
