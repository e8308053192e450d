"""Cores that a process may use: affinity masks, and quotas of control groups of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orbit4d.datasets.core import cores
from orbit4d.datasets.core.cores import cgroup_quota, usable_cores


def system(root: Path, groups: str, mounts: list[str], files: dict[str, str]) -> Path:
    """A made-up /proc and /sys below `root`."""
    for name, text in {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": "".join(f"{line}\n" for line in mounts),
        **files,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = [
    "31 23 0:27 {root} /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset",
    "32 23 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3.5),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"sys/fs/cgroup/jobs/cpu.max": "600000 100000\n", "sys/fs/cgroup/jobs/n7/cpu.max": "max 1\n"}, 6.0),
        ({"sys/fs/cgroup/jobs/cpu.max": "40000 20000\n", "sys/fs/cgroup/jobs/n7/cpu.max": "9 1\n"}, 2.0),
        ({"sys/fs/cgroup/jobs/n7/cpu.max": "not a number\n"}, None),
        ({"sys/fs/cgroup/other/cpu.max": "100000 100000\n"}, None),
    ],
)
def test_version_two_and_all_groups_above(tmp_path, files, expected):
    root = system(tmp_path, "0::/jobs/n7\n", [V2], files)
    assert cgroup_quota(root) == expected


@pytest.mark.parametrize("seen_from", ["/", "/docker/4f2a"])
def test_version_one_with_and_without_a_namespace(tmp_path, seen_from):
    """A container without a namespace of its own reads its group's path as the host sees it."""
    inside = "" if seen_from != "/" else "docker/4f2a/"
    folder = f"sys/fs/cgroup/cpu,cpuacct/{inside}"
    files = {f"{folder}cpu.cfs_quota_us": "500000\n", f"{folder}cpu.cfs_period_us": "200000\n"}
    groups = "5:cpuset:/\n4:cpu,cpuacct:/docker/4f2a\n0::/\n"
    root = system(tmp_path, groups, [line.format(root=seen_from) for line in V1], files)
    assert cgroup_quota(root) == 2.5
    (root / f"{folder}cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_quota(root) is None


def test_systems_without_control_groups_have_no_quota(tmp_path):
    assert cgroup_quota(tmp_path) is None
    assert cgroup_quota(system(tmp_path, "", [], {})) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 6), (2.0, 2), (2.9, 2), (0.3, 1), (64.0, 6)])
def test_whole_cores_of_a_quota_never_more_than_the_mask(monkeypatch, quota, expected):
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 3, 5, 8, 9}, raising=False)
    assert usable_cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_one_allowed_core_is_one_worker_and_one_thread():
    """As after `taskset -c N`: workers, Ray's cores, torch and numba's kernels follow the mask."""
    code = """
import os
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
import torch
from orbit4d.datasets.core.cores import limit_torch_threads, usable_cores
from orbit4d.render.fleet import cluster as fleet
from orbit4d.render.fleet.settings import FleetSettings
print(usable_cores(), limit_torch_threads(), *fleet.share_cores(None, None, usable_cores()))
settings = FleetSettings()
with fleet.ray_cluster(settings) as ray:
    print(*fleet.worker_count(settings, ray), int(ray.cluster_resources()["CPU"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1", "1", "1", "1", "1", "1"]


def test_a_quota_lowers_torch_threads(monkeypatch):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(cores, "cgroup_quota", lambda: 1.2)
        assert cores.limit_torch_threads() == torch.get_num_threads() == 1
        torch.set_num_threads(1)
        monkeypatch.setattr(cores, "usable_cores", lambda: 4)
        assert cores.limit_torch_threads() == 1, "what the user lowered stays"
    finally:
        torch.set_num_threads(before)


def test_nothing_counts_the_machine_s_cores(repo_root):
    """`os.cpu_count` stands where cores are counted, and where doctor says how many are built in."""
    allowed = {Path("datasets/core/cores.py"), Path("app/doctor.py")}
    found = {
        path.relative_to(repo_root)
        for folder in [
            "datasets",
            "render",
            "curate",
            "model",
            "recon4d",
            "compose",
            "evaluate",
            "app",
            "bench",
        ]
        for path in (repo_root / folder).rglob("*.py")
        if "cpu_count(" in path.read_text()
    }
    assert found <= allowed
