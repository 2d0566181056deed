"""Devices without float64 (MPS), as far as they can be stood in for.

The stand-in is torch's meta device, whose tensors have shapes and no values: it shows which operators run there and in
which precision, not what they compute.
"""

import numpy as np
import pytest
import torch
from tiny_models import add, tiny_language_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from steer_eval.evaluation import probe
from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.serial import perplexity_serial
from steer_eval.extract import TokenisedPair, token_differences
from steer_eval.model import LanguageModel

CORPUS = TokenisedCorpus((Window((7,), tuple(range(20, 40)), np.zeros(19, dtype=np.int64)),), 1)


class NoFloat64(TorchDispatchMode):
    """Refuses float64 on the meta device, and copies from it give zeros."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaving = func is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu")
        if leaving and args[0].device.type == "meta":
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
            return args[0].new_zeros((), device="cpu").item()
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta" and tensor.dtype == torch.float64:
                raise TypeError(f"{func} makes float64 on a device that has none")
        return result


@pytest.fixture(scope="module")
def elsewhere() -> LanguageModel:
    lm = tiny_language_model("llama")
    there = LanguageModel(lm.module.to("meta"), lm.tokenizer)
    # What a model computes can't be probed where nothing is computed.
    probe._served.add(there)
    return there


def test_the_stand_in_refuses_float64():
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2, device="meta").double()


def test_the_perplexity_grid(elsewhere):
    with NoFloat64():
        scores = dict(perplexity_grid(elsewhere, CORPUS, [(), (add(1, 1.0),)], memory=10**9))
    assert [scores[cell].dtype for cell in (0, 1)] == [np.float64] * 2


def test_the_serial_perplexity(elsewhere):
    with NoFloat64():
        assert perplexity_serial(elsewhere, CORPUS, (add(1, 1.0),)).dtype == np.float64


def test_extraction(elsewhere):
    with NoFloat64():
        found = token_differences(elsewhere, [TokenisedPair((5, 6), ((7, 8), (9,)))], [1, 2], memory=10**9)
    assert [each.dtype for each in found.values()] == [torch.float64] * 2
