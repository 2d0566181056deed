"""JSON Schema validation with messages that name the field.

Invariant: every schema used by the package lives in `schemas/NAME.schema.json` (draft 2020-12); that each of them is a
good schema is for the tests, as they come with the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from steer_eval.errors import FormatError
from steer_eval.resources import folder

_MAX_ERRORS = 50
_MAX_SHOWN = 80

# JSON Schema counts 5.0 as an integer; as an index it would be none in Python.
_Validator: type[Validator] = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _checker, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema called `name`, for example `sweep_row`."""
    text = (folder("schemas") / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _registry() -> Registry[Any]:
    # A schema's id is its name; those that nothing refers to are never loaded.
    return Registry(retrieve=lambda uri: DRAFT202012.create_resource(load_schema(uri)))  # type: ignore[call-arg]


@cache
def _validator(name: str) -> Validator:
    return _Validator(load_schema(name), registry=_registry())


def check(value: Any, schema: str, *, file: str, where: str = "") -> None:
    """Check one value against a schema.

    Args:
        value: What was read from the file.
        schema: Name of the schema.
        file: The file's name, for the message.
        where: The place of `value` inside the file, for the message.

    Raises:
        FormatError: The value does not satisfy the schema; the message names the most telling field.
    """
    # A long list can be wrong in every item, and one message is all that is made of it.
    error = best_match(islice(_validator(schema).iter_errors(value), _MAX_ERRORS))
    if error is not None:
        place = _pointer(error)
        raise FormatError(
            file,
            ": ".join(part for part in (where, place) if part),
            _message(error),
            expected=error.validator_value if error.validator in {"type", "enum", "const", "minimum"} else None,
            fix=f"make it match schemas/{schema}.schema.json{_described(error)}",
        )


def _described(error: ValidationError) -> str:
    """What a value has to be, in the words of its schema: a pattern, or what it may not be, alone is no help."""
    if error.validator not in {"pattern", "not"} or not isinstance(error.schema, Mapping):
        return ""
    description = error.schema.get("description")
    return f": {description}" if description else ""


def _pointer(error: ValidationError) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")


def _message(error: ValidationError) -> str:
    """What is wrong, with a long value described: of a vector's thousand numbers the first ones say nothing."""
    value = error.instance
    shown = repr(value)
    if len(shown) <= _MAX_SHOWN or not error.message.startswith(shown):
        return _shorten(error.message)
    if isinstance(value, list):
        said = f"a list of {len(value)} items"
    elif isinstance(value, dict):
        said = f"an object with {len(value)} keys"
    else:
        said = _shorten(shown, _MAX_SHOWN)
    return _shorten(f"{said}{error.message[len(shown) :]}")


def _shorten(message: str, limit: int = 240) -> str:
    # The value comes first and can be long; what is wrong with it stands at the end.
    return message if len(message) <= limit else f"{message[: limit // 2]}…{message[-limit // 2 + 1 :]}"
