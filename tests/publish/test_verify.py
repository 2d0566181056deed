"""The check of what was pushed, in a process that has the Hub and an empty cache only."""

from __future__ import annotations

import pytest
import studies
from hub_fixtures import run_client
from hub_server import HubServer
from publish_staging import DATA_TO, TO, staged

VERIFY = """
import json, sys
from steer_eval.hub.address import HubAddress
from steer_eval.publish.verify import verify
model, at, data, data_at = sys.argv[1:]
found = verify(HubAddress(model, "model", at), HubAddress(data, "dataset", data_at))
errors = [[each.rule, each.file, each.expected] for each in found.findings if each.severity == "error"]
print(json.dumps([found.files, errors]))
"""


@pytest.fixture
def commits(hub: HubServer, tmp_path) -> tuple[str, str, str]:
    """A published pair, and a later commit of the dataset repo."""
    made = staged(tmp_path / "s", studies.build(tmp_path / "own").model)
    first = hub.upload(DATA_TO, "dataset", made.data.folder)
    made.pin(first)
    model = hub.upload(TO, "model", made.model.folder)
    return model, first, hub.upload(DATA_TO, "dataset", {"notes.md": b"More.\n"})


def test_a_pair_is_held_to_its_pin(hub, tmp_path, commits):
    model, first, later = commits
    env = hub.environment(tmp_path / "home")

    files, errors = run_client(VERIFY, env, TO, model, DATA_TO, first)
    assert errors == []
    # Every file of both commits, and what the Hub wrote into them.
    assert files == len(hub.files(TO)) + len(hub.files(DATA_TO, "dataset", first))

    _, errors = run_client(VERIFY, env, TO, model, DATA_TO, later)
    assert errors == [["publish-pin", f"{TO}/config.json", f"{DATA_TO}@{later}"]]
