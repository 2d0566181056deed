"""Submitting a job, and following it to its end.

Invariant: once a job is submitted its id is told, whatever happens after; following it changes nothing about it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steer_eval.errors import SteerEvalError
from steer_eval.hub.client import api
from steer_eval.jobs.errors import job_errors
from steer_eval.jobs.job import Job
from steer_eval.jobs.worker import LAST_LINE

DONE = "COMPLETED"


@dataclass(frozen=True)
class Submitted:
    """A job that the Hub took.

    Args:
        id: Its id.
        namespace: Whose it is.
        url: Where people see it.
        stage: Where it stands: `SCHEDULING`, `RUNNING`, or how it ended.
        message: What the Hub says of that.
        pull_request: Address of the results; None before there are any.
        exit_code: Of the reproduction; None before it ended.
    """

    id: str
    namespace: str
    url: str
    stage: str
    message: str | None = None
    pull_request: str | None = None
    exit_code: int | None = None

    @property
    def name(self) -> str:
        """What `hf jobs` calls it."""
        return f"{self.namespace}/{self.id}"

    def to_json(self) -> dict[str, Any]:
        """The job's state as a JSON object."""
        keys = ("id", "namespace", "url", "stage", "message", "pull_request", "exit_code")
        return {key: getattr(self, key) for key in keys}


def submit(job: Job) -> Submitted:
    """Submit a job.

    Raises:
        SteerEvalError: Nobody is logged in, or the Hub does not take the job.
    """
    from huggingface_hub import get_token

    with job_errors("the Hub does not take the job"):
        token = get_token()
        if token is None:
            fix = "run `hf auth login`, or use --print-job"
            raise SteerEvalError("nobody is logged in, and a job needs a token", fix)
        info = api().run_uv_job(**job.arguments(token))
    return Submitted(info.id, info.owner.name, info.url, _stage(info), info.status.message)


def follow(submitted: Submitted, tell: Callable[[str], None]) -> Submitted:
    """Follow a job until it ends.

    Args:
        submitted: The job.
        tell: Takes its log, line by line.

    Returns:
        The job as it ended.

    Raises:
        SteerEvalError: The Hub does not tell of it any more.
    """
    last: dict[str, Any] = {}
    with job_errors(f"the log of job {submitted.name} can't be read"):
        lines = api().fetch_job_logs(job_id=submitted.id, namespace=submitted.namespace, follow=True)
        for line in lines:
            tell(line)
            if line.startswith(LAST_LINE):
                last = _last(line)
        info = api().wait_for_job(submitted.id, namespace=submitted.namespace)
    return Submitted(
        submitted.id,
        submitted.namespace,
        submitted.url,
        _stage(info),
        info.status.message,
        last.get("pull_request"),
        last.get("exit_code"),
    )


def _stage(info: Any) -> str:
    return str(getattr(info.status.stage, "value", info.status.stage))


def _last(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line.removeprefix(LAST_LINE))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
