"""An OpenAI-compatible endpoint on the loopback that misbehaves as it is told."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopback import Reply, listening

Body = dict[str, Any]


@dataclass
class Stub:
    """What the endpoint answers, and what it was asked.

    `behave(body, count)` gets a request and how often the very same one came before, and returns an `Answer`.
    """

    behave: Callable[[Body, int], Answer]
    requests: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    busiest: int = 0
    url: str = ""
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, body: Body, key: str | None) -> Answer:
        with self._lock:
            count = sum(body == before for before in self.requests)
            self.requests.append(body)
            self.keys.append(key)
        return self.behave(body, count)

    @contextmanager
    def counted(self) -> Iterator[int]:
        with self._lock:
            self._open += 1
            self.busiest = max(self.busiest, self._open)
            now = self._open
        try:
            yield now
        finally:
            with self._lock:
                self._open -= 1

    @property
    def judged(self) -> list[Body]:
        """Requests that were no probe of what the endpoint can do."""
        return [body for body in self.requests if not is_probe(body)]


@dataclass(frozen=True)
class Answer:
    content: str | None = None
    status: int = 200
    finish: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""
    delay: float = 0.0
    refusal: str | None = None
    body: str | None = None


def is_probe(body: Body) -> bool:
    return "with the number 2" in body["messages"][1]["content"]


def axes_of(body: Body) -> list[str]:
    """Keys of the reply that a prompt asks for."""
    form = body["messages"][1]["content"].rpartition("of this form: ")[2]
    return re.findall(r'"(\w+)": <', form)


def scores(body: Body, value: float = 2.5) -> str:
    """A good reply."""
    keys = axes_of(body)
    reply: dict[str, Any] = dict.fromkeys(keys, value)
    if '"notes"' in body["messages"][1]["content"].rpartition("of this form: ")[2]:
        reply["notes"] = "A remark."
    return json.dumps(reply)


def good(body: Body, _count: int = 0) -> Answer:
    return Answer('{"score": 2}' if is_probe(body) else scores(body))


@contextmanager
def serving(behave: Callable[[Body, int], Answer], *, most_at_once: int | None = None) -> Iterator[Stub]:
    """Serve until the block ends; above `most_at_once` open requests the answer is 429."""
    stub = Stub(behave)

    @contextmanager
    def answering(body: Body, key: str | None) -> Iterator[Reply]:
        with stub.counted() as now:
            answer = stub.receive(body, key)
            if most_at_once is not None and now > most_at_once:
                answer = Answer(status=429, headers={"Retry-After": "1"}, error="too many requests")
            time.sleep(answer.delay)
            yield Reply(answer.status, _payload(answer), answer.headers)

    with listening(answering) as address:
        stub.url = f"{address}/v1"
        yield stub


def _payload(answer: Answer) -> str:
    if answer.body is not None:
        return answer.body
    if answer.status != 200:
        return json.dumps({"error": {"message": answer.error, "type": "error"}})
    message = {"role": "assistant", "content": answer.content, "refusal": answer.refusal}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "stub-2026-11",
            "system_fingerprint": "fp_stub",
            "choices": [{"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
    )
