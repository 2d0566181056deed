"""A job, as it will be submitted.

Invariant: `payload` is what the Hub's client sends for `arguments`, but for the values of secrets; a test holds the two
to each other. The script is part of the job and nothing has to be uploaded before it.
"""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import dataclass
from typing import Any

from steer_eval.jobs import worker

SCHEMA = "steer-eval/job/1"
IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
"""The client's own image for such scripts, named so that a job does not change with the client."""
FLAVOR = "cpu-basic"
SCRIPT = "STEER_EVAL_JOB"
"""Variable that the script stands in."""
TOKEN = "HF_TOKEN"  # noqa: S105 - a name
# The script's own requirements are read from its head; `uv run` takes it from standard input.
COMMAND = ("bash", "-c", f'printf %s "${SCRIPT}" | uv run -')


@dataclass(frozen=True)
class Job:
    """One reproduction on Hugging Face Jobs.

    Args:
        namespace: Whose job it is, who pays for it.
        flavor: Hardware.
        timeout: Seconds after which it is stopped.
        requirements: Packages, pinned.
        settings: What the script is given.
    """

    namespace: str
    flavor: str
    timeout: int
    requirements: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def script(self) -> str:
        """The script: its requirements, the source of `worker`, and the settings."""
        head = [
            "# /// script",
            f'# requires-python = "=={sys.version_info.major}.{sys.version_info.minor}.*"',
            "# dependencies = [",
            *(f"#     {json.dumps(each)}," for each in self.requirements),
            "# ]",
            "# ///",
        ]
        settings = json.dumps(json.dumps(self.settings, indent=1))
        body = inspect.getsource(worker)
        end = f'\n\nif __name__ == "__main__":\n    raise SystemExit(main(json.loads({settings})))\n'
        return "\n".join(head) + "\n" + body + end

    @property
    def name(self) -> str:
        """What the job is called."""
        return "".join(
            each if each.isascii() and each.isalnum() else "-" for each in f"reproduce-{self.settings['name']}"
        )

    def arguments(self, token: str) -> dict[str, Any]:
        """What `HfApi.run_uv_job` is called with.

        Args:
            token: With which the job reads its inputs and opens the pull request.
        """
        return {
            "script": COMMAND[0],
            "script_args": list(COMMAND[1:]),
            "image": IMAGE,
            "env": {SCRIPT: self.script},
            "secrets": {TOKEN: token},
            "flavor": self.flavor,
            "timeout": self.timeout,
            "name": self.name,
            "namespace": self.namespace,
            "token": token,
        }

    def payload(self) -> dict[str, Any]:
        """The body of the request that submits the job, with `***` for the token."""
        return {
            "command": ["uv", "run", *COMMAND],
            "arguments": [],
            "environment": {SCRIPT: self.script},
            "flavor": self.flavor,
            "secrets": {TOKEN: "***"},
            "timeoutSeconds": self.timeout,
            "labels": {"name": self.name},
            "dockerImage": IMAGE,
        }

    def to_json(self) -> dict[str, Any]:
        """The job as a JSON object (`schemas/job.schema.json`)."""
        return {
            "schema": SCHEMA,
            "namespace": self.namespace,
            "payload": self.payload(),
            "script": self.script,
            "settings": self.settings,
            "submitted": None,
        }
