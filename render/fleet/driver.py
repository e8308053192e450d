"""Fan jobs out over Ray actors, each with its own Blender child, and account for every one of them.

A job ends as done or failed, once. The child's failures (crash, time-out, memory, an exception) cost
attempts; a lost actor or node costs a preemption, which is free up to a limit. Work is handed out one job
at a time to actors that have said they are up, so nothing piles up behind a slow, pending or dead one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.scratch import scratch_folder, sweep_scratch
from orbit4d.datasets.core.short_temp import socket_folder
from orbit4d.render.fleet.child import START_TIMEOUT
from orbit4d.render.fleet.worker import Job, Reply, Worker, WorkerSettings

__all__ = ["FleetSettings", "FleetSummary", "Job", "Outcome", "run_fleet"]

#: Beyond the child's own limits: hooks, storage, and the child's start.
STUCK_GRACE = START_TIMEOUT + 300.0
#: The child's limit holds for each action of an asset; an actor that is silent for this many of them is
#: stuck itself.
STUCK_ACTIONS = 50
#: Actors that die before they are up, in a row, before the fleet gives up.
MAX_STILLBORN = 8
#: Seconds without any worker after which the user is told, again and again.
SAY_WAITING_EVERY = 60.0


@dataclass(frozen=True)
class FleetSettings:
    """How many workers, how patient, and where. None of this changes what is rendered."""

    workers: int | None = None
    """Actors; None: as many as the cluster's cores take at `threads_per_worker`."""
    threads_per_worker: int | None = None
    """Render threads of a child, and the cores Ray reserves for its actor; None: cores divided by `workers`,
    or 1 when neither is given."""
    attempts: int = 2
    """Failures of the child after which a job is failed."""
    max_preemptions: int = 10
    """Lost actors or nodes after which a job is failed."""
    asset_timeout: float = 600.0
    """Seconds for one task inside the child, or for each action of an asset where the task tells of them."""
    import_timeout: float | None = None
    """Seconds in which a child must have read its asset, for tasks that emit `imported`."""
    max_rss_bytes: int | None = None
    """Resident memory at which a child is killed."""
    recycle_after: int = 50
    """Tasks after which a child is replaced."""
    address: str | None = None
    """Ray cluster: None starts one inside this process, `auto` finds the running one."""
    shared_paths: bool = False
    """Every machine of the cluster sees the same files under the same local paths."""
    gpus_per_worker: float = 0.0
    """May be a fraction: 0.25 puts four workers on one GPU."""
    order: str = "largest_first"
    """`largest_first` (no long tail), or `given`, which pulls jobs lazily."""
    child_env: tuple[tuple[str, str], ...] = ()
    """Extra environment of the children."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_worker", "attempts", "recycle_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.order not in ("largest_first", "given"):
            raise InputError(f"order is {self.order!r}; choose largest_first or given")


@dataclass
class Outcome:
    """How one job ended."""

    job: Job
    status: str
    """`done` or `failed`."""
    result: dict[str, Any] | None = None
    reason: str = ""
    """Why it failed: `crash`, `time_out`, `memory`, `error`, `preempted`, or the task's own code."""
    detail: str = ""
    attempts: int = 0
    """Times the job was answered, by a result or a failure."""
    preemptions: int = 0
    log_tail: str = ""
    seconds: float = 0.0
    """Of the last attempt."""
    refused: bool = False
    """The task said the input itself is bad, so no further attempt was made."""
    peak_rss_bytes: int = 0


@dataclass
class FleetSummary:
    """A whole run, counted."""

    done: int = 0
    failed: int = 0
    attempts: int = 0
    preemptions: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    """Stopped by Ctrl-C or SIGTERM; jobs without an outcome were not run to their end."""
    workers: int = 0
    threads_per_worker: int = 0


@dataclass
class _Try:
    """A job on its way, with what it has cost so far."""

    job: Job
    attempts: int = 0
    preemptions: int = 0


@dataclass
class _Crew:
    """Actors and what each is doing; at most one thing at a time."""

    new_actor: Callable[[], Any]
    starting: dict[Any, Any] = field(default_factory=dict)
    """ref of ready() -> actor"""
    idle: list[Any] = field(default_factory=list)
    busy: dict[Any, tuple[Any, _Try, float]] = field(default_factory=dict)
    """ref of run() -> (actor, job, when it began)"""

    def size(self) -> int:
        return len(self.starting) + len(self.idle) + len(self.busy)

    def hire(self, n: int) -> None:
        for _ in range(n):
            actor = self.new_actor()
            self.starting[actor.ready.remote()] = actor


def run_fleet(
    jobs: Iterable[Job],
    settings: FleetSettings,
    on_outcome: Callable[[Outcome], None],
    progress: Progress | None = None,
) -> FleetSummary:
    """Run all jobs and call `on_outcome` in this thread as each ends, in no particular order.

    Ctrl-C or SIGTERM stops handing out work, kills the actors, and returns with `interrupted` set; a
    second one is not caught. Raises WorkError when no worker can be kept alive at all.
    """
    if settings.order == "largest_first":
        jobs = sorted(jobs, key=lambda job: (-job.size_bytes, job.key))
    summary = FleetSummary()
    started = time.monotonic()
    with ray_cluster(settings) as ray, _stop_signals() as stop:
        workers, threads = crew_size(settings, ray)
        summary.workers, summary.threads_per_worker = workers, threads
        worker_settings = WorkerSettings(
            threads=threads,
            asset_timeout=settings.asset_timeout,
            import_timeout=settings.import_timeout,
            max_rss_bytes=settings.max_rss_bytes,
            recycle_after=settings.recycle_after,
            child_env=settings.child_env,
        )
        remote = ray.remote(Worker).options(
            num_cpus=threads, num_gpus=settings.gpus_per_worker, max_restarts=0, max_task_retries=0
        )
        crew = _Crew(lambda: remote.remote(worker_settings))
        try:
            _drive(ray, crew, deque(), iter(jobs), workers, settings, on_outcome, progress, summary, stop)
        finally:
            for actor in [*crew.starting.values(), *crew.idle, *(entry[0] for entry in crew.busy.values())]:
                ray.kill(actor)
    summary.interrupted = stop.is_set()
    summary.seconds = time.monotonic() - started
    return summary


def _drive(
    ray: Any,
    crew: _Crew,
    again: deque[_Try],
    jobs: Iterator[Job],
    workers: int,
    settings: FleetSettings,
    on_outcome: Callable[[Outcome], None],
    progress: Progress | None,
    summary: FleetSummary,
    stop: threading.Event,
) -> None:
    """The loop: hand out, wait, judge, until every job has an outcome."""
    stillborn = 0
    waiting_since = time.monotonic()
    upcoming = _peek(jobs)

    def end(attempt: _Try, status: str, reply: Reply) -> None:
        summary.done += status == "done"
        summary.failed += status == "failed"
        on_outcome(
            Outcome(
                attempt.job,
                status,
                reply.result,
                reply.reason,
                reply.detail,
                attempt.attempts,
                attempt.preemptions,
                reply.log_tail,
                reply.seconds,
                status == "failed" and not reply.retry,
                reply.peak_rss_bytes,
            )
        )
        if progress is not None:
            progress.update(1, done=summary.done, failed=summary.failed)

    def judge(attempt: _Try, reply: Reply) -> None:
        attempt.attempts += 1
        summary.attempts += 1
        if reply.result is not None:
            end(attempt, "done", reply)
        elif reply.retry and attempt.attempts < settings.attempts:
            again.append(attempt)
        else:
            end(attempt, "failed", reply)

    def preempted(attempt: _Try, detail: str) -> None:
        attempt.preemptions += 1
        summary.preemptions += 1
        if attempt.preemptions > settings.max_preemptions:
            end(attempt, "failed", Reply(reason="preempted", detail=detail, retry=True))
        else:
            again.appendleft(attempt)

    while not stop.is_set():
        while crew.idle and (again or upcoming):
            attempt = again.popleft() if again else _Try(upcoming.pop())
            if not upcoming:
                upcoming = _peek(jobs)
            actor = crew.idle.pop()
            crew.busy[actor.run.remote(attempt.job)] = (actor, attempt, time.monotonic())
        waiting = len(crew.busy) + len(again) + len(upcoming)
        if not waiting:
            return
        # No more actors than jobs that could use them; replacements for the lost are hired here as well.
        # What is still to come from the iterator is unknown, so one in sight means a full crew.
        wanted = workers if upcoming else min(workers, waiting)
        crew.hire(max(0, wanted - crew.size()))
        if crew.busy or crew.idle:
            waiting_since = time.monotonic()
        elif time.monotonic() - waiting_since > SAY_WAITING_EVERY:
            waiting_since = time.monotonic()
            cores = ray.available_resources().get("CPU", 0)
            print(f"waiting for a worker to start; the cluster has {cores:g} free cores", file=sys.stderr)
        refs = [*crew.busy, *crew.starting]
        ready, _ = ray.wait(refs, num_returns=1, timeout=0.5)
        for ref in ready:
            if ref in crew.starting:
                actor = crew.starting.pop(ref)
                try:
                    ray.get(ref)
                    stillborn = 0
                    crew.idle.append(actor)
                except ray.exceptions.RayError as error:
                    stillborn += 1
                    if stillborn >= MAX_STILLBORN:
                        raise WorkError(f"no worker can be started: {_first_line(error)}") from error
                continue
            actor, attempt, _ = crew.busy.pop(ref)
            try:
                reply = ray.get(ref)
            except ray.exceptions.RayError as error:
                ray.kill(actor)  # it may be unreachable and not dead; nothing it does may surprise us later
                preempted(attempt, _first_line(error))
                continue
            crew.idle.append(actor)
            judge(attempt, reply)
        limit = STUCK_ACTIONS * settings.asset_timeout + STUCK_GRACE
        for ref, (actor, attempt, began) in list(crew.busy.items()):
            if time.monotonic() - began > limit:
                del crew.busy[ref]
                ray.kill(actor)
                judge(attempt, Reply(reason="time_out", detail="the worker itself was stuck", retry=True))


def _peek(jobs: Iterator[Job]) -> list[Job]:
    """The next job in a list, or an empty list at the end."""
    for job in jobs:
        return [job]
    return []


def crew_size(settings: FleetSettings, ray: Any) -> tuple[int, int]:
    """(workers, threads per worker) such that workers never use more cores than there are, unless told to."""
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return share_cores(settings.workers, settings.threads_per_worker, cores)


def share_cores(workers: int | None, threads: int | None, cores: int) -> tuple[int, int]:
    """Fill in what was not asked for. What was asked for is kept.

    One thread each by default: two children of one thread render more than one child of two.
    """
    if threads is None:
        threads = 1 if workers is None else max(1, cores // workers)
    return (max(1, cores // threads) if workers is None else workers), threads


@contextmanager
def ray_cluster(settings: FleetSettings) -> Iterator[Any]:
    """Ray, connected to `settings.address`; what was started here is stopped again."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {
        "namespace": f"orbit4d-{uuid.uuid4().hex[:12]}",
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if settings.address is None:
        cores = usable_cores()
        workers, threads = share_cores(settings.workers, settings.threads_per_worker, cores)
        # Pixels go through files: the object store carries only short replies.
        options |= {
            "address": "local",
            "num_cpus": max(cores, workers * threads),
            "include_dashboard": False,
            "object_store_memory": 100 << 20,
            # Ray's sockets lie in it, and their paths may not be long.
            "_temp_dir": os.path.join(socket_folder(), "ray"),
        }
    else:
        options["address"] = settings.address
    with scratch_folder() as empty:
        if "working_dir" not in os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", ""):
            # Without a working_dir Ray puts the driver's folder on every worker's sys.path; from the
            # repository root our `datasets` folder would then hide the package of that name.
            options["runtime_env"] = {"working_dir": empty}
        try:
            ray.init(**options)
        except Exception as error:
            # Ray raises plain exceptions (a node that timed out, a full disk, ports that are taken).
            where = settings.address or "this machine"
            mend = "check --address" if settings.address else "free memory and disk, and try again"
            raise WorkError(f"cannot reach or start Ray on {where}: {_first_line(error)}; {mend}") from error
        try:
            yield ray
        finally:
            ray.shutdown()
            sweep_scratch()  # of the actors, which are killed and not asked to end


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; the second signal gets its usual effect."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: object) -> None:
        stop.set()
        restore()

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
