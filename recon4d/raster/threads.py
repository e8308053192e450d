"""Run one kernel on several threads, each taking the next piece of work from a shared counter.

Numba's own layers are avoided on purpose. Its OpenMP layer spins after every parallel region, which on a
shared machine cost 8 ms per region; its workqueue layer aborts the process when two Python threads enter it
at once, which a viewer serving several clients does. Kernels here release the GIL, so plain threads do.

The number of threads is torch's (`torch.set_num_threads`, `OMP_NUM_THREADS`; Ray sets the latter per worker),
unless `alone` gives the kernels one of their own and leaves torch a single thread: torch's team waits for its
members, and where another process keeps one of the cores busy a step of a fit then takes forty times as long.
A helper that wakes on the caller's CPU moves to another one: a kernel often wakes a thread where it was woken
from, and then one of the two waits for the next scheduler tick, which is as long as a whole kernel here (on
two idle cores two threads took as long as one).

Results do not depend on it: pieces are fixed by the problem, write disjoint memory, and sums over pieces are
taken in a fixed order.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from orbit4d.datasets.core.cores import usable_cores

T = TypeVar("T")

_pool: ThreadPoolExecutor | None = None
#: Threads of the kernels where `alone` says so; None is torch's number.
_alone: int | None = None
#: `share`: threads for the kernels that this thread calls, when several tasks divide them up.
_own = threading.local()
#: Number of the CPU that the calling thread is on; None where the system does not tell.
_current_cpu: Callable[[], int] | None = None
if sys.platform == "linux":
    _current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None)


def _forget_pool() -> None:
    """A forked child has the pool's bookkeeping but none of its threads."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def count() -> int:
    """Threads that a kernel called here may use, at least 1."""
    return getattr(_own, "share", None) or _alone or torch.get_num_threads()


@contextmanager
def alone(n: int | None = None) -> Iterator[int]:
    """Within it kernels use `n` threads (None: the cores there are, torch's number at most), torch uses one.

    Yields the number. torch's number is set back at the end.
    """
    global _alone
    before, outer = torch.get_num_threads(), _alone
    _alone = n or min(outer or before, usable_cores())
    torch.set_num_threads(1)
    try:
        yield _alone
    finally:
        _alone = outer
        torch.set_num_threads(before)


def run(kernel: Callable[..., None], pieces: int, *args: Any) -> None:
    """Call `kernel(counter, *args)` on up to `pieces` threads, this one included, and wait for all.

    `counter` is int64 [1]; the kernel draws piece numbers from it (`simd.take_next`) until none is left.
    """
    counter = np.zeros(1, dtype=np.int64)
    helpers = min(count(), pieces) - 1
    if helpers < 1:
        kernel(counter, *args)
        return
    pool, home = _started(helpers), _home()
    futures = [pool.submit(_help, home, kernel, counter, *args) for _ in range(helpers)]
    kernel(counter, *args)
    for future in futures:
        # By now no piece is left; a helper that never got to start has nothing to do.
        if not future.cancel():
            future.result()


def each(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks return, in order; as many at once as there are threads, which divide those of kernels.

    One wake-up a task, where `run` needs one a kernel: for work that falls into few equal parts. The dearest
    should come first, since the caller has other things to do and begins with the last.
    """
    total = count()
    if total < 2 or len(tasks) < 2:
        return [task() for task in tasks]
    share = max(1, total // len(tasks))
    home, pool = _home(), _started(len(tasks) - 1)
    futures: list[Future[T]] = [
        pool.submit(_help, home, _sharing, share, task) for task in tasks[: min(total, len(tasks)) - 1]
    ]
    own = len(futures)
    found: dict[int, T] = {}
    try:
        # The last one here, and then what no helper has begun.
        for i in (*range(len(tasks) - 1, own - 1, -1), *range(own)):
            mine = i >= own or futures[i].cancel()
            found[i] = _sharing(share, tasks[i]) if mine else futures[i].result()
        return [found[i] for i in range(len(tasks))]
    finally:
        # A task that fails leaves none running. (One that was called off is not waited for: no thread may
        # be free to take note of it.)
        wait([future for future in futures if not future.cancel()])


def _started(helpers: int) -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=max(usable_cores(), helpers), thread_name_prefix="rasterize")
    return _pool


def _home() -> tuple[int, int] | None:
    """The CPU that this thread is on, and its number."""
    return (_current_cpu(), threading.get_native_id()) if _current_cpu else None


def _sharing(share: int, task: Callable[[], T]) -> T:
    """Do the task with so many threads for its kernels, and one for torch's matrix products.

    `alone` gives the caller one; a helper has a number of its own, and with another the products would have
    other bits wherever it was a helper that took the task.
    """
    if _alone is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    before = getattr(_own, "share", None)
    _own.share = share
    try:
        return task()
    finally:
        _own.share = before


def _help(home: tuple[int, int] | None, kernel: Callable[..., T], *args: Any) -> T:
    """Run the kernel or task, away from the caller's CPU; `home` is that CPU and the caller's thread."""
    if _current_cpu is not None and home is not None and _current_cpu() == home[0]:
        _leave(*home)
    return kernel(*args)


def _leave(cpu: int, caller: int) -> None:
    """Move this thread to the other CPUs that `caller` may use; where there is none, stay."""
    try:
        others = os.sched_getaffinity(caller) - {cpu}
        if others:
            os.sched_setaffinity(0, others)
    except OSError:
        # A CPU was taken away, or a sandbox forbids it: slower, not wrong.
        return
