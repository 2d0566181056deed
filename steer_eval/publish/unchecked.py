"""Publications that were pushed and not yet checked.

Invariant: a pair of repos is on record here from before the first push until a check of what was pushed has ended, so
that a run that was killed in between is made up for by the next, which has nothing to push.
"""

from __future__ import annotations

from pathlib import Path

from steer_eval.digest import sha256_value
from steer_eval.formats.strict_json import write_json
from steer_eval.hub.endpoint import endpoint
from steer_eval.weights import cache_folder


def is_unchecked(model: str, data: str) -> bool:
    """Whether a pair of repos was pushed from here and not checked.

    Args:
        model: Hub id of the model repo.
        data: Hub id of the dataset repo.
    """
    return _record(model, data).is_file()


def begin(model: str, data: str) -> None:
    """Record that a pair is about to be pushed."""
    write_json(_record(model, data), {"hub": endpoint(), "model": model, "data": data})


def checked(model: str, data: str) -> None:
    """Record that what was pushed was checked."""
    _record(model, data).unlink(missing_ok=True)


def _record(model: str, data: str) -> Path:
    return cache_folder() / "publications" / f"{sha256_value([endpoint(), model, data])}.json"
