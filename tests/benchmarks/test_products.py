"""Noted products are those that were computed, counted against closed forms, and each has a way of being timed."""

from __future__ import annotations

import json

import peer_products
import pytest
import torch
from products import BATCHED, LINEAR, NotedProducts, Product, operations
from tiny_models import BLOCKS, HIDDEN, tiny_config
from transformers import LlamaForCausalLM

from steer_eval.evaluation.packed import PackedLinears


def test_products_of_a_model_are_those_of_its_layers_packed_or_not():
    torch.manual_seed(0)
    config = tiny_config("llama")
    model = LlamaForCausalLM(config).eval()
    tokens = 7
    seen = []
    for module in (None, model):
        kernels = PackedLinears(model).applied() if module else torch.no_grad()
        with torch.no_grad(), kernels, NotedProducts() as noted:
            model(input_ids=torch.arange(3, 3 + tokens)[None], use_cache=False)
        # Those with one column are rotations' angles.
        seen.append([each for each in noted.seen if each.inner > 1])
    plain, packed = seen
    assert plain == packed
    linear = [each for each in plain if each.kind == LINEAR]
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    assert operations(linear) == 2 * tokens * weights
    # Scores and mixtures, each of half the keys on average.
    heads, size = config.num_attention_heads, HIDDEN // config.num_attention_heads
    batched = [each for each in plain if each.kind == BATCHED]
    assert operations(batched) == BLOCKS * 2 * 2 * heads * size * tokens * (tokens + 1) // 2


def test_all_kinds_of_products_are_noted_once():
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    with torch.no_grad(), NotedProducts() as noted:
        left @ right
        torch.addmm(torch.ones(5), left, right)
        torch.nn.functional.linear(left[None], torch.ones(5, 4))
        torch.bmm(left.expand(2, 3, 4), right.expand(2, 4, 5))
        query = torch.ones(1, 2, 3, 4)
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    whole = [Product(BATCHED, 2, 3, 4, 3), Product(BATCHED, 2, 3, 3, 4)]
    assert noted.seen == [*[Product(LINEAR, 1, 3, 4, 5)] * 3, Product(BATCHED, 2, 3, 4, 5), *whole]
    assert operations(noted.seen[:1]) == 2 * 3 * 4 * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_limit_computes_every_product_in_a_way_that_was_the_fastest_of_its_shape(dtype):
    products = [Product(LINEAR, 1, rows, 8, outputs) for rows in (3, 5) for outputs in (8, 200)]
    products += [Product(BATCHED, 4, 3, 8, 6), Product(LINEAR, 1, 3, 8, 8)]
    limit = peer_products.Limit(products, dtype)
    with torch.no_grad():
        distinct, choice = limit.choose()
        with NotedProducts() as noted:
            assert limit.products() == (1, None)
    assert distinct == 5
    # Plain alone can't be faster than the fastest way of each, by the same times.
    assert choice["plain"] >= 1
    assert 0 <= choice["packed"] <= 5
    assert noted.seen == products


def test_the_limit_of_a_shape_has_as_many_weights_as_the_model_has_blocks():
    block, head = Product(LINEAR, 1, 2, 8, 8), Product(LINEAR, 1, 2, 8, 200)
    limit = peer_products.Limit([block, head], torch.float32)
    for product, count in ((block, peer_products.BLOCKS), (head, 1)):
        weights = [limit._weight(product, packed=False) for _ in range(peer_products.BLOCKS)]
        assert len({weight.data_ptr() for weight in weights}) == count


def test_products_are_written_as_they_are_read():
    products = [Product(LINEAR, 1, 3, 4, 5), Product(BATCHED, 2, 3, 4, 5)]
    assert [Product(*each) for each in json.loads(json.dumps(products))] == products
