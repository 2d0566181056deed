"""Jobs: what was submitted, and what a test lets become of it.

Invariant: nothing runs here unless the test says how: a job without a runner ends in an error that says so.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .repositories import now
from .web import Refusal, Request, Response, Routes

ROUTES = Routes()
ENDED = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
FIELDS = ("dockerImage", "spaceId", "command", "arguments", "environment", "flavor", "labels", "volumes", "retry")


@dataclass
class Job:
    """A submitted job: `spec` is the body of the request as it came."""

    id: str
    owner: str
    spec: dict[str, Any]
    stage: str = "SCHEDULING"
    message: str | None = None
    lines: list[tuple[str, str]] = field(default_factory=list)
    created_at: str = field(default_factory=now)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def print(self, line: str) -> None:
        """Add a line to the log."""
        with self.changed:
            self.lines.append((now(), line))
            self.changed.notify_all()

    def become(self, stage: str, message: str | None = None) -> None:
        with self.changed:
            self.stage, self.message = stage, message
            self.changed.notify_all()

    def described(self) -> dict[str, Any]:
        """As the API tells of it: names of secrets, not their values."""
        return {
            **{"id": self.id, "createdAt": self.created_at, "owner": _owner(self.owner), "initiator": None},
            **{name: self.spec.get(name) for name in FIELDS},
            "secrets": dict.fromkeys(self.spec.get("secrets") or {}, "***"),
            "status": {"stage": self.stage, "message": self.message},
        }


Runner = Callable[[Job], str]
"""Does a job's work, printing to its log, and gives the stage in which it ended."""


def _owner(name: str) -> dict[str, str]:
    return {"id": f"user-{name}", "name": name, "type": "user"}


@ROUTES.add("GET", "api/jobs/hardware")
def hardware(hub: Any, request: Request) -> Any:
    row = {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "accelerator": None}
    return [
        {**row, "ephemeralStorage": "20 GB", "unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute"}
    ]


@ROUTES.add("POST", "api/jobs/{namespace}")
def submit(hub: Any, request: Request, namespace: str) -> Any:
    hub.accounts.writer(request, namespace)
    spec = request.json()
    if not spec.get("command") or not (spec.get("dockerImage") or spec.get("spaceId")):
        raise Refusal(400, "a job needs a command and an image")
    job = Job(secrets.token_hex(12), namespace, spec)
    hub.jobs.append(job)
    if hub.job_runner is None:
        job.become("ERROR", "the test server runs no jobs")
    else:
        threading.Thread(target=_work, args=(hub, job), daemon=True).start()
    return job.described()


def _work(hub: Any, job: Job) -> None:
    job.become("RUNNING")
    job.print(f"===== Job started at {now()} =====")
    try:
        job.become(hub.job_runner(job))
    except Exception as error:
        job.become("ERROR", repr(error))


@ROUTES.add("GET", "api/jobs/{namespace}")
def jobs(hub: Any, request: Request, namespace: str) -> Any:
    _member(hub, request, namespace)
    stages = request.query.get("stage", [])
    labels = dict(label.split("=", 1) for label in request.query.get("label", []))
    return [
        job.described()
        for job in reversed(hub.jobs)
        if job.owner == namespace
        and (not stages or job.stage in stages)
        and labels.items() <= (job.spec.get("labels") or {}).items()
    ]


@ROUTES.add("GET", "api/jobs/{namespace}/{job_id}")
def inspect(hub: Any, request: Request, namespace: str, job_id: str) -> Any:
    return _found(hub, request, namespace, job_id).described()


@ROUTES.add("POST", "api/jobs/{namespace}/{job_id}/cancel")
def cancel(hub: Any, request: Request, namespace: str, job_id: str) -> Any:
    hub.accounts.writer(request, namespace)
    job = _found(hub, request, namespace, job_id)
    if job.stage not in ENDED:
        job.become("CANCELED")
    return job.described()


@ROUTES.add("GET", "api/jobs/{namespace}/{job_id}/logs")
def logs(hub: Any, request: Request, namespace: str, job_id: str) -> Any:
    """The lines so far and those to come, as server-sent events, until the job ends."""
    job = _found(hub, request, namespace, job_id)
    tail = request.option("tail")
    start = max(0, len(job.lines) - int(tail)) if tail else 0
    return Response(200, _events(job, start), {"Content-Type": "text/event-stream"})


def _events(job: Job, start: int) -> Iterator[bytes]:
    while True:
        with job.changed:
            lines, ended = job.lines[start:], job.stage in ENDED
            if not lines and not ended:
                job.changed.wait(timeout=30)
        start += len(lines)
        for timestamp, line in lines:
            yield f"data: {json.dumps({'data': line, 'timestamp': timestamp})}\n\n".encode()
        if not lines:
            yield b": keep-alive\n\n"
            if ended:
                return


def _member(hub: Any, request: Request, namespace: str) -> None:
    if not hub.accounts.member(request).owns(namespace):
        raise Refusal(403, f"jobs of {namespace} are not yours")


def _found(hub: Any, request: Request, namespace: str, job_id: str) -> Job:
    _member(hub, request, namespace)
    for job in hub.jobs:
        if (job.owner, job.id) == (namespace, job_id):
            return job
    raise Refusal(404, "Job not found")
