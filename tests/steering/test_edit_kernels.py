"""What each kind of edit keeps, rounds and costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from edits_by_hand import SAE, adding, by_hand, clamp, rotate
from some_saes import between, identity_sae, random_sae
from steering.edited_rows import LAYER, edited, edits_of, residuals
from tiny_models import HIDDEN, add, random_vector
from torch.utils._python_dispatch import TorchDispatchMode

from steer_eval.sae import topk
from steer_eval.steering import edit_kernels
from steer_eval.steering.interventions import Add, ClampFeatures, Rotate


class Operations(TorchDispatchMode):
    """What torch computes inside the `with` block, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if not function.is_view:
            self.names.append(function.overloadpacket.__name__)
        return result


class TestAddition:
    def test_a_hooked_block_costs_one_sum_while_rows_decode(self):
        rows = [(add(LAYER, 1.0), add(LAYER, 2.0, seed=1)), (), (add(LAYER, -1.0),), (add(2, 1.0),)]
        edits, hidden = edits_of(*rows), residuals(4, 1)
        with Operations() as seen:
            edits.edited(LAYER, hidden, start=9, prompt=0)
        assert seen.names == ["add"]
        edits.select([3, 0])
        with Operations() as seen:
            edits.edited(LAYER, hidden[:2], start=10, prompt=0)
        assert seen.names == ["add"]

    def test_rows_that_add_nothing_are_not_copied(self):
        edits = edits_of((), (add(2, 1.0),), (add(LAYER, 1.0),))
        hidden = residuals(2, 3)
        assert edits.edited(LAYER, hidden, start=0, prompt=3) is hidden
        edits.select([1, 0])
        assert edits.layers == [2]
        assert edits.edited(LAYER, hidden, start=3, prompt=0) is hidden

    def test_what_is_added_for_the_prompt_only_costs_nothing_later(self):
        edits, hidden = edits_of((adding(LAYER, 1.0, "prompt"),)), residuals(1, 1)
        assert edits.edited(LAYER, hidden, start=4, prompt=0) is hidden

    def test_sums_are_made_before_they_are_rounded(self):
        """In bfloat16, 1 + 2^-9 + 2^-9 is 1 if one adds one after the other."""
        whole, small = torch.ones(HIDDEN), torch.full((HIDDEN,), 2.0**-9)
        row = (Add(LAYER, whole, 1.0), Add(LAYER, small, 1.0), Add(LAYER, small, 1.0), Add(LAYER, small, 2.0))
        observed = edited(row, torch.zeros(2, HIDDEN, dtype=torch.bfloat16))
        assert torch.equal(observed, torch.full((2, HIDDEN), 1 + 2.0**-7, dtype=torch.bfloat16))


class TestRotation:
    @pytest.mark.parametrize("coefficient", [-4.0, -0.3, 0.0, 2.0, 50.0])
    def test_norms_are_kept_and_directions_are_those_of_addition(self, coefficient):
        hidden = residuals(1, 20)[0]
        turned, pushed = (
            edited((kind(LAYER, random_vector(7), coefficient),), hidden).double() for kind in (Rotate, Add)
        )
        torch.testing.assert_close(turned.norm(dim=1), hidden.double().norm(dim=1), rtol=1e-6, atol=0)
        cosine = torch.nn.functional.cosine_similarity(turned, pushed, dim=1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-12)

    def test_coefficient_zero_is_the_identity_bit_by_bit(self):
        hidden = residuals(1, 20)[0]
        assert torch.equal(edited((rotate(LAYER, 0.0),), hidden), hidden)

    def test_where_nothing_is_left_to_point_anywhere_the_residual_stays(self):
        vector = random_vector(3)
        hidden = torch.stack([-2 * vector, torch.zeros(HIDDEN), vector])
        observed = edited((Rotate(LAYER, vector, 2.0),), hidden)
        assert torch.equal(observed[0], hidden[0])
        assert torch.equal(observed[1], torch.zeros(HIDDEN))
        torch.testing.assert_close(observed[2], vector)

    def test_in_bfloat16_it_is_rounded_once(self):
        hidden = residuals(1, 20)[0].bfloat16()
        exact = edited((rotate(LAYER, 2.0),), hidden.float())
        assert torch.equal(edited((rotate(LAYER, 2.0),), hidden), exact.bfloat16())


class TestClamping:
    @pytest.mark.parametrize("k", [20, 80])
    def test_which_features_are_active_is_as_the_sae_says(self, k):
        """Positive features that miss the k largest are not, nor are those among the k largest that are negative."""
        sae = random_sae(HIDDEN, 96, k, spread=8.0)
        hidden = residuals(1, 40)[0]
        activations = topk.encode(sae, hidden)
        before = (hidden - sae.b_dec) @ sae.w_enc + sae.b_enc
        assert bool(((activations == 0) & (before > 0)).any()) is (k == 20)
        assert bool((before.topk(k).values <= 0).any()) is (k == 80)
        for feature in (0, 17, 95):
            edit = ClampFeatures(LAYER, sae, (feature,), torch.tensor([7.0]))
            expected = hidden + (7.0 - activations[:, feature])[:, None] * sae.w_dec[feature]
            torch.testing.assert_close(edited((edit,), hidden), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_natural_activation_changes_nothing(self, dtype):
        hidden = residuals(1, 8)[0].to(dtype)
        for token in hidden.split(1):
            [activations] = topk.encode(SAE, token)
            firing = activations.nonzero()[:, 0].tolist()
            silent = (activations == 0).nonzero()[:3, 0].tolist()
            features = tuple(firing + silent)
            observed = edited((ClampFeatures(LAYER, SAE, features, activations[list(features)]),), token)
            assert len(firing) == SAE.k
            assert torch.equal(observed, token)

    def test_sinks_are_left_alone_bit_by_bit(self):
        hidden = residuals(1, 30)[0]
        threshold = between(hidden.norm(dim=1))
        edit = clamp(LAYER, 5.0, 3.0, sink_norm=threshold)
        sinks = hidden.norm(dim=1) > threshold
        observed = edited((edit,), hidden)
        assert 5 < int(sinks.sum()) < 25
        assert torch.equal(observed[sinks], hidden[sinks])
        assert not bool((observed[~sinks] == hidden[~sinks]).all(dim=1).any())

    def test_a_sink_is_a_residual_longer_than_the_bound_when_its_turn_comes(self):
        hidden = torch.zeros(1, HIDDEN)
        push, hold = add(LAYER, 1.0, norm=4.0), clamp(LAYER, 9.0, sink_norm=3.9)
        assert torch.equal(edited((push, hold), hidden)[0], push.vector)
        assert not torch.equal(edited((hold, push), hidden)[0], push.vector)
        bound = replace(hold, sink_norm=float(hidden.norm()))
        assert not torch.equal(edited((bound,), hidden), hidden)

    def test_what_other_features_and_none_explain_stays(self):
        """With one feature for each sign of a dimension, the other dimensions are other features."""
        sae = identity_sae(HIDDEN)
        hidden = residuals(1, 9)[0]
        observed = edited((ClampFeatures(LAYER, sae, (5,), torch.tensor([3.0])),), hidden)
        others = [dimension for dimension in range(HIDDEN) if dimension != 5]
        assert torch.equal(observed[:, others], hidden[:, others])
        # Its opposite has a feature of its own, which is left to act.
        torch.testing.assert_close(observed[:, 5], 3.0 + hidden[:, 5].clamp(max=0))

    def test_holding_a_feature_evicts_no_other(self):
        hidden = residuals(1, 9)[0]
        silent = int((topk.encode(SAE, hidden) == 0).all(dim=0).nonzero()[0])
        edit = ClampFeatures(LAYER, SAE, (silent,), torch.tensor([1000.0]))
        torch.testing.assert_close(edited((edit,), hidden), hidden + 1000 * SAE.w_dec[silent], rtol=1e-5, atol=1e-3)

    def test_in_bfloat16_it_is_computed_in_float32_and_rounded_once(self):
        hidden = residuals(1, 20)[0].bfloat16()
        edit = clamp(LAYER, 0.0, 4.0, 2.0)
        exact = torch.stack([by_hand(edit, token, place=0, kind="generated") for token in hidden])
        assert torch.equal(edited((edit,), hidden), exact.bfloat16())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_an_sae_in_another_precision_computes_in_float32(self, dtype):
        tensors = {name: getattr(SAE, name).to(dtype) for name in ("w_enc", "b_enc", "w_dec", "b_dec")}
        small = replace(SAE, **tensors)
        same = replace(SAE, **{name: tensor.float() for name, tensor in tensors.items()})
        edit, hidden = clamp(LAYER, 0.0, 4.0), residuals(1, 9)[0]
        expected = edited((replace(edit, sae=same),), hidden)
        assert torch.equal(edited((replace(edit, sae=small),), hidden), expected)
        # The copy is made once, and goes with the SAE.
        edits_of((replace(edit, sae=small),))
        assert len(edit_kernels._PLACED[small]) == 1
        held = len(edit_kernels._PLACED)
        del small
        assert len(edit_kernels._PLACED) == held - 1

    def test_few_tokens_at_a_time_give_the_same(self, monkeypatch):
        rows = [(clamp(LAYER, 1.0, 2.0),), (), (clamp(LAYER, 0.0, first=7),), (clamp(LAYER, 1.0, 2.0, 3.0),)]
        hidden = residuals(4, 7)
        expected = edits_of(*rows).edited(LAYER, hidden, start=0, prompt=7)
        monkeypatch.setattr(edit_kernels, "ENCODING_BYTES", 5 * 3 * 4 * SAE.d_sae)
        observed = edits_of(*rows).edited(LAYER, hidden, start=0, prompt=7)
        torch.testing.assert_close(observed, expected, rtol=1e-5, atol=1e-5)
