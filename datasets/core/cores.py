"""How many cores this process may use: not those of the machine, but those it was given.

`os.cpu_count` counts what is built in. `taskset`, Slurm and `docker --cpuset-cpus` leave fewer (the affinity
mask), and `docker --cpus` or a Kubernetes limit grants a share of their time (the quota of a control group).
More workers than that take turns on the same cores and only cost memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may keep busy, at least 1: its affinity mask, cut to the quota of its groups.

    A quota counts in whole cores: with 2.5 there is work for two, and a third would be stopped half the time.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota + 1e-6)))


def limit_torch_threads() -> int:
    """Lower torch's threads to the cores there are, and return their number.

    OpenMP heeds the affinity mask by itself, but no quota. Numba's kernels take as many threads as torch.
    """
    import torch

    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that the tightest control group around this process grants, None without a limit.

    Version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`), whichever the system mounts. `root` is where the
    system's /proc and /sys lie.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, UnicodeDecodeError):
        return None  # not Linux, or no /proc
    found = [_granted(folder) for folder in _folders(groups, mounts, root)]
    return min((quota for quota in found if quota is not None), default=None)


def _folders(groups: list[str], mounts: list[str], root: Path) -> Iterator[Path]:
    """Folders of the groups that may limit the CPU: ours, and every one above it up to the mount."""
    paths = {}
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, *options = after.split(" ")
        if kind not in paths or (kind == "cgroup" and "cpu" not in options[-1].split(",")):
            continue
        mounted, place = before.split(" ")[3:5]
        path = paths[kind]
        # Without a namespace of its own, a container sees its group's path from the host's root.
        inside = path.removeprefix(mounted) if mounted != "/" else path
        top = root / place.lstrip("/")
        folder = top / inside.strip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
        yield top


def _granted(folder: Path) -> float | None:
    """Cores' worth of time that one group grants; None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        granted = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # `max`, or a group without the file
    return granted if granted > 0 else None
