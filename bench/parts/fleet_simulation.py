"""A fleet and an object store that are simulated around the real driver: queue, accounts, commits, patience.

Workers are entries of a heap that answer after their time; the store keeps bytes in memory behind a latency
for each request and fails some of them, which its client tries again, as S3's does.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from fsspec import AbstractFileSystem, register_implementation

from orbit4d.datasets.core import storage
from orbit4d.datasets.store.writer import DatasetWriter, Rolled
from orbit4d.render.fleet.pool import Event, JobAnswered
from orbit4d.render.fleet.queue import Attempt
from orbit4d.render.fleet.worker import Reply

#: Tries of the simulated client, as of S3's.
TRIES = 5
#: Requests that one driver has on their way (`CONCURRENT_READS`).
AT_ONCE = 32


class SimulatedStore(AbstractFileSystem):
    """`sim://…`: files in this process. Bytes of shards are counted and not kept."""

    protocol = "sim"
    files: ClassVar[dict[str, bytes]] = {}
    sizes: ClassVar[dict[str, int]] = {}
    latency = 0.0
    fail_every = 0
    requests: ClassVar[Counter[str]] = Counter()
    moved: ClassVar[Counter[str]] = Counter()
    _count = itertools.count(1)

    @classmethod
    def clear(cls, latency: float, fail_every: int) -> None:
        """Empty, with this weather."""
        cls.files, cls.sizes, cls.requests, cls.moved = {}, {}, Counter(), Counter()
        cls.latency, cls.fail_every = latency, fail_every

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("sim://").strip("/")

    @classmethod
    def wait(cls, kind: str, times: int = 1) -> None:
        """Make a request: wait for it, again where it fails."""
        for _ in range(times):
            for tries in range(TRIES):
                cls.requests[kind] += 1
                if cls.latency:
                    time.sleep(cls.latency)
                if not cls.fail_every or next(cls._count) % cls.fail_every:
                    break
                time.sleep(min(0.05 * 2**tries, 1.0) if cls.latency else 0.0)
            else:
                raise OSError(errno.EBUSY, "SlowDown")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self.wait("put")
        path = self._strip_protocol(path)
        if mode == "create" and path in self.sizes:
            raise FileExistsError(path)
        self.moved["put"] += len(value)
        self.files[path], self.sizes[path] = bytes(value), len(value)

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        with open(lpath, "rb") as file:
            size = len(file.read())
        self.wait("put")
        self.moved["put"] += size
        self.sizes[self._strip_protocol(rpath)] = size

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        self.wait("get")
        data = self.files.get(self._strip_protocol(path))
        if data is None:
            raise FileNotFoundError(path)
        self.moved["get"] += len(data[start:end])
        return data[start:end]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        self.wait("head")
        path = self._strip_protocol(path)
        if path not in self.sizes:
            raise FileNotFoundError(path)
        return {"name": path, "size": self.sizes[path], "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        prefix = f"{self._strip_protocol(path)}/"
        names = [n for n in list(self.sizes) if n.startswith(prefix) and "/" not in n[len(prefix) :]]
        self.wait("list", 1 + len(names) // 1000)
        return [{"name": n, "size": self.sizes.get(n, 0), "type": "file"} for n in names] if detail else names

    def rm(self, path: Any, **_: Any) -> None:
        names = [path] if isinstance(path, str) else path
        self.wait("delete", -(-len(names) // 1000))
        for name in map(self._strip_protocol, names):
            self.files.pop(name, None)
            self.sizes.pop(name, None)

    rm_file = rm

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        import io

        return io.BytesIO(self.cat_file(path))


register_implementation("sim", SimulatedStore, clobber=True)
storage._BATCHES |= {"sim"}  # it deletes many files by one request


class SimulatedPool:
    """Stands in the place of a WorkerPool: `n` workers that take `seconds` for a job and then store it."""

    n_resting = 0

    def __init__(self, seconds: float, finish: Callable[[Attempt], Reply], threads: int = AT_ONCE) -> None:
        self.seconds, self._finish = seconds, finish
        self._due: list[tuple[float, int, Attempt]] = []
        self._idle_since: list[float] = []
        self._order = itertools.count()
        self._ready: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(threads)
        self._storing = 0
        self.idle_seconds = 0.0

    @property
    def n_idle(self) -> int:
        return len(self._idle_since)

    @property
    def n_busy(self) -> int:
        return len(self._due) + self._storing

    @property
    def n_workers(self) -> int:
        return self.n_idle + self.n_busy

    def start(self, n: int) -> None:
        self._idle_since += [time.monotonic()] * n

    def assign(self, attempt: Attempt) -> None:
        now = time.monotonic()
        self.idle_seconds += now - self._idle_since.pop(0)
        heapq.heappush(self._due, (now + self.seconds, next(self._order), attempt))

    def wait(self, timeout_s: float) -> list[Event]:
        """Everything that is ready, at the latest after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                attempt = heapq.heappop(self._due)[2]
                self._storing += 1
                self._threads.submit(self._store, attempt)
            events: list[Event] = []
            pause = min(until, self._due[0][0] if self._due else until) - now
            try:
                events.append(self._ready.get(timeout=max(0.0, pause)))
                while True:
                    events.append(self._ready.get_nowait())
            except queue.Empty:
                pass
            if events or time.monotonic() >= until:
                self._storing -= len(events)
                self._idle_since += [time.monotonic()] * len(events)
                return events

    def _store(self, attempt: Attempt) -> None:
        try:
            reply = self._finish(attempt)
        except Exception as error:
            reply = Reply(reason="storage", detail=str(error), retry=True, storage=True)
        self._ready.put(JobAnswered(attempt, reply))

    def overdue(self, limit_s: float) -> Iterator[Event]:
        return iter(())

    def free_cores(self) -> float:
        return 0.0

    def kill_all(self) -> None:
        self._threads.shutdown(cancel_futures=True)


class SampledWriter(DatasetWriter):
    """Commits one group of `share`; of the others it makes the requests alone, and notes the assets."""

    share = 1
    stage_group: Callable[[Any], None] = staticmethod(lambda group: None)
    committed_seconds = 0.0
    n_groups = n_committed = n_assets = 0

    def commit(self, group: Any, rolled: Rolled | None = None) -> Rolled:
        """See the class."""
        with self._lock:
            self.n_groups += 1
            real = self.share == 1 or self.n_groups % self.share == 1
        if real:
            self.stage_group(group)
            began = time.thread_time()
            done = super().commit(group, rolled)
            with self._lock:
                self.committed_seconds += time.thread_time() - began
                self.n_committed += 1
                self.n_assets += len(group)
            return done
        SimulatedStore.wait("get", -(-2 * len(group) // AT_ONCE))
        SimulatedStore.requests["get"] += 2 * len(group) - -(-2 * len(group) // AT_ONCE)
        SimulatedStore.wait("put", 3)
        SimulatedStore.wait("list", 4)
        SimulatedStore.wait("delete")
        with self._lock:
            self.contents().update((staged.uid, "0" * 64) for staged in group)
        return rolled or Rolled()


class Watch(threading.Thread):
    """Looks at the memory of this process, once a second, less what the simulated store holds."""

    def __init__(self) -> None:
        import psutil

        super().__init__(daemon=True)
        self._process, self._ended = psutil.Process(), threading.Event()
        self.start_bytes = self._now()
        self.most_bytes = 0
        self.start()

    def _now(self) -> int:
        held = sum(map(len, list(SimulatedStore.files.values())))
        return int(self._process.memory_info().rss) - held

    def run(self) -> None:
        while not self._ended.wait(1.0):
            self.most_bytes = max(self.most_bytes, self._now() - self.start_bytes)

    def end(self) -> int:
        """Most bytes by which the process grew."""
        self._ended.set()
        self.join()
        return max(self.most_bytes, self._now() - self.start_bytes)
