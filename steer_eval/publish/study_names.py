"""The names of the two repos inside a study file.

Invariant: only the values of `repo:` and `data:` change; every other character of the file, comments included, stays.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from steer_eval.errors import FormatError
from steer_eval.formats import strict_yaml

NAMES = ("repo", "data")


def renamed(text: str, *, repo: str, data: str, name: str) -> str:
    """A study file with its repos named as they are published.

    Args:
        text: The file.
        repo: Hub id of the model repo.
        data: Hub id of the dataset repo.
        name: What the file is called in messages.

    Raises:
        FormatError: The file is no strict YAML, or one of its names is written in a way that can't be replaced.
    """
    wanted = {**_document(text, name), "repo": repo, "data": data}
    for key, value in (("data", data), ("repo", repo)):
        text = _with_value(text, key, value, name)
    if _document(text, name) != wanted:
        raise FormatError(name, "repo, data", "the names can't be replaced in this YAML", fix="write `data: NS/NAME`")
    return text


def _document(text: str, name: str) -> dict[str, Any]:
    document = strict_yaml.parse(text, name)
    if not isinstance(document, dict):
        raise FormatError(name, "", "the file is no mapping")
    return document


def _with_value(text: str, key: str, value: str, name: str) -> str:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes = {each.value: (each, node) for each, node in root.value}
    written = value if strict_yaml.parse(value, name) == value else json.dumps(value)
    if key in nodes:
        _, node = nodes[key]
        if strict_yaml.parse(text, name)[key] == value:
            return text
        start, end = node.start_mark.index, node.end_mark.index
        # A block scalar ends where the next key begins.
        after = "\n" if node.style in ("|", ">") else ""
        return text[:start] + written + after + text[end:]
    # The model repo is named in the line above the dataset repo, in the same style.
    start = nodes["data"][0].start_mark.index
    between = ", " if root.flow_style else "\n"
    return f"{text[:start]}{key}: {written}{between}{text[start:]}"
