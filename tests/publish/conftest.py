"""Fixtures of publishing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import HubServer
from publish_author import Author


@pytest.fixture
def author(hub: HubServer, tmp_path: Path) -> Author:
    return Author(hub, tmp_path)
