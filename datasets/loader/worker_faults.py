"""What befalls loader workers outside of our code, in one line with the fix.

A container gives /dev/shm 64 MiB unless asked otherwise; batches pass through it from the workers to the
training process. PyTorch's and Python's own errors name a temporary file, a signal or a number.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from orbit4d.datasets.core.errors import OrbitError, WorkError

_SHARED_MEMORY = (
    "unable to allocate shared memory",
    "unable to write to file </torch",
    "unable to mmap",
    "unable to resize file </torch",
    "out of shared memory",
    "bus error",
)
_HANDLES = ("too many open files", "received 0 items of ancdata", "unable to open shared memory object")
_KILLED = ("is killed by signal", "exited unexpectedly")


@contextmanager
def worker_faults(workers: int, setting: str = "num_workers") -> Iterator[None]:
    """WorkError for shared memory, file handles or memory that `workers` loader processes have used up.

    `setting` is what the reader calls their number, say `--set data.workers`. An error of ours that a worker
    raised comes back as the one line it was, without the worker's traceback. Other errors pass.
    """
    try:
        yield
    except OrbitError as error:
        text = str(error).strip()
        if not text.startswith("Caught "):
            raise
        raise type(error)(text.splitlines()[-1].split(": ", 1)[-1]) from error
    except (RuntimeError, OSError) as error:
        line = _line(str(error).lower(), workers, setting) if workers else None
        if line is None:
            raise
        raise WorkError(line) from error


def _line(text: str, workers: int, setting: str) -> str | None:
    fewer = f"{setting}=0 (now {workers})"
    # The driver's own semaphores lie there too; a worker's disk may be full for other reasons.
    full = "no space left on device" in text and not text.startswith("caught ")
    if full or any(words in text for words in _SHARED_MEMORY):
        return (
            f"the loader workers have used up shared memory ({_shared_memory()}): give {fewer}, or a larger "
            "/dev/shm (docker run --shm-size=8g, mount -o remount,size=8g /dev/shm), or smaller batches"
        )
    if any(words in text for words in _HANDLES):
        return (
            "the loader workers have used up this process's file handles: call "
            "torch.multiprocessing.set_sharing_strategy('file_system') before the loader is made, raise "
            f"`ulimit -n`, or give {fewer}"
        )
    if any(words in text for words in _KILLED):
        return (
            "a loader worker was killed by the system, which does so when memory runs out: give fewer "
            f"workers ({setting}, now {workers}) or smaller batches"
        )
    return None


def _shared_memory() -> str:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return "/dev/shm"
    return f"/dev/shm has {usage.total / 2**20:.1f} MiB, {usage.free / 2**20:.1f} MiB of it free"
