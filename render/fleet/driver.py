"""Fan jobs out over Ray actors, each with its own Blender child, and account for every one of them.

A job ends as done or failed, once. The child's failures (crash, time-out, memory, an exception) cost
attempts; a lost actor or node costs a preemption, which is free up to a limit; storage that fails costs
nothing and is waited for. Work is handed out one job at a time to actors that have said they are up, so
nothing piles up behind a slow, pending or dead one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable

from orbit4d.datasets.commands.interrupt import stop_request
from orbit4d.datasets.core.errors import StorageFailed
from orbit4d.datasets.core.progress import Progress
from orbit4d.render.fleet.books import Books, FleetSummary, Outcome, Retry
from orbit4d.render.fleet.cluster import ray_cluster, worker_count
from orbit4d.render.fleet.patience import Patience
from orbit4d.render.fleet.pool import Event, JobAnswered, WorkerLost, WorkerPool, WorkerUnfit
from orbit4d.render.fleet.queue import JobQueue
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.fleet.worker import Job, WorkerSettings

__all__ = ["FleetSettings", "FleetSummary", "Job", "Outcome", "run_fleet"]

#: Seconds between looks at the clock, and at whether the run is to stop.
POLL_SECONDS = 0.5
#: Seconds without any worker after which the user is reminded, again and again.
SAY_WAITING_EVERY = 60.0


def run_fleet(
    jobs: Iterable[Job],
    settings: FleetSettings,
    on_outcome: Callable[[Outcome], None],
    progress: Progress | None = None,
) -> FleetSummary:
    """Run all jobs and call `on_outcome` in this thread as each ends, in no particular order.

    `settings.watch` is given the pool of workers and the patience with storage once, to be read at any time.

    Ctrl-C or SIGTERM stops handing out work, kills the actors, and returns with `interrupted` set; a
    second one is not caught. Raises WorkError when no worker can be kept alive at all, StorageFailed (also a
    WorkError) when one of the first workers cannot do what `settings.storage` asks, or when storage has
    failed everybody for `settings.storage_patience`.
    """
    if settings.order == "largest_first":
        jobs = sorted(jobs, key=lambda job: (-job.size_bytes, job.key))
    books = Books(settings.limits)
    summary = books.summary
    started = time.monotonic()

    def note(outcome: Outcome) -> None:
        on_outcome(outcome)
        if progress is not None:
            progress.update(1, done=summary.done, failed=summary.failed)

    with ray_cluster(settings) as ray, stop_request("usual") as stop:
        workers, threads = worker_count(settings, ray)
        summary.workers, summary.threads_per_worker = workers, threads
        worker_settings = WorkerSettings(
            threads, settings.limits, settings.child_env, settings.storage, settings.storage_patience
        )
        pool = WorkerPool(ray, worker_settings, settings.gpus_per_worker)
        patience = Patience(settings.storage_patience)
        if settings.watch is not None:
            settings.watch(pool, patience)
        try:
            dispatch(pool, JobQueue(jobs), books, note, stop, patience)
        finally:
            pool.kill_all()
    summary.interrupted = stop.is_set()
    summary.seconds = time.monotonic() - started
    return summary


def dispatch(
    pool: WorkerPool,
    queue: JobQueue,
    books: Books,
    on_outcome: Callable[[Outcome], None],
    stop: threading.Event,
    patience: Patience,
) -> None:
    """The loop: hand out, wait, settle, until every job has an outcome.

    `pool` may be anything with the methods of a WorkerPool; `make bench-fleet` simulates one.
    """
    waiting = _Waiting()
    while not stop.is_set():
        _hand_out(pool, queue)
        if not queue and not pool.n_busy:
            return
        _top_up(pool, queue, books.summary.workers)
        waiting.report(pool)
        patience.check()
        for event in pool.wait(POLL_SECONDS):
            _note_storage(event, patience)
            _settle(event, queue, books, on_outcome)
        for event in pool.overdue(books.limits.stuck_seconds):
            _settle(event, queue, books, on_outcome)


def _hand_out(pool: WorkerPool, queue: JobQueue) -> None:
    """A job for every worker that has none, as long as there are jobs."""
    while pool.n_idle and (attempt := queue.next()) is not None:
        pool.assign(attempt)


def _top_up(pool: WorkerPool, queue: JobQueue, workers: int) -> None:
    """Start workers, also in place of lost ones, but no more than there are jobs that could use them."""
    # How many the iterator still holds is unknown, so one in sight means all workers.
    wanted = workers if queue.more_to_come else min(workers, pool.n_busy + queue.n_in_sight)
    pool.start(max(0, wanted - pool.n_workers))


def _note_storage(event: Event, patience: Patience) -> None:
    """What an event says of the storage."""
    if isinstance(event, WorkerUnfit):
        why = f"worker on {event.host}: {event.detail}"
        if event.first:
            raise StorageFailed(f"{why}; every worker must be able to read the input and write the output")
        patience.fault(why, "that worker")
    elif isinstance(event, JobAnswered) and event.reply.storage:
        patience.fault(event.reply.detail, "that worker")
    elif isinstance(event, JobAnswered) and event.reply.result is not None:
        patience.worked()


def _settle(event: Event, queue: JobQueue, books: Books, on_outcome: Callable[[Outcome], None]) -> None:
    """Enter an event into the books; its job ends or goes back to the queue."""
    if isinstance(event, JobAnswered):
        verdict = books.judge(event.attempt, event.reply)
    elif isinstance(event, WorkerLost):
        verdict = books.lost(event.attempt, event.detail)
    else:
        return  # workers that start, rest, or fail to start, are the pool's own business
    if isinstance(verdict, Retry):
        queue.requeue(event.attempt, first=verdict.first)
    else:
        on_outcome(verdict)


class _Waiting:
    """Tells the user, again and again, that there is no worker."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def report(self, pool: WorkerPool) -> None:
        """Print a line where no worker has been up for a while."""
        if pool.n_busy or pool.n_idle or pool.n_resting:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > SAY_WAITING_EVERY:
            self._since = time.monotonic()
            print(
                f"waiting for a worker to start; the cluster has {pool.free_cores():g} free cores",
                file=sys.stderr,
            )
