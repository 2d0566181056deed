"""An OpenAI-compatible endpoint on the loopback for benchmarks, in the process that measures: standard library alone.

It answers every question with the same scores after a fixed time, and refuses with 429 what comes in above its limit.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopback import Reply, listening

STUDY = "artifacts/smollm2-135m-mature-anger"
MODEL = "bench"


@dataclass
class Endpoint:
    """What the endpoint is, and what it saw.

    Args:
        seconds: How long an answer takes.
        limit: Requests that may be open at once.
    """

    seconds: float
    limit: int
    url: str = ""
    answered: int = 0
    refused: int = 0
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> bool:
        """A request comes in; whether it may stay."""
        with self._lock:
            self._open += 1
            fits = self._open <= self.limit
            self.answered += fits
            self.refused += not fits
            return fits

    def leave(self) -> None:
        """A request is answered."""
        with self._lock:
            self._open -= 1


@contextmanager
def serving(seconds: float, limit: int) -> Iterator[Endpoint]:
    """Serve until the block ends."""
    endpoint = Endpoint(seconds, limit)

    @contextmanager
    def answering(body: dict[str, Any], _key: str | None) -> Iterator[Reply]:
        try:
            if endpoint.enter():
                time.sleep(endpoint.seconds)
                yield Reply(200, json.dumps(_completion(body)))
            else:
                yield Reply(429, json.dumps({"error": {"message": "too many"}}))
        finally:
            endpoint.leave()

    with listening(answering) as address:
        endpoint.url = f"{address}/v1"
        yield endpoint


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    form = body["messages"][1]["content"].rpartition("of this form: ")[2]
    keys = re.findall(r'"(\w+)": <', form)
    # What tells no keys is the question whether the endpoint can do what is asked for.
    reply: dict[str, Any] = {**dict.fromkeys(keys, 2.5), "notes": "A remark."} if keys else {"score": 2}
    message = {"role": "assistant", "content": json.dumps(reply)}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
