"""A repo of PyTorch files, and where it is converted to."""

from __future__ import annotations

from pathlib import Path

import pytest
from convertible import build


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return build(tmp_path / "persona")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "safe"
