"""What an OpenAI-compatible endpoint understands of a request.

Invariant: capabilities only ever get weaker, in a fixed order, so that finding them out ends; equal capabilities give
equal requests.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Format = Literal["json_schema", "json_object", "text"]
FORMATS: tuple[Format, ...] = ("json_schema", "json_object", "text")
MAX_TOKENS = 400
LONG = 4000
"""Tokens of a reply of a model that thinks whatever it is told."""


@dataclass(frozen=True)
class Capabilities:
    """What is put into a request.

    Args:
        format: How the form of the reply is asked for.
        thinking_off: Whether to send the fields with which models are told not to think.
        limit_field: Name of the field that bounds the reply.
        temperature: Whether a temperature can be set.
        max_tokens: The bound.
    """

    format: Format = "json_schema"
    thinking_off: bool = True
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True
    max_tokens: int = MAX_TOKENS

    def body(self, model: str, system: str, user: str, schema: dict[str, Any]) -> dict[str, Any]:
        """The body of a request.

        Args:
            model: The endpoint's name for the model.
            system: System turn.
            user: User's turn.
            schema: JSON Schema of the reply.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            self.limit_field: self.max_tokens,
        }
        if self.temperature:
            body["temperature"] = 0
        if self.format == "json_schema":
            named = {"name": "scores", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        if self.thinking_off:
            # Vendors and servers differ. Those that know neither field ignore both, or refuse; then they are left out.
            body["extra_body"] = {
                "thinking": {"type": "disabled"},
                "chat_template_kwargs": {"enable_thinking": False},
            }
        return body

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Capabilities:
        """What `to_json` gave; other keys are ignored."""
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})


_SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "enum": [1, 2, 3]}},
    "required": ["score"],
    "additionalProperties": False,
}


def probe_request(capabilities: Capabilities, model: str) -> dict[str, Any]:
    """The body of a request that tells whether capabilities are there."""
    system = "You answer with one JSON object and nothing else."
    user = 'Answer with the JSON object that has the one key "score" with the number 2: {"score": 2}'
    return capabilities.body(model, system, user, _SCHEMA)


def usable(reply: dict[str, Any]) -> bool:
    """Whether a reply to a probe is what was asked for."""
    if reply["finish"] == "length" or not reply["content"]:
        return False
    try:
        value = json.loads(reply["content"])
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("score") in (1, 2, 3)


def weaker(capabilities: Capabilities, message: str, *, truncated: bool = False) -> Capabilities | None:
    """The capabilities to try next, or None if there are none.

    Args:
        capabilities: Those that failed.
        message: What the endpoint said; it may name the field that it does not know.
        truncated: Whether the reply was cut off at the token limit.
    """
    said = message.lower()
    formats = FORMATS[FORMATS.index(capabilities.format) + 1 :]
    options: list[tuple[bool, Capabilities | None]] = [
        ("temperature" in said, replace(capabilities, temperature=False) if capabilities.temperature else None),
        (
            "max_tokens" in said or "max_completion_tokens" in said,
            replace(capabilities, limit_field="max_completion_tokens")
            if capabilities.limit_field == "max_tokens"
            else None,
        ),
        (
            any(word in said for word in ("response_format", "json_schema", "json_object", "grammar", "schema")),
            replace(capabilities, format=formats[0]) if formats else None,
        ),
        (
            any(word in said for word in ("thinking", "chat_template_kwargs", "unrecognized", "extra", "unknown")),
            replace(capabilities, thinking_off=False) if capabilities.thinking_off else None,
        ),
    ]
    if truncated and capabilities.max_tokens < LONG:
        return replace(capabilities, max_tokens=LONG)
    named = [option for hit, option in options if hit and option is not None]
    if named:
        return named[0]
    # Nothing is named: a reply that came but was bad is the format's fault; a refusal may be anybody's.
    order = (3, 2, 1, 0) if message else (2,)
    return next((options[index][1] for index in order if options[index][1] is not None), None)
