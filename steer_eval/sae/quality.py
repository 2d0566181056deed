"""How good an SAE is, measured on text that it was not trained on.

Invariant: every figure says which tokens it is over. Attention sinks are left out of sums and left alone in the model
(`sinks.py`), because an SAE that never saw them says nothing about them.

    FVU = sum |x - x^|^2 / sum |x - mean|^2      the mean per dimension, over all tokens measured; float64 sums

so predicting the mean scores 1. The mean of squares over the variance of all values taken together, which is also in
use, is another figure: it counts the spread between dimensions as if it were explained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.memory import Budget
from steer_eval.formats.sae import TopKSae
from steer_eval.model import LanguageModel
from steer_eval.sae.activations import Activations, Passage
from steer_eval.sae.feature_activity import FeatureActivity
from steer_eval.sae.sinks import is_sink
from steer_eval.sae.sparse_step import Fired, Parameters, decoded, pre_activations, top_k
from steer_eval.steering.hooks import captured, entered_at, residual, with_residual

BATCH = 2048


@dataclass(frozen=True)
class Reconstruction:
    """How well residuals are reconstructed.

    Args:
        fvu: Fraction of variance unexplained.
        l0: Mean number of features that fire per token.
        silent: Share of features that fire for none of the tokens.
        tokens: Tokens measured on.
        sinks: Tokens left out as attention sinks.
        activity: What each feature does on the tokens measured.
    """

    fvu: float
    l0: float
    silent: float
    tokens: int
    sinks: int
    activity: FeatureActivity = field(compare=False)


def fired_features(sae: TopKSae, residuals: Tensor) -> Fired:
    """Features that fire for some residuals `[tokens, d_in]`."""
    parameters = _rows(sae)
    return top_k(pre_activations(parameters, residuals - parameters.b_dec), sae.k)


def reconstructed(sae: TopKSae, residuals: Tensor) -> Tensor:
    """What the SAE makes of residuals `[tokens, d_in]`."""
    return decoded(fired_features(sae, residuals), sae.w_dec.float()) + sae.b_dec.float()


@torch.no_grad()
def reconstruction(sae: TopKSae, batches: Iterable[Tensor], *, threshold: float) -> Reconstruction:
    """Measure an SAE on stored residuals.

    Args:
        sae: The SAE.
        batches: The residuals, float32 `[tokens, d_in]` each.
        threshold: Norm above which a residual is a sink.

    Raises:
        SteerEvalError: All are sinks, or there is nothing to explain.
    """
    total = torch.zeros(sae.d_in, dtype=torch.float64)
    squares = torch.zeros(sae.d_in, dtype=torch.float64)
    error, count, sinks = 0.0, 0, 0
    maximum = torch.zeros(sae.d_sae)
    firing = torch.zeros(sae.d_sae, dtype=torch.int64)
    for batch in batches:
        x = batch[~is_sink(batch, threshold)]
        sinks += len(batch) - len(x)
        count += len(x)
        fired = fired_features(sae, x)
        missed = (decoded(fired, sae.w_dec.float()) + sae.b_dec.float() - x).double()
        error += float(missed.square().sum())
        total += x.double().sum(dim=0)
        squares += x.double().square().sum(dim=0)
        active = fired.values > 0
        maximum.scatter_reduce_(0, fired.features[active], fired.values[active], "amax")
        firing += fired.features[active].bincount(minlength=sae.d_sae)
    if not count:
        raise _none_left(sinks, threshold)
    variance = float((squares - total.square() / count).sum())
    if not variance > 0:
        raise SteerEvalError(
            f"the residuals of {count} tokens are all the same, so that there is no variance to explain",
            "name more text under saes.text in study.yaml",
        )
    silent = float((firing == 0).double().mean())
    activity = FeatureActivity(maximum.numpy(), (firing.double() / count).float().numpy())
    return Reconstruction(error / variance, int(firing.sum()) / count, silent, count, sinks, activity)


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of next tokens, in nats per token, with the residuals at the SAE's layer replaced.

    Args:
        clean: By nothing.
        sae: By the SAE's reconstruction, sinks left alone.
        mean: By their mean over the text (mean ablation), sinks left alone.
        tokens: Tokens scored.
    """

    clean: float
    sae: float
    mean: float
    tokens: int

    @property
    def excess(self) -> float:
        """What the reconstruction costs."""
        return self.sae - self.clean

    @property
    def recovered(self) -> float:
        """Share of what mean ablation costs that the SAE wins back."""
        return (self.mean - self.sae) / (self.mean - self.clean)


@torch.no_grad()
def cross_entropy(
    lm: LanguageModel, sae: TopKSae, passages: Sequence[Passage], mean: Tensor, *, threshold: float, rows: int = 8
) -> CrossEntropy:
    """Cross-entropy of a text with an SAE in place of the residual stream.

    The blocks up to the SAE's run once; those above run three times.

    Args:
        lm: The model.
        sae: The SAE.
        passages: The text.
        mean: Mean residual at the layer, sinks left out, `[d_in]`.
        threshold: Norm above which a residual is a sink.
        rows: Passages of one length that are read together.

    Raises:
        SteerEvalError: No passage has a token after its first.
    """
    sums, count = [0.0, 0.0, 0.0], 0
    kernels = Budget.of(lm, None).kernels(lm, sum(len(passage.ids) for passage in passages))
    with kernels():
        for ids in _batches(passages, rows):
            for index, states in enumerate(_finals(lm, sae, ids, mean, threshold=threshold)):
                sums[index] += text_nll(lm, states, ids)
            count += ids.numel() - len(ids)
    if not count:
        raise SteerEvalError(
            "no passage held out has two tokens, so that there is no next token to score",
            "name more text under saes.text in study.yaml, or raise saes.context",
        )
    clean, with_sae, ablated = (total / count for total in sums)
    return CrossEntropy(clean, with_sae, ablated, count)


def _finals(
    lm: LanguageModel, sae: TopKSae, ids: Tensor, mean: Tensor, *, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What the LM head sees of some text: clean, with the SAE in place, and with the mean in place."""
    with captured(lm.blocks, [sae.layer], stop=False) as outputs:
        clean = lm.final_hidden(ids)
    output = outputs[sae.layer]
    hidden = residual(output)
    x = hidden.float().flatten(0, 1)
    sinks = is_sink(x, threshold)[:, None]

    def replaced(replacement: Tensor) -> Tensor:
        kept = torch.where(sinks, x, replacement).view_as(hidden).to(hidden.dtype)
        with entered_at(lm.blocks, sae.layer, with_residual(output, kept)):
            return lm.final_hidden(ids)

    return clean, replaced(reconstructed(sae, x)), replaced(mean.expand_as(x))


@torch.no_grad()
def text_nll(lm: LanguageModel, final: Tensor, ids: Tensor) -> float:
    """Sum of the negative log-likelihoods of each row's tokens after its first, in nats.

    Args:
        lm: The model.
        final: What its head reads, `[rows, tokens, hidden_size]`.
        ids: The tokens, `[rows, tokens]`.
    """
    total = 0.0
    # One row at a time: logits of a whole batch over a large vocabulary would not fit.
    for states, targets in zip(final, ids, strict=True):
        logits = lm.logits(states[None, :-1])[0].float()
        total += float(torch.nn.functional.cross_entropy(logits, targets[1:].to(logits.device), reduction="sum"))
    return total


def mean_residual(activations: Activations, *, threshold: float) -> Tensor:
    """Mean of stored residuals, sinks left out, `[hidden_size]`.

    Raises:
        SteerEvalError: All are sinks.
    """
    total, count, sinks = torch.zeros(0, dtype=torch.float64), 0, 0
    for batch in activations.batches(BATCH):
        x = batch[~is_sink(batch, threshold)]
        total = x.double().sum(dim=0) + (total if count else 0.0)
        count += len(x)
        sinks += len(batch) - len(x)
    if not count:
        raise _none_left(sinks, threshold)
    return (total / count).float()


def _none_left(sinks: int, threshold: float) -> SteerEvalError:
    return SteerEvalError(
        f"the norms of all {sinks} tokens lie above {threshold:g}, so that each is taken for an attention sink",
        "mend metadata.steer_eval.sink_norm in the SAE's cfg.json, or train it with `steer-eval sae train`",
    )


def _batches(passages: Iterable[Passage], rows: int) -> Iterator[Tensor]:
    by_length = sorted((passage.ids for passage in passages if len(passage.ids) > 1), key=len)
    for _, group in groupby(by_length, key=len):
        same = list(group)
        for start in range(0, len(same), rows):
            yield torch.tensor(same[start : start + rows])


def _rows(sae: TopKSae) -> Parameters:
    return Parameters(sae.w_enc.float().T, sae.b_enc.float(), sae.w_dec.float(), sae.b_dec.float())
