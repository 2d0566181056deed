"""The commit of the dataset repo that a published model repo belongs to.

Invariant: a pin is a whole commit id of a named dataset repo, or there is none. A branch or a short id could mean
another commit tomorrow, so neither is ever taken for a pin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.errors import FormatError

DATA, DATA_REVISION = "data", "data_revision"
"""Keys of a model repo's `config.json`: the dataset repo, and its commit."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class DataPin:
    """A dataset repo at one commit.

    Args:
        repo: Its Hub id.
        revision: Its commit, in full.
    """

    repo: str
    revision: str


def data_pin(config: Mapping[str, Any], name: str = "config.json") -> DataPin | None:
    """The pin that a model repo's `config.json` carries.

    Args:
        config: The parsed file.
        name: What the file is called in messages.

    Returns:
        The pin; None in a repo that is not published, or that names no dataset repo.

    Raises:
        FormatError: A revision is given and is no commit id, or no dataset repo goes with it.
    """
    revision = config.get(DATA_REVISION)
    if revision is None:
        return None
    repo = config.get(DATA)
    if not isinstance(revision, str) or not _COMMIT.fullmatch(revision):
        message, fix = "the revision is no full commit id", "publish the repos again with `steer-eval publish`"
        raise FormatError(name, DATA_REVISION, message, expected="40 hexadecimal digits", observed=revision, fix=fix)
    if not isinstance(repo, str):
        raise FormatError(name, DATA, "a commit is pinned, and no dataset repo is named", observed=repo)
    return DataPin(repo, revision)


def pinned(config: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """The `config.json` of a model repo with its dataset repo pinned: the commit stands after the repo's name.

    Args:
        config: The file without a pin, or with another one.
        revision: The commit, in full.
    """
    without = {key: value for key, value in config.items() if key != DATA_REVISION}
    after = list(without).index(DATA) + 1
    items = list(without.items())
    return dict([*items[:after], (DATA_REVISION, revision), *items[after:]])
