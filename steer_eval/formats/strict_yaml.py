"""Strict YAML.

Invariant: what is accepted is YAML that says no more than JSON could: loaded safely, with no alias, with keys that are
strings and stand once in their mapping, and with finite numbers of bounded size.
"""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

import yaml

from steer_eval.errors import FormatError
from steer_eval.formats.strict_json import MAX_INTEGER

MAX_CHARACTERS = 4 * 2**20
_SURROGATE = re.compile("[\ud800-\udfff]")
# 1:30:00 is a number to YAML; with thousands of parts it is one that takes minutes to work out.
_MAX_PARTS = 8
# Of an integer in any base, with room for underscores.
_MAX_DIGITS = 256


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, and stricter."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias is not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _refusal("a key is no string", key)
            if key.value in seen:
                raise _refusal(f"the key {key.value!r} stands twice in one mapping", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _SURROGATE.search(value):
            raise _refusal("a lone surrogate is no text", node)
        return value

    def refuse_tag(self, node: yaml.Node) -> NoReturn:
        raise _refusal(f"the tag {node.tag} is not allowed", node)

    def date_as_text(self, node: yaml.ScalarNode) -> str:
        self.construct_yaml_timestamp(node)
        return str(node.value)

    def finite_float(self, node: yaml.ScalarNode) -> float:
        _check_parts(node)
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise _refusal("the number is not finite", node)
        return value

    def bounded_int(self, node: yaml.ScalarNode) -> int:
        _check_parts(node)
        # Python refuses thousands of digits in words of its own.
        if isinstance(node.value, str) and len(node.value) > _MAX_DIGITS:
            raise _refusal("the number is too large", node)
        value = self.construct_yaml_int(node)
        if abs(value) >= MAX_INTEGER:
            raise _refusal("the number is too large", node)
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.finite_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.bounded_int)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.date_as_text)
for _tag in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.refuse_tag)


def parse(text: str, name: str) -> Any:
    """Parse one strict YAML document.

    Args:
        text: The YAML text.
        name: The file, for messages.

    Raises:
        FormatError: It is no strict YAML; the message names the line where it is known.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormatError(
            name, "", f"the text has {len(text)} characters, more than the {MAX_CHARACTERS} that are read"
        )
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, and stricter
    # Explicit tags (`!!int x`) and impossible dates raise whatever the library's converters raise.
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise FormatError(name, where, f"not YAML: {getattr(error, 'problem', None) or error}") from None


def _check_parts(node: yaml.Node) -> None:
    if isinstance(node.value, str) and node.value.count(":") > _MAX_PARTS:
        raise _refusal("the number has too many parts", node)


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
