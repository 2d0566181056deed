import sys
from pathlib import Path

import psutil
import pytest
import torch

from steer_eval.evaluation.free_memory import free_bytes, group_room, process_room

UNLIMITED = 9223372036854771712


def group(folder: Path, **files: object) -> None:
    """A folder of a mounted control group: `memory_max=1` is the file `memory.max`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{value}\n", encoding="ascii")


def room(tmp_path: Path, membership: str) -> list[int]:
    (tmp_path / "membership").write_text(membership, encoding="ascii")
    return sorted(group_room(tmp_path / "cgroup", tmp_path / "membership"))


def test_a_group_of_version_2_and_those_above_it(tmp_path):
    root = tmp_path / "cgroup"
    stat = "anon 600\ninactive_file 150\nactive_file 50"
    group(root / "jobs" / "mine", memory_max=1000, memory_current=900, memory_stat=stat)
    group(root / "jobs", memory_max=5000, memory_current=4800, memory_stat="inactive_file 20")
    group(root, memory_stat="inactive_file 7")
    assert room(tmp_path, "0::/jobs/mine\n") == [220, 250]


def test_a_container_sees_its_own_group_as_the_root(tmp_path):
    group(tmp_path / "cgroup", memory_max=1000, memory_current=900, memory_stat="inactive_file 150")
    assert room(tmp_path, "0::/\n") == [250]
    assert room(tmp_path, "0::/../elsewhere\n") == [250]


def test_a_group_without_a_limit_limits_nothing(tmp_path):
    group(tmp_path / "cgroup" / "mine", memory_max="max", memory_current=900, memory_stat="inactive_file 150")
    assert room(tmp_path, "0::/mine\n") == []


def test_a_group_of_version_1(tmp_path):
    memory = tmp_path / "cgroup" / "memory"
    stat = "inactive_file 1\ntotal_inactive_file 40"
    group(memory / "docker" / "abc", memory_limit_in_bytes=800, memory_usage_in_bytes=500, memory_stat=stat)
    group(memory, memory_limit_in_bytes=UNLIMITED, memory_usage_in_bytes=1, memory_stat=stat)
    membership = "5:devices:/\n4:cpu,memory:/docker/abc\n1:name=systemd:/\n0::/\n"
    assert room(tmp_path, membership) == [340, UNLIMITED + 39]
    # In the container the path of the host is not there.
    assert room(tmp_path, "4:memory:/docker/other\n") == [UNLIMITED + 39]


def test_without_control_groups_there_is_nothing_to_heed(tmp_path):
    assert list(group_room(tmp_path, tmp_path / "absent")) == []
    assert room(tmp_path, "0::/mine\n") == []


def test_what_is_free_is_no_more_than_the_machine_has():
    assert 0 < free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
@pytest.mark.parametrize(("name", "used"), [("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")])
def test_the_limits_of_the_process_count(name, used):
    import resource

    taken = getattr(psutil.Process().memory_info(), used, None)
    if taken is None:
        pytest.skip("the system does not say how much is taken")
    which, more = getattr(resource, name), 2**30
    before = resource.getrlimit(which)
    try:
        resource.setrlimit(which, (taken + more, before[1]))
        assert any(0 < room <= more + 2**26 for room in process_room())
        assert free_bytes(torch.device("cpu")) <= more + 2**26
    finally:
        resource.setrlimit(which, before)
