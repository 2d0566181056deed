"""What `torch.compile` gains: `python benchmarks/compiled.py` prints it as a table.

Invariant: all ways run the same decoder on the same tokens, without the LM head and with nothing cached, and the first
call, in which a compiler compiles, is told beside the others. PyTorch's own compiler needs a C++ compiler; where there
is none, that is said and nothing is measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from grid_work import prepared
from serving import threads

from steer_eval.evaluation.packed import PackedLinears
from steer_eval.model import load_model

COMPILERS = ("g++", "clang++")
CALLS = 5
SHAPES = {"8 x 256 tokens": (8, 256), "128 rows of 1 token": (128, 1)}


def compiler() -> str | None:
    """The C++ compiler that is there; None if there is none."""
    wanted = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    return next((path for name in wanted if (path := shutil.which(name))), None)


def timed(model: Callable[..., Any], ids: torch.Tensor, calls: int = CALLS) -> tuple[float, float]:
    """Seconds of the first call, and the median of the others after a second one."""
    times = []
    with torch.no_grad():
        for _ in range(calls + 2):
            start = time.perf_counter()
            model(input_ids=ids, use_cache=False)
            times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[2:])


def main() -> None:
    if compiler() is None:
        sys.exit(f"torch.compile needs a C++ compiler on PATH ({' or '.join(COMPILERS)}), or its name in CXX")
    import torch._inductor.config as settings

    torch.set_num_threads(threads())
    with tempfile.TemporaryDirectory(prefix="steer-eval-bench-", ignore_cleanup_errors=True) as folder:
        lm = load_model(Path(prepared(Path(folder))["model"]))
        # Nothing that was compiled before counts.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        body = lm.module.get_decoder()
        print(f"{threads()} threads, torch {torch.__version__}\n")
        print("| Way | What | first call | then |\n|---|---|---|---|")

        def show(way: str, model: Callable[..., Any]) -> None:
            for what, shape in SHAPES.items():
                first, others = timed(model, torch.randint(5, lm.vocabulary, shape))
                print(f"| {way} | {what} | {first:.1f} s | {1e3 * others:.1f} ms |", flush=True)

        show("eager", body)
        with PackedLinears(lm.module).applied():
            show("eager, packed weights", body)
        show("compiled", torch.compile(body, dynamic=False))
        torch._dynamo.reset()
        with settings.patch(freezing=True):
            show("compiled, frozen weights", torch.compile(body, dynamic=False))


if __name__ == "__main__":
    main()
