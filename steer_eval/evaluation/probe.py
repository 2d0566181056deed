"""Whether a model computes what the engine takes for granted, found out on the model itself.

Invariant: a model that passed gives, on a few tokens, the same residuals and logits in every way in which the engine
reads it as in one plain pass with hooks; one that did not is refused before anything is measured on it.

The engine continues a prompt from a cache, by several tokens or by one; it lets rows join a pass above the blocks that
they share, and rows of different lengths decode together. Architectures exist that drop the cache they are given,
forget a recurrent state when several tokens follow it, hand states from block to block past the residual stream, take
positions from the longest row, or look ahead. Most of these give wrong numbers without an error, and no list of names
would know tomorrow's. So each loaded model is asked once, at the cost of a few short passes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from steer_eval.errors import SteerEvalError, first_line
from steer_eval.evaluation.decode_attention import decode_attention
from steer_eval.evaluation.memory import one_row
from steer_eval.evaluation.row_cache import RowCache, can_join
from steer_eval.evaluation.shared_pass import SharedPass
from steer_eval.model import LanguageModel
from steer_eval.steering.hooks import captured, residual
from steer_eval.steering.interventions import Add, Intervention
from steer_eval.steering.row_edits import RowEdits

PROMPT, REPLY = 4, 2
"""Tokens that are read first, and those that follow them in one pass; one more follows by itself."""

TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.08}
"""How far apart residuals or logits may be, as a share of their norm: more than rounding does in deep models."""

ONE_TOKEN = 0.02
"""The same where single tokens are compared with several ones: Nemotron-H bounds its time steps only in these."""

_LENGTH = PROMPT + REPLY + 1

_served: WeakSet[LanguageModel] = WeakSet()


@dataclass(frozen=True)
class Difference:
    """What one comparison found.

    Args:
        what: What differs, as a clause.
        share: Norm of the difference as a share of the norm, of the median token of the worst block.
        of_the_model: How large it may be at any rate, because the model itself is not more consistent.
        ahead: Whether the model looks ahead if it is larger.
    """

    what: str
    share: float
    of_the_model: float = 0.0
    ahead: bool = False


def check_served(lm: LanguageModel) -> None:
    """Refuse a model on which the engine would be wrong; a loaded model is asked only once.

    Raises:
        SteerEvalError: The model looks ahead; a way in which the engine reads it fails, or gives other numbers than a
            plain pass; its numbers are not finite; or there is no memory for a few tokens.
    """
    if lm in _served:
        return
    allowed = TOLERANCE.get(lm.dtype, TOLERANCE["float32"])
    try:
        with one_row():
            for found in differences(lm):
                # So written, NaN is refused.
                if not found.share <= max(allowed, found.of_the_model):
                    raise _refusal(lm, f"{found.what} ({found.share:.2g} of their norm apart)", ahead=found.ahead)
    except SteerEvalError:
        raise
    except Exception as error:
        # What an architecture makes of a cache or of rows that it does not expect can't be foreseen.
        said = f"{type(error).__name__}: {first_line(error)}"
        raise _refusal(lm, f"it can't be read in parts ({said})") from error
    _served.add(lm)


@torch.no_grad()
def differences(lm: LanguageModel) -> Iterator[Difference]:
    """Compare the ways of the engine with a plain pass, until the caller has seen enough.

    Two rows are read, which have one prompt, different replies, and edits at different blocks.

    Raises:
        SteerEvalError: Blocks don't return a residual stream, or numbers are not finite.
        Exception: Whatever the architecture raises where it is not made for this.
    """
    ids, blocks = _texts(lm), lm.blocks
    everywhere = range(len(blocks))
    lower, higher = (len(blocks) - 1) // 2, (3 * len(blocks) - 1) // 4
    with captured(blocks, everywhere, stop=False) as outputs:
        below = SharedPass(lm, ids[0, :PROMPT].tolist(), {lower, higher}, prompt=PROMPT, cached=True)
    prompt = _streams(lm, outputs)
    # Of the size of what is there, in another direction.
    rows: list[Intervention] = [(Add(layer, prompt[layer, 0, -1].roll(1), 1.0),) for layer in (lower, higher)]

    edits = RowEdits.of(lm, rows)
    with edits.applied(blocks, prompt=_LENGTH), captured(blocks, everywhere, stop=False) as outputs:
        plain_logits = _centred(lm.module(input_ids=ids, use_cache=False).logits)
    plain = _streams(lm, outputs)
    if not (plain.isfinite().all() and plain_logits.isfinite().all()):
        raise SteerEvalError(
            f"{type(lm.module).__name__} computes numbers that are not finite in {lm.dtype}",
            "check the weights, or measure in float32",
        )
    share = _share(prompt[:higher, 0], plain[:higher, -1, :PROMPT])
    yield Difference("tokens have other residuals if others follow them", share, ahead=True)

    shared = below.rows(rows)
    share = _share(_centred(lm.logits(shared.hidden)), plain_logits[:, :PROMPT])
    yield Difference("rows that share the blocks below their edits have other logits than by themselves", share)

    batch = RowCache(lm, rows=4, tokens=_LENGTH)
    lengths = [PROMPT, _LENGTH - 1] if can_join(lm, longest=_LENGTH) else [_LENGTH - 1]
    if len(lengths) > 1:
        batch.append(copy.deepcopy(shared.cache), rows=2, tokens=PROMPT)
    with edits.applied(blocks, prompt=0), captured(blocks, everywhere, stop=False) as outputs:
        lm.final_hidden(ids[:, PROMPT:-1], cache=shared.cache)
    # Rows and tokens are taken together, as their typical one is asked for.
    share = _share(_streams(lm, outputs).flatten(1, 2), plain[:, :, PROMPT:-1].flatten(1, 2))
    yield Difference("tokens that continue a prompt have other residuals than read with it", share)

    batch.append(shared.cache, rows=2, tokens=_LENGTH - 1)
    edits = RowEdits.of(lm, rows * len(lengths))
    with (
        edits.applied(blocks, prompt=0),
        captured(blocks, everywhere, stop=False) as outputs,
        decode_attention(lm.module),
    ):
        hidden = lm.final_hidden(ids[:, lengths].T.reshape(-1, 1), **batch.arguments())
    streams, logits = _streams(lm, outputs), _centred(lm.logits(hidden))
    # Rows are in order of their lengths, each with one token.
    share = max(
        _share(streams.flatten(1, 2), plain[:, :, lengths].transpose(1, 2).flatten(1, 2)),
        _share(logits.flatten(0, 1), plain_logits[:, lengths].transpose(0, 1).flatten(0, 1)),
    )
    yield Difference("rows that decode together have other residuals or logits than by themselves", share, ONE_TOKEN)


def _texts(lm: LanguageModel) -> Tensor:
    """Ids from all over the vocabulary, int64 `[2, tokens]`: one prompt, and two replies."""
    count = 2 * _LENGTH - PROMPT
    spread = torch.arange(1, count + 1) * (lm.vocabulary // (count + 1))
    ids = torch.stack([spread[:_LENGTH], torch.cat([spread[:PROMPT], spread[_LENGTH:]])])
    return ids.to(lm.device)


def _stream(lm: LanguageModel, outputs: Mapping[int, Any], layer: int) -> Tensor:
    hidden = residual(outputs[layer])
    if hidden.dim() != 3 or hidden.shape[-1] != lm.hidden_size:
        expected = f"[rows, tokens, {lm.hidden_size}]"
        raise _refusal(lm, f"block {layer} returns {list(hidden.shape)}, and a residual stream is {expected}")
    return hidden


def _streams(lm: LanguageModel, outputs: Mapping[int, Any]) -> Tensor:
    """Residuals of all blocks, float32 `[blocks, rows, tokens, hidden_size]`."""
    return torch.stack([_stream(lm, outputs, layer).float() for layer in range(len(lm.blocks))])


def _centred(logits: Tensor) -> Tensor:
    """Logits about their mean, which means nothing, in float32."""
    return logits.float() - logits.float().mean(dim=-1, keepdim=True)


def _share(seen: Tensor, expected: Tensor) -> float:
    """Norm of a difference as a share of the norm, of the median token, where it is largest.

    The median, because rounding may send single tokens to another expert of a mixture; of an even number the upper one,
    so that half of the tokens can't be wrong.

    Args:
        seen: `[..., tokens, width]`, possibly empty.
        expected: The same shape.
    """
    apart = (seen - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(apart.kthvalue(apart.shape[-1] // 2 + 1, dim=-1).values.max()) if apart.numel() else 0.0


def _refusal(lm: LanguageModel, why: str, *, ahead: bool = False) -> SteerEvalError:
    return SteerEvalError(
        f"{type(lm.module).__name__} can't be measured exactly: {why}",
        "take a model that reads from left to right"
        if ahead
        else "take a model of an architecture that docs/speed.md lists as tested, or report this one",
    )
