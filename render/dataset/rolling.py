"""Commits that run beside the dispatch of work: staged assets into shards, by a few threads.

Which assets are staged is known from the workers' answers: staging is listed once, when a run begins.
Storage that fails is waited for, as the fleet does; what cannot be committed in the end stays staged for the
next run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from orbit4d.datasets.store.parts import MERGE_AT
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.staging import Staged
from orbit4d.datasets.store.writer import DatasetWriter, Rolled
from orbit4d.render.fleet.patience import Patience

#: Shards in the making at a time. Each holds up to CONCURRENT_READS staged tars in memory.
THREADS = 4


class Roller:
    """Takes note of staged assets, and commits each group that fills a shard. Used by one thread."""

    def __init__(self, writer: DatasetWriter, patience: Patience, threads: int = THREADS) -> None:
        self.writer, self.patience = writer, patience
        self.rolled = Rolled()
        self._group: list[Staged] = []
        self._bytes = 0
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="roll")
        # Rejections and merges go one after the other: each lists what is there first.
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="clerk")
        self._running: list[Future[Any]] = []
        self._parts = 0

    def add(self, staged: Staged) -> None:
        """Take note of a staged asset. Raises what made an earlier commit fail for good."""
        self.check()
        self._group.append(staged)
        self._bytes += staged.tar_bytes
        if self._bytes >= self.writer.shard_bytes:
            group, self._group, self._bytes = self._group, [], 0
            self._submit(self._pool, lambda: self._commit(group))
            self._parts += 1
            if self._parts % MERGE_AT == 0:
                self._submit(self._clerk, self.writer.merge_parts)

    def reject(self, rows: Sequence[Rejection]) -> None:
        """Record rejections, in their turn."""
        self.check()
        if rows:
            self._submit(self._clerk, lambda: self.writer.reject(rows))

    def check(self) -> None:
        """Raise what a finished commit failed with."""
        running, self._running = self._running, []
        for future in running:
            if future.done():
                future.result()
            else:
                self._running.append(future)

    def finish(self) -> None:
        """Wait for all commits that run, and roll the rest. Raises what one of them failed with."""
        self.drain()
        self.patience.retry(lambda: self.writer.roll(final=True), self._stop)

    def drain(self) -> None:
        """Wait for what was begun. Raises what it failed with."""
        running, self._running = self._running, []
        for future in running:
            future.result()

    def close(self, abandon: bool = False) -> None:
        """End the threads; with `abandon` what has not begun stays staged, and nothing waits for storage."""
        if abandon:
            self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=abandon)
        self._clerk.shutdown(wait=True)

    def _commit(self, group: list[Staged]) -> None:
        # After a try that failed in the middle they may be committed, and only not deleted.
        known = self.writer.contents()
        left = [staged for staged in group if staged.uid not in known]
        if left:
            self.rolled.damaged += self.writer.commit(left).damaged

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[], Any]) -> None:
        def patiently() -> Any:
            return self.patience.retry(work, self._stop)

        self._running.append(pool.submit(patiently))
