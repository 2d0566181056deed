"""Publishers that race, and publishers that are killed: every repo is one whole version at any time."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import studies
from hub_fixtures import cli_command, run_cli
from hub_server import HubServer, Request
from publish_staging import content, staged

from steer_eval.publish.stage import Staged

pytestmark = pytest.mark.slow

RACERS = 6
SEED = 20261122
Files = dict[str, bytes]


def author(folder: Path, words: str) -> studies.OnDisk:
    """A study whose words are in both repos."""
    place = studies.build(folder)
    text = (place.model / "study.yaml").read_text().replace("A synthetic study.", words)
    (place.model / "study.yaml").write_text(text)
    (place.data / "notes.md").write_text(f"{words}\n")
    return place


def files(hub: HubServer, repo: str, kind: str, revision: str = "main") -> Files | None:
    """What a repo holds; None without it."""
    if hub.head(repo, kind) is None:
        return None
    found = hub.files(repo, kind, revision)
    return {path: text for path, text in found.items() if path != ".gitattributes"}


def pinned(version: Staged, commit: str | None) -> Files:
    version.pin(str(commit))
    return content(version.model.folder)


@pytest.mark.parametrize("start", ["an empty Hub", "a published version"])
def test_of_six_racing_publishers_one_wins_and_five_are_told(tmp_path, hub, start):
    """Six different studies onto an empty Hub; then six people with one and the same new version."""
    to, data = "steer/race", "steer/race-data"
    first_write = r"^/api/repos/create" if start == "an empty Hub" else r"^/api/datasets/.*/preupload/"
    if start != "an empty Hub":
        place = author(tmp_path / "before", "Before the race.")
        process = run_cli("publish", place.model, "--to", to, "--yes", env=hub.environment(tmp_path / "home"))
        assert process.returncode == 0, process.stderr
    commits = len(hub.commits(data, "dataset")) if hub.head(data, "dataset") else 1
    if start == "an empty Hub":
        places = [author(tmp_path / str(index), f"Racer {index}.") for index in range(RACERS)]
    else:
        places = [author(tmp_path / "same", "All the same.")] * RACERS
    together = threading.Barrier(RACERS)
    hub.before("POST", first_write, lambda _request: together.wait(180) and None, times=RACERS)

    def publish(index: int) -> subprocess.CompletedProcess[str]:
        env = hub.environment(tmp_path / f"home{index}")
        return run_cli("publish", places[index].model, "--to", to, "--yes", env=env)

    with ThreadPoolExecutor(RACERS) as pool:
        ended = list(pool.map(publish, range(RACERS)))

    assert sorted(process.returncode for process in ended) == [0] + [2] * (RACERS - 1), [
        process.stderr[-500:] for process in ended
    ]
    [winner] = [index for index, process in enumerate(ended) if process.returncode == 0]
    for process in ended:
        if process.returncode:
            assert f"somebody pushed to the dataset repo {data}" in process.stderr
            assert "run it again" in process.stderr
    version = staged(tmp_path / "winner", places[winner].model, to=to)
    assert files(hub, data, "dataset") == content(version.data.folder)
    assert files(hub, to, "model") == pinned(version, hub.head(data, "dataset"))
    assert len(hub.commits(data, "dataset")) == commits + 1


@dataclass(frozen=True)
class Moment:
    """When a publisher is killed: when a request has come, when it was carried out, or after some seconds."""

    when: str
    method: str = ""
    path: str = ""
    seconds: float = 0.0


REQUESTS = (
    ("POST", "^/api/repos/create"),
    ("POST", "^/api/datasets/{to}-data/preupload/"),
    ("POST", "^/api/datasets/{to}-data/commit/"),
    ("POST", "^/api/models/{to}/preupload/"),
    ("POST", "^/{to}.git/info/lfs/objects/batch"),
    ("PUT", "^/lfs/models/{to}/"),
    ("POST", "^/{to}.git/info/lfs/objects/verify"),
    ("POST", "^/api/models/{to}/commit/"),
    ("GET", "^/{to}/resolve/"),
)


def moments() -> list[Moment]:
    """Ten moments: both sides of both commits, six others drawn by chance, two of them by the clock alone."""
    rng = random.Random(SEED)  # noqa: S311
    commits = [Moment(when, *each) for each in REQUESTS if "commit" in each[1] for when in ("before", "after")]
    others = [Moment(when, *each) for each in REQUESTS if "commit" not in each[1] for when in ("before", "after")]
    return [*commits, *rng.sample(others, 4), *(Moment("clock", seconds=rng.uniform(1, 5)) for _ in range(2))]


def killed(hub: HubServer, place: studies.OnDisk, to: str, moment: Moment, env: dict[str, str]) -> int:
    """Run a publisher, and kill it with no chance to clean up; gives how it ended."""
    process = subprocess.Popen(
        cli_command("publish", place.model, "--to", to, "--yes"),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if moment.when == "clock":
        try:
            process.wait(moment.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    else:
        disturb: Callable[..., None] = hub.before if moment.when == "before" else hub.after

        def kill(_request: Request) -> None:
            process.kill()
            process.wait()

        disturb(moment.method, moment.path.format(to=re.escape(to)), kill, times=None)
    return process.wait(120)


@pytest.mark.parametrize("moment", moments(), ids=lambda moment: f"{moment.when} {moment.method} {moment.path}")
def test_killed_at_any_moment_each_repo_is_one_version_and_running_again_finishes(tmp_path, hub, moment):
    """From a published version in half of the cases, and from an empty Hub in the others."""
    to, data = "steer/kill", "steer/kill-data"
    before = None
    known: list[Files | None] = [None, {}]
    # Large files that have not changed are not sent again.
    if moments().index(moment) % 2 == 0 and "create" not in moment.path and "lfs" not in moment.path:
        before = staged(tmp_path / "staged-old", author(tmp_path / "old", "The old version.").model, to=to)
        (before.data.folder / "stale.md").write_text("Only in the old version.\n")
        at = hub.upload(data, "dataset", before.data.folder)
        before.pin(at)
        hub.upload(to, "model", before.model.folder)
        known = [content(before.model.folder)]
    old_data: list[Files | None] = [None, {}] if before is None else [content(before.data.folder)]
    place = author(tmp_path / "new", "The new version.")
    version = staged(tmp_path / "staged-new", place.model, to=to)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = hub.environment(tmp_path / "home", TMPDIR=str(scratch))
    ended = killed(hub, place, to, moment, env)

    assert ended == -signal.SIGKILL or (moment.when == "clock" and ended == 0)
    hub.undisturbed()
    new_data = content(version.data.folder)
    if before is not None:
        # It was put there by hand: no manifest names it.
        new_data["stale.md"] = b"Only in the old version.\n"
    there = files(hub, data, "dataset")
    assert there in [*old_data, new_data]
    model = files(hub, to, "model")
    whole = pinned(version, hub.head(data, "dataset")) if there == new_data else None
    assert model in [*known, whole]

    again = run_cli("publish", place.model, "--to", to, "--yes", env=env)

    assert again.returncode == 0, again.stderr
    # Also where all was pushed and nothing was left but the check; and what was staged does not stay behind.
    checked = "downloaded again" in again.stdout
    # The clock may strike when all is done and the process has only to end.
    done = moment.when == "clock" and there == new_data and model == whole
    assert checked == (ended != 0) or done
    assert list(scratch.iterdir()) == []
    assert files(hub, data, "dataset") == new_data
    assert files(hub, to, "model") == pinned(version, hub.head(data, "dataset"))
    commits = 2 if before is None else 3
    assert (len(hub.commits(data, "dataset")), len(hub.commits(to))) == (commits, commits)
