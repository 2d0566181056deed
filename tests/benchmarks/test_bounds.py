"""The programs that show what bounds a sweep: their two ways compute the same, and every operation has a kind."""

from __future__ import annotations

import compiled
import kernel_gains
import profile_sweep
import pytest
import torch


@pytest.mark.parametrize("dtype", kernel_gains.PRECISIONS)
def test_both_ways_of_attention_give_the_same(dtype):
    with torch.no_grad():
        fused, ours = kernel_gains.attention_ways(dtype, rows=5, width=8, layers=2)
        # In turn over the same caches.
        for _ in range(3):
            loose = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {}
            torch.testing.assert_close(ours(), fused(), **loose)


def test_packed_and_plain_layers_do_the_same_number_of_products():
    layers = kernel_gains.linears([(8, 16), (16, 4)], torch.float32, layers=3)
    with torch.no_grad():
        taken = kernel_gains.medians(
            kernel_gains.each_layer(layers, 5, torch.float32),
            kernel_gains.packed_of(layers, 5, torch.float32),
            rounds=1,
        )
    assert len(taken) == 2
    assert min(taken) > 0
    assert kernel_gains.rate(layers, 5, 1e-9) == 2 * 5 * 3 * (8 * 16 + 16 * 4)


def test_ways_take_turns_and_the_first_run_is_not_counted():
    seen = []
    taken = kernel_gains.medians(lambda: seen.append("a"), lambda: seen.append("b"), rounds=3)
    assert (seen, len(taken)) == (["a", "b"] * 4, 2)


def test_shares_of_a_profile_are_of_all_its_time():
    def work(size: int) -> None:
        left = torch.randn(size, size)
        torch.bmm(left[None], left[None])
        (left @ left).topk(2)

    with torch.no_grad():
        seconds, shares = profile_sweep.shares(work, size=200)
    assert seconds > 0
    assert sum(shares.values()) == pytest.approx(1, abs=0.02)
    assert all(shares[kind] > 0 for kind in ("linear layers", "attention's products", "choosing tokens"))
    assert shares["packing the weights"] == 0


def test_no_operation_has_two_kinds():
    names = [name for kind in profile_sweep.KINDS.values() for name in kind]
    assert len(set(names)) == len(names)


def test_without_a_compiler_that_is_said_and_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match=r"needs a C\+\+ compiler"):
        compiled.main()
    named = tmp_path / "mine"
    named.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(named))
    assert compiled.compiler() == str(named)


def test_the_first_call_stands_by_itself():
    seconds = iter([9.0, 5.0, 1.0, 3.0, 2.0])
    clock = [0.0]

    def model(**_: object) -> None:
        clock[0] += next(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled.time, "perf_counter", lambda: clock[0])
        assert compiled.timed(model, torch.zeros(1), calls=3) == (9.0, 2.0)
