"""Which epoch a sample is loaded for, known to every dataset behind whatever wraps it.

`OrbitLoader` sends the epoch along with the indices of each batch, into loader workers too, and it holds
while that batch is loaded. So a dataset inside a `Subset`, a `ConcatDataset` or a wrapper of the user's draws
what belongs to the epoch, though the loader cannot reach it, and workers that are kept alive follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch.utils.data import Dataset, get_worker_info

_loading: ContextVar[int | None] = ContextVar("orbit4d_epoch", default=None)
#: In a loader worker, for threads that a wrapper starts there: they do not inherit context variables.
_of_worker: int | None = None


def loading_epoch() -> int | None:
    """The epoch that the running `OrbitLoader` loads a batch of; None outside of one."""
    epoch = _loading.get()
    return _of_worker if epoch is None else epoch


@contextmanager
def loading(epoch: int) -> Iterator[None]:
    """Make `epoch` the one that samples are loaded for while the body runs."""
    global _of_worker
    if get_worker_info() is not None:
        _of_worker = epoch
    token = _loading.set(epoch)
    try:
        yield
    finally:
        _loading.reset(token)


class EpochDataset(Dataset[Any]):
    """A map-style dataset whose indices are (epoch, index); everything else is the wrapped dataset's own."""

    def __init__(self, dataset: Any) -> None:
        self.wrapped = dataset

    def __getattr__(self, name: str) -> Any:
        # Not while being unpickled, when nothing is wrapped yet.
        if name == "wrapped" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getitem__(self, key: tuple[int, Any]) -> Any:
        with loading(key[0]):
            return self.wrapped[key[1]]

    def __getitems__(self, keys: Sequence[tuple[int, Any]]) -> list[Any]:
        """All samples of a batch, by the wrapped dataset's own `__getitems__` where it has one."""
        if not keys:
            return []
        with loading(keys[0][0]):
            whole = getattr(self.wrapped, "__getitems__", None)
            indices = [index for _, index in keys]
            return whole(indices) if callable(whole) else [self.wrapped[index] for index in indices]
