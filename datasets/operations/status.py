"""How far a dataset is, read from the dataset alone: `orbit4d status`, from any terminal or machine.

Counts come from what is stored (index parts, staging, rejections); throughput, workers and time left from the
driver's note beside it, where there is one.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.compute as pc

from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations.run_progress import RunProgress, read_progress
from orbit4d.datasets.store import manifest, parts, rejections, staging
from orbit4d.datasets.store.rejections import Rejection

#: Prefix of the reason of an asset whose attempts, or preemptions, are used up.
QUARANTINED = "quarantined:"
RETRY = "run the same command with --retry-quarantined to give them new attempts"


@dataclass(frozen=True)
class Status:
    """One look at a dataset."""

    dataset: str
    committed: int
    """Assets in shards."""
    staged: int
    """Assets that are done and wait for their shard."""
    reasons: dict[str, int]
    """Reason code -> assets rejected for it."""
    quarantined: list[Rejection]
    """Assets whose attempts are used up, with detail and the end of the log."""
    actions_left_out: int = 0
    """Actions of assets that are done which were reported and not rendered."""
    run: RunProgress | None = None
    """The newest note of a driver."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    @property
    def done(self) -> int:
        """Assets that are in shards or wait for one."""
        return self.committed + self.staged

    @property
    def rejected(self) -> int:
        """Assets that cannot be rendered, or may not."""
        return sum(self.reasons.values())

    @property
    def alive(self) -> bool:
        """Whether a driver works on it."""
        return self.run is not None and self.run.alive(self.at)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        counts = {"done": self.done, "rejected": self.rejected, "alive": self.alive}
        left = None if self.run is None else {"left": self.run.left, "seconds_left": self.run.seconds_left}
        run = None if self.run is None else {**asdict(self.run), **(left or {})}
        return {**asdict(self), **counts, "run": run}


class StatusReader:
    """Looks at one dataset again and again; parts of its index are read once, since they never change."""

    def __init__(self, uri: str) -> None:
        """Raises InputError where there is no dataset, or one of a newer schema."""
        self.store = Store(uri)
        manifest.read(self.store)
        self._uids_of: dict[str, frozenset[str]] = {}

    def look(self) -> Status:
        """The present state."""
        run = read_progress(self.store)
        committed: set[str] = set()
        for name in parts.live_parts(self.store)[0]:
            if name not in self._uids_of:
                column = parts.read_part(self.store, name, ["uid"]).column("uid")
                self._uids_of[name] = frozenset(pc.unique(column).to_pylist())
            committed |= self._uids_of[name]
        staged = {asset.uid for asset in staging.staged_assets(self.store)} - committed
        whole: dict[str, Rejection] = {}
        actions = 0
        for row in rejections.read(self.store):
            if row.action:
                actions += 1
            elif row.uid not in committed and row.uid not in staged:
                whole[row.uid] = row
        refused = [row for row in whole.values() if not row.reason.startswith(QUARANTINED)]
        return Status(
            self.store.uri,
            len(committed),
            len(staged),
            dict(Counter(row.reason for row in refused).most_common()),
            [row for row in whole.values() if row.reason.startswith(QUARANTINED)],
            actions,
            run,
        )


def headline(status: Status) -> str:
    """Who works on the dataset, or since when nobody does."""
    run = status.run
    if run is None:
        return "no driver has left a note here (an earlier version, or an import)"
    who = f"{run.host} (pid {run.pid})"
    ago = f"{duration(max(0.0, status.at - run.updated))} ago"
    if status.alive:
        return f"running on {who}, last heard of {ago}"
    if run.state == "running":
        return f"no sign of {who} since {ago}: it was killed or is cut off; run the same command to resume"
    why = f" ({run.message})" if run.message else ""
    again = "" if run.state == "finished" else "; run the same command to resume"
    return f"{run.state} on {who} {ago}{why}{again}"


def pace(status: Status) -> str:
    """Throughput, workers and time left of a running driver, '' where none is running."""
    run = status.run
    if run is None or not status.alive:
        return ""
    left = run.seconds_left
    until = "time left unknown" if left is None else f"about {duration(left)} left"
    return (
        f"{60 * run.assets_per_s:.1f} assets/min, {run.images_per_s:.1f} images/s; "
        f"{run.workers} workers, {run.busy} at work; {run.left:,} of {run.todo:,} assets to go, {until}"
    )


def status_lines(status: Status, most: int = 10, log_lines: int = 3) -> list[str]:
    """The status as lines for a terminal: at most `most` quarantined assets, `log_lines` of each log."""
    total = f" of {status.run.input} inputs" if status.run is not None and status.run.input else ""
    lines = [f"{status.dataset}: {headline(status)}"]
    lines.append(
        f"done {status.done} ({status.committed} in shards, {status.staged} staged), "
        f"rejected {status.rejected}, quarantined {len(status.quarantined)}{total}"
    )
    lines += [f"holding: {status.run.message}"] if status.alive and status.run and status.run.message else []
    lines += [line] if (line := pace(status)) else []
    lines += [f"  rejected {reason}: {count}" for reason, count in status.reasons.items()]
    if status.actions_left_out:
        lines.append(f"  actions reported and not rendered: {status.actions_left_out}")
    for row in status.quarantined[:most]:
        lines.append(f"  {row.uid}: {row.reason}, {row.attempts} attempts, {row.preemptions} preemptions")
        lines += [f"    {row.detail}"] if row.detail else []
        lines += [f"    | {line}" for line in _tail(row.log_tail, log_lines)]
    if len(status.quarantined) > most:
        lines.append(f"  and {len(status.quarantined) - most} more (--all)")
    if status.quarantined:
        lines.append(f"{len(status.quarantined)} quarantined: {RETRY}")
    return lines


def _tail(log: str, lines: int) -> list[str]:
    written = [line.rstrip() for line in log.splitlines() if line.strip()]
    return written[-lines:] if lines else []


def duration(seconds: float) -> str:
    """A length of time in the two largest units that say something: 48 s, 12 min, 3 h 20 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = round(whole / 60), whole // 3600
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
