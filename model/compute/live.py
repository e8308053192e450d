"""The most bytes that a pass without a graph holds at one time, counted on the meta device.

Each storage that an operation makes counts until nothing refers to it, as a caching allocator would see it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from orbit4d.model.compute.saved import as_on_a_gpu


class Live(TorchDispatchMode):
    """Counts what operations make inside: `now` and `peak` bytes. What was there before is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in before:
                self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: Any) -> None:
        reference = weakref.ref(storage, self._release)
        if reference in self._held:
            return
        self._held[reference] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _release(self, reference: Any) -> None:
        self.now -= self._held.pop(reference, 0)


@torch.no_grad()
def peak_of(run: Callable[[], Any]) -> int:
    """Bytes at the peak of `run()`, whose networks and inputs are on the meta device."""
    with as_on_a_gpu(), Live() as live:
        result = run()
    del result
    return live.peak
