"""How much more memory this process may take.

Invariant: of all that limits it the tightest is taken: what the machine has free, the limit of the control group that
the process is in (a container, a job of a scheduler) or of one above it, and the process's own limits. Memory that only
caches files counts as free, as the system gives it up when it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def free_bytes(device: torch.device) -> int:
    """Memory that is free where a device computes, in bytes; that of the machine for devices that share it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *process_room(), *group_room()]))


def process_room() -> Iterator[int]:
    """What the process's own limits (`ulimit -v`, `ulimit -d`) leave, in bytes."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    taken = psutil.Process().memory_info()
    # macOS does not say how large the data segment is; all that is resident is not less than what counts.
    for limit, used in ((resource.RLIMIT_AS, taken.vms), (resource.RLIMIT_DATA, getattr(taken, "data", taken.rss))):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield most - used


def group_room(root: Path = _CONTROL_GROUPS, membership: Path = _MEMBERSHIP) -> Iterator[int]:
    """What the limits of control groups leave, in bytes, for each group that has one.

    Args:
        root: Where control groups are mounted: all in one tree (version 2), or those of memory in a folder of their own
            (version 1).
        membership: Which groups the process is in, line by line `number:controllers:path`.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            yield from _left(root, path, *names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "memory", path, *names)


def _left(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """What the limits of a group and of those above it leave; a container may see its own group as the root."""
    inside = PurePosixPath(path.lstrip("/"))
    # Paths that lead out of what is mounted name groups that can't be seen from here.
    groups = [PurePosixPath(), *([] if ".." in inside.parts else [inside, *inside.parents])]
    for folder in (root / group for group in dict.fromkeys(groups)):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            yield most - used + _cached(folder / "memory.stat", reclaimable)


def _number(file: Path) -> int | None:
    """The number in a file; None if there is none, as where the limit is `max`."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cached(file: Path, name: str) -> int:
    """Memory of a group that caches files and was not used lately, in bytes."""
    try:
        counts = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
        return int(counts.get(name, 0))
    except (OSError, ValueError):
        return 0
