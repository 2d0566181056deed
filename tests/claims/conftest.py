"""A study whose numbers are known in advance; nobody changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from claims.known_facts import published
from studies import build


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def results(place):
    return replace(place.results(), facts=published())


@pytest.fixture(scope="session")
def study(place):
    return place.study()
