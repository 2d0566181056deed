"""Studies whose cards the tests look at: one made up, and the published one."""

from __future__ import annotations

import legacy
import pytest
from legacy import Legacy
from legacy_cards.opened import Opened, opened


@pytest.fixture
def place(tmp_path) -> Legacy:
    return legacy.build(tmp_path)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> Opened:
    where = legacy.build(tmp_path_factory.mktemp("legacy"))
    return opened(where.model, where.data)


@pytest.fixture(scope="session")
def published(upstream) -> Opened:
    return opened(upstream / "model", upstream / "dataset")


@pytest.fixture(params=["synthetic", "published"])
def each(request) -> Opened:
    return request.getfixturevalue(request.param)
