"""A clean study without `study.yaml`, of each test's own."""

from __future__ import annotations

import legacy
import pytest
from legacy import Legacy


@pytest.fixture
def place(tmp_path) -> Legacy:
    return legacy.build(tmp_path)
