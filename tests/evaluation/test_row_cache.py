import pytest
import torch
from tiny_models import tiny_language_model

from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.row_cache import RowCache, can_join, new_cache

LENGTHS = (3, 3, 5, 9)


@pytest.fixture(scope="module", params=["llama", "gpt2", "granite"])
def joining(request):
    return tiny_language_model(request.param)


def prompt(length: int) -> torch.Tensor:
    return torch.randint(4, 250, (1, length), generator=torch.Generator().manual_seed(length))


def read(lm, ids):
    cache = new_cache(lm)
    with torch.no_grad():
        lm.module(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


@pytest.mark.parametrize(
    ("architecture", "joins"),
    [("llama", True), ("gpt2", True), ("granite", True), ("gemma3", False), ("qwen3_5", False)],
)
def test_only_models_that_cache_every_token_join_rows(architecture, joins):
    assert can_join(tiny_language_model(architecture)) is joins


def test_a_joined_row_decodes_as_it_would_alone(joining):
    prompts = [prompt(length) for length in LENGTHS]
    together = torch.cat(prompts[:2])
    cache = RowCache([read(joining, ids) for ids in (together, *prompts[2:])], LENGTHS, joining.device)
    alone = [read(joining, ids) for ids in prompts]
    step = torch.tensor([[7], [8], [9], [10]])
    rows = torch.arange(len(LENGTHS))
    for _ in range(4):
        with torch.no_grad():
            joined = joining.module(input_ids=step, **cache.arguments()).logits[:, -1]
            for position, row in enumerate(rows):
                single = joining.module(input_ids=step[position : position + 1], past_key_values=alone[row]).logits
                assert joined[position] == pytest.approx(single[0, -1], abs=2e-4)
        # The longest row leaves first: the filling of the others must stay where it is.
        kept = torch.arange(max(len(rows) - 1, 1))
        rows, step = rows[kept], joined.argmax(dim=1, keepdim=True)[kept]
        cache.select(kept)


def test_rows_of_one_length_need_no_mask(joining):
    cache = RowCache([read(joining, torch.cat([prompt(5), prompt(5)]))], (5, 5), joining.device)
    assert set(cache.arguments()) == {"past_key_values", "use_cache"}


@pytest.mark.parametrize("architecture", ["llama", "qwen3_5"])
def test_rows_share_decoding_steps_as_far_as_the_model_allows(architecture):
    lm = tiny_language_model(architecture)
    shapes = []
    handle = lm.blocks[0].register_forward_pre_hook(lambda _module, inputs: shapes.append(tuple(inputs[0].shape[:2])))
    requests = [Request(tuple(prompt(length)[0].tolist()), ()) for length in LENGTHS]
    assert len(list(generate_grid(lm, requests, max_new_tokens=3))) == len(requests)
    handle.remove()
    decoding = [rows for rows, tokens in shapes if tokens == 1]
    assert decoding == ([4, 4] if can_join(lm) else [2, 2, 1, 1, 1, 1])
