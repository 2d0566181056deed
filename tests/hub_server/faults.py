"""What tests do to requests: wait, look, cut the connection, answer something else.

Invariant: an action runs in the thread of its own request, so while it waits, others go on.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from .web import Request

Action = Callable[[Request], None]


@dataclass
class Rule:
    """An action for the requests that a pattern finds; `left` counts how often more, None is for ever."""

    when: str
    method: str
    pattern: str
    action: Action
    left: int | None

    def matches(self, request: Request) -> bool:
        return bool(re.fullmatch(self.method, request.method) and re.search(self.pattern, request.path))


class Faults:
    """The rules, in the order in which they were made."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, when: str, method: str, pattern: str, action: Action, times: int | None) -> None:
        with self._lock:
            self._rules.append(Rule(when, method, pattern, action, times))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def run(self, when: str, request: Request) -> None:
        """Every rule that fits; an action answers instead of the server, and of later rules, by raising."""
        for rule in tuple(self._rules):
            if self._takes(rule, when, request):
                rule.action(request)

    def _takes(self, rule: Rule, when: str, request: Request) -> bool:
        with self._lock:
            if rule.when != when or rule.left == 0 or not rule.matches(request):
                return False
            if rule.left is not None:
                rule.left -= 1
            return True
