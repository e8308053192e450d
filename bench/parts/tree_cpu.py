"""CPU seconds of this process and of all that it started, part by part, read from /proc while they run.

Wall seconds of a machine that others use say little of how work divides. What a process computed, how long it
stood ready without a core, and how long it waited for something else can be distinguished: only the last is
what serialises. A process that lives for less than the sampling's `interval` may be missed.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """Of one process, in seconds."""

    part: str
    cpu: float
    queued: float
    """Ready to run on its main thread, and no core free."""
    alive: float
    """From its start to when it was seen last."""


class TreeCpu:
    """While entered, samples the tree; afterwards `parts()` has the seconds by part."""

    def __init__(self, interval: float = 0.3) -> None:
        self.interval = interval
        self.spent: dict[tuple[int, int], Spent] = {}
        self._before: dict[tuple[int, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> TreeCpu:
        self._sample()
        self._before = {key: one.cpu for key, one in self.spent.items()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def parts(self) -> dict[str, list[float]]:
        """Part -> CPU seconds of each of its processes since the start, the most first."""
        found: dict[str, list[float]] = {}
        for key, one in self.spent.items():
            found.setdefault(one.part, []).append(one.cpu - self._before.get(key, 0.0))
        return {part: sorted(cpu, reverse=True) for part, cpu in sorted(found.items())}

    def waits(self, part: str) -> list[tuple[float, float]]:
        """(Queued for a core, waiting for anything else) of each process of `part`, in seconds."""
        some = [one for one in self.spent.values() if one.part == part]
        return [(one.queued, max(one.alive - one.cpu - one.queued, 0.0)) for one in some]

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        seen = {
            pid: found for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (found := _stat(pid))
        }
        ours = {os.getpid()}
        grown = True
        while grown:
            more = {pid for pid, found in seen.items() if found[0] in ours} - ours
            grown = bool(more)
            ours |= more
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for pid in ours & seen.keys():
            _, start, cpu = seen[pid]
            known = self.spent.get((pid, start))
            # A process renames itself (Ray's actors), so that its part is what it was called last.
            self.spent[pid, start] = Spent(
                _part(pid) or (known.part if known else "other"), cpu, _queued(pid), now - start / TICK
            )


def _stat(pid: int) -> tuple[int, int, float] | None:
    """Parent, start in ticks since boot, CPU seconds; None where the process has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return int(fields[1]), int(fields[19]), (int(fields[11]) + int(fields[12])) / TICK


def _queued(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _part(pid: int) -> str:
    """What a process is to a fleet; '' where it does not say."""
    if pid == os.getpid():
        return "driver"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""
    if "orbit4d.render.blender" in words:
        return "Blender"
    if words.startswith("ray::"):
        return "idle Ray workers" if words.startswith("ray::IDLE") else "actors"
    return "Ray's services" if words else ""
