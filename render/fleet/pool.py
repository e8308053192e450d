"""The workers: Ray actors, what each of them is doing, and what becomes of it as typed events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orbit4d.datasets.core.errors import WorkError
from orbit4d.render.fleet.cluster import first_line
from orbit4d.render.fleet.queue import Attempt
from orbit4d.render.fleet.worker import Reply, Worker, WorkerSettings

#: Workers that fail to start, in a row, before the fleet gives up.
MAX_FAILED_STARTS = 8


@dataclass(frozen=True)
class WorkerReady:
    """A worker is up and takes jobs."""


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


Event = WorkerReady | WorkerFailed | JobAnswered | WorkerLost


class WorkerPool:
    """Actors that each do at most one thing at a time. Beside `cluster`, the only caller of Ray."""

    def __init__(self, ray: Any, settings: WorkerSettings, gpus_per_worker: float = 0.0) -> None:
        self._ray, self._settings = ray, settings
        self._actor_class = ray.remote(Worker).options(
            num_cpus=settings.threads, num_gpus=gpus_per_worker, max_restarts=0, max_task_retries=0
        )
        # Actors and references have no types: Ray makes them at run time.
        self._starting: dict[Any, Any] = {}  # reference of ready() -> actor
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Attempt, float]] = {}  # reference of run() -> actor, job, its start
        self._failed_starts = 0

    @property
    def n_workers(self) -> int:
        """Actors that start, wait or work."""
        return len(self._starting) + len(self._idle) + len(self._busy)

    @property
    def n_idle(self) -> int:
        """Workers that are up and have nothing to do."""
        return len(self._idle)

    @property
    def n_busy(self) -> int:
        """Workers with a job."""
        return len(self._busy)

    def start(self, n: int) -> None:
        """Ask for `n` more actors; each tells by an event that it is up."""
        for _ in range(n):
            actor = self._actor_class.remote(self._settings)
            self._starting[actor.ready.remote()] = actor

    def assign(self, attempt: Attempt) -> None:
        """Give a job to an idle worker."""
        actor = self._idle.pop()
        self._busy[actor.run.remote(attempt.job)] = (actor, attempt, time.monotonic())

    def wait(self, timeout_s: float) -> list[Event]:
        """What happens next: at most one event, none after `timeout_s`.

        Raises WorkError once MAX_FAILED_STARTS workers in a row have failed to start.
        """
        ready, _ = self._ray.wait([*self._busy, *self._starting], num_returns=1, timeout=timeout_s)
        return [self._started(ref) if ref in self._starting else self._answered(ref) for ref in ready]

    def _started(self, ref: Any) -> Event:
        actor = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkError(f"no worker can be started: {first_line(error)}") from error
            return WorkerFailed(first_line(error))
        self._failed_starts = 0
        self._idle.append(actor)
        return WorkerReady()

    def _answered(self, ref: Any) -> Event:
        actor, attempt, _ = self._busy.pop(ref)
        try:
            reply = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            # It may be unreachable and not dead; nothing it does may surprise us later.
            self._ray.kill(actor)
            return WorkerLost(attempt, first_line(error))
        self._idle.append(actor)
        return JobAnswered(attempt, reply)

    def overdue(self, limit_s: float) -> Iterator[Event]:
        """Kill every worker that has been silent for more than `limit_s`; a stuck worker costs an attempt."""
        for ref, (actor, attempt, began) in list(self._busy.items()):
            if time.monotonic() - began > limit_s:
                del self._busy[ref]
                self._ray.kill(actor)
                reply = Reply(reason="time_out", detail="the worker itself was stuck", retry=True)
                yield JobAnswered(attempt, reply)

    def free_cores(self) -> float:
        """Cores of the cluster that nobody has reserved."""
        return self._ray.available_resources().get("CPU", 0)

    def kill_all(self) -> None:
        """End every actor, whatever it is doing."""
        for actor in [*self._starting.values(), *self._idle, *(entry[0] for entry in self._busy.values())]:
            self._ray.kill(actor)
