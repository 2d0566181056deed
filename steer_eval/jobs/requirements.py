"""The packages of a job: those of this environment, each at its version.

Invariant: everything that steer-eval needs here, directly or not, is pinned to the version that is here; what only
another platform needs is left to the resolver there.
"""

from __future__ import annotations

import json
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

PACKAGE = "steer-eval"


def pinned(package: str, extras: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Requirements of a job: steer-eval itself, then all that it needs.

    Args:
        package: steer-eval as the job is to install it.
        extras: Optional parts of it that the job needs.
    """
    wanted = Requirement(package)
    wanted.extras |= extras
    versions: dict[str, str] = {}
    _collect(PACKAGE, extras, versions)
    return (str(wanted), *(f"{name}=={versions[name]}" for name in sorted(versions)))


def own_package() -> str | None:
    """steer-eval as another machine can install it; None if it was installed from a folder of this one."""
    distribution = metadata.distribution(PACKAGE)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin:
        return f"{PACKAGE}=={distribution.version}"
    source = origin.get("vcs_info")
    return None if source is None else f"{PACKAGE} @ {source['vcs']}+{origin['url']}@{source['commit_id']}"


def is_requirement(text: str) -> bool:
    """Whether a text is a requirement on steer-eval."""
    try:
        return canonicalize_name(Requirement(text).name) == PACKAGE
    except InvalidRequirement:
        return False


def _collect(name: str, extras: frozenset[str], versions: dict[str, str]) -> None:
    for text in metadata.requires(name) or ():
        needed = Requirement(text)
        marker = needed.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        key = canonicalize_name(needed.name)
        if key == PACKAGE:
            continue
        try:
            version = metadata.version(key)
        except metadata.PackageNotFoundError:
            continue
        known = key in versions
        # `2.13.0+cpu` is a build of 2.13.0 that only one index has.
        versions[key] = version.partition("+")[0]
        if not known:
            _collect(key, frozenset(needed.extras), versions)
