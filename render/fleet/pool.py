"""The workers: Ray actors, what each of them is doing, and what becomes of it as typed events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orbit4d.datasets.core.errors import WorkError
from orbit4d.render.fleet.cluster import first_line
from orbit4d.render.fleet.patience import pause_after
from orbit4d.render.fleet.queue import Attempt
from orbit4d.render.fleet.worker import Reply, Worker, WorkerSettings

#: Workers that fail to start, in a row, before the fleet gives up.
MAX_FAILED_STARTS = 8


@dataclass(frozen=True)
class WorkerReady:
    """A worker is up and takes jobs."""


@dataclass(frozen=True)
class WorkerUnfit:
    """A worker is up, and its machine cannot use the storage of the run."""

    host: str
    detail: str
    first: bool
    """One of those that the run began with; later ones come and go with their machines."""


@dataclass(frozen=True)
class WorkerFailed:
    """A worker ended before it was up."""

    detail: str


@dataclass(frozen=True)
class JobAnswered:
    """A worker answered, or is stuck and was killed, which counts as an answer of its own."""

    attempt: Attempt
    reply: Reply


@dataclass(frozen=True)
class WorkerLost:
    """A worker, or its machine, is gone in the middle of a job."""

    attempt: Attempt
    detail: str


Event = WorkerReady | WorkerUnfit | WorkerFailed | JobAnswered | WorkerLost


@dataclass(eq=False)
class _Member:
    """One actor, and how long it rests after storage failed it."""

    actor: Any
    first: bool
    faults: int = 0
    rests_until: float = field(default=0.0)

    def rest(self) -> None:
        self.faults += 1
        self.rests_until = time.monotonic() + pause_after(self.faults)


class WorkerPool:
    """Actors that each do at most one thing at a time. Beside `cluster`, the only caller of Ray."""

    def __init__(self, ray: Any, settings: WorkerSettings, gpus_per_worker: float = 0.0) -> None:
        self._ray, self._settings = ray, settings
        self._actor_class = ray.remote(Worker).options(
            num_cpus=settings.threads, num_gpus=gpus_per_worker, max_restarts=0, max_task_retries=0
        )
        # Actors and references have no types: Ray makes them at run time.
        self._starting: dict[Any, _Member] = {}  # reference of ready() -> its actor
        self._idle: list[_Member] = []
        self._resting: list[_Member] = []
        self._busy: dict[Any, tuple[_Member, Attempt, float]] = {}  # reference of run() -> actor, job, start
        self._failed_starts = 0
        self._began = False

    @property
    def n_workers(self) -> int:
        """Actors that start, wait, rest or work."""
        return len(self._starting) + len(self._idle) + len(self._resting) + len(self._busy)

    @property
    def n_idle(self) -> int:
        """Workers that are up and have nothing to do."""
        now = time.monotonic()
        if any(member.rests_until <= now for member in self._resting):
            self._idle += [member for member in self._resting if member.rests_until <= now]
            self._resting = [member for member in self._resting if member.rests_until > now]
        return len(self._idle)

    @property
    def n_resting(self) -> int:
        """Workers that storage failed, and that are given no job for a while."""
        return len(self._resting)

    @property
    def n_busy(self) -> int:
        """Workers with a job."""
        return len(self._busy)

    def start(self, n: int) -> None:
        """Ask for `n` more actors; each tells by an event that it is up."""
        for _ in range(n):
            actor = self._actor_class.remote(self._settings)
            self._starting[actor.ready.remote()] = _Member(actor, first=not self._began)

    def assign(self, attempt: Attempt) -> None:
        """Give a job to an idle worker."""
        self._began = True
        member = self._idle.pop()
        self._busy[member.actor.run.remote(attempt.job)] = (member, attempt, time.monotonic())

    def wait(self, timeout_s: float) -> list[Event]:
        """What happens next: everything that has happened by the first event, none after `timeout_s`.

        Raises WorkError once MAX_FAILED_STARTS workers in a row have failed to start.
        """
        waiting = [*self._busy, *self._starting]
        if not waiting:
            time.sleep(timeout_s)
            return []
        ready, rest = self._ray.wait(waiting, num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [self._started(ref) if ref in self._starting else self._answered(ref) for ref in ready]

    def _started(self, ref: Any) -> Event:
        member = self._starting.pop(ref)
        try:
            found = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkError(f"no worker can be started: {first_line(error)}") from error
            return WorkerFailed(first_line(error))
        self._failed_starts = 0
        if found["unfit"]:
            member.rest()
            self._resting.append(member)
            return WorkerUnfit(found["host"], found["unfit"], member.first)
        self._idle.append(member)
        return WorkerReady()

    def _answered(self, ref: Any) -> Event:
        member, attempt, _ = self._busy.pop(ref)
        try:
            reply = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            # It may be unreachable and not dead; nothing it does may surprise us later.
            self._ray.kill(member.actor)
            return WorkerLost(attempt, first_line(error))
        if reply.storage:
            member.rest()
            self._resting.append(member)
        else:
            member.faults = 0
            self._idle.append(member)
        return JobAnswered(attempt, reply)

    def overdue(self, limit_s: float) -> Iterator[Event]:
        """Kill every worker that has been silent for more than `limit_s`; a stuck worker costs an attempt."""
        for ref, (member, attempt, began) in list(self._busy.items()):
            if time.monotonic() - began > limit_s:
                del self._busy[ref]
                self._ray.kill(member.actor)
                reply = Reply(reason="time_out", detail="the worker itself was stuck", retry=True)
                yield JobAnswered(attempt, reply)

    def free_cores(self) -> float:
        """Cores of the cluster that nobody has reserved."""
        return self._ray.available_resources().get("CPU", 0)

    def kill_all(self) -> None:
        """End every actor, whatever it is doing."""
        working = [entry[0] for entry in self._busy.values()]
        for member in [*self._starting.values(), *self._idle, *self._resting, *working]:
            self._ray.kill(member.actor)
