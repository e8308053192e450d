"""Run one kernel on several threads, each taking the next piece of work from a shared counter.

Numba's own layers are avoided on purpose. Its OpenMP layer spins after every parallel region, which on a
shared machine cost 8 ms per region; its workqueue layer aborts the process when two Python threads enter it
at once, which a viewer serving several clients does. Kernels here release the GIL, so plain threads do.

The number of threads is torch's (`torch.set_num_threads`, `OMP_NUM_THREADS`; Ray sets the latter per worker).
Results do not depend on it: pieces are fixed by the problem, write disjoint memory, and sums over pieces are
taken in a fixed order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

_pool: ThreadPoolExecutor | None = None


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
        _pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 2)), thread_name_prefix="rasterize")
    futures = [_pool.submit(kernel, counter, *args) for _ in range(helpers)]
    kernel(counter, *args)
    for future in futures:
        # By now no piece is left; a helper that never got to start has nothing to do.
        if not future.cancel():
            future.result()
