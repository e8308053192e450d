"""Run one kernel on several threads, each taking the next piece of work from a shared counter.

Numba's own layers are avoided on purpose. Its OpenMP layer spins after every parallel region, which on a
shared machine cost 8 ms per region; its workqueue layer aborts the process when two Python threads enter it
at once, which a viewer serving several clients does. Kernels here release the GIL, so plain threads do.

The number of threads is torch's (`torch.set_num_threads`, `OMP_NUM_THREADS`; Ray sets the latter per worker).
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from orbit4d.datasets.core.cores import usable_cores

_pool: ThreadPoolExecutor | None = None
#: Number of the CPU that the calling thread is on; None where the system does not tell.
_current_cpu: Callable[[], int] | None = None
if sys.platform == "linux":
    _current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None)


def _forget_pool() -> None:
    """A forked child has the pool's bookkeeping but none of its threads."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def run(kernel: Callable[..., None], pieces: int, *args: Any) -> None:
    """Call `kernel(counter, *args)` on up to `pieces` threads, this one included, and wait for all.

    `counter` is int64 [1]; the kernel draws piece numbers from it (`simd.take_next`) until none is left.
    """
    global _pool
    counter = np.zeros(1, dtype=np.int64)
    helpers = min(torch.get_num_threads(), pieces) - 1
    if helpers < 1:
        kernel(counter, *args)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=max(usable_cores(), helpers), thread_name_prefix="rasterize")
    home = (_current_cpu(), threading.get_native_id()) if _current_cpu else None
    futures = [_pool.submit(_help, home, kernel, counter, *args) for _ in range(helpers)]
    kernel(counter, *args)
    for future in futures:
        # By now no piece is left; a helper that never got to start has nothing to do.
        if not future.cancel():
            future.result()


def _help(home: tuple[int, int] | None, kernel: Callable[..., None], *args: Any) -> None:
    """Run the kernel, away from the caller's CPU; `home` is that CPU and the caller's thread."""
    if _current_cpu is not None and home is not None and _current_cpu() == home[0]:
        _leave(*home)
    kernel(*args)


def _leave(cpu: int, caller: int) -> None:
    """Move this thread to the other CPUs that `caller` may use; where there is none, stay."""
    try:
        others = os.sched_getaffinity(caller) - {cpu}
        if others:
            os.sched_setaffinity(0, others)
    except OSError:
        # A CPU was taken away, or a sandbox forbids it: slower, not wrong.
        return
