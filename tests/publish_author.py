"""Somebody who publishes a study by `steer-eval publish`, a process of its own, on a Hub with real repositories."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import studies
from hub_fixtures import run_cli
from hub_server import HubServer
from publish_staging import staged

from steer_eval.formats import schema
from steer_eval.formats.pin import DataPin, data_pin

READS = {"GET", "HEAD"}
TO = "steer/persona"
DATA = f"{TO}-data"


class Author:
    """Somebody with a study, a token and a cache."""

    def __init__(self, hub: HubServer, folder: Path, token: str | None = "") -> None:
        self.hub = hub
        self.place = studies.build(
            folder / "own", claims=[studies.claim("perplexity_ratio", "1.25", layer=1, coef=1, label="steered")]
        )
        self.env = hub.environment(folder / "home", token)

    def run(self, *arguments: str | Path, folder: Path | None = None, **env: str) -> CompletedProcess[str]:
        return run_cli("publish", folder or self.place.model, "--to", TO, *arguments, env={**self.env, **env})

    def publish(self, *arguments: str | Path, folder: Path | None = None) -> dict[str, Any]:
        """Publish, which must succeed, and give what the JSON says."""
        process = self.run("--yes", "--json", *arguments, folder=folder)
        assert process.returncode == 0, process.stderr
        return document(process)

    def published_before(self) -> None:
        """Put the study on the Hub as a publication leaves it, without running one."""
        made = staged(self.place.model.parent / "before", self.place.model, to=TO)
        made.pin(self.hub.upload(DATA, "dataset", made.data.folder))
        self.hub.upload(TO, "model", made.model.folder)

    def plain(self, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        files = self.hub.files(TO if kind == "model" else DATA, kind, revision)
        return {path: content for path, content in files.items() if path != ".gitattributes"}


def document(process: CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.stdout)
    schema.check(found, "publish", file="x")
    return found


def actions(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {repo["kind"]: {each["path"]: each["action"] for each in repo["changes"]} for repo in found["repos"]}


def writes(hub: HubServer) -> list[str]:
    return [f"{request.method} {request.path}" for request in hub.requests if request.method not in READS]


def pin_of(files: dict[str, bytes]) -> DataPin | None:
    return data_pin(json.loads(files["config.json"]))
