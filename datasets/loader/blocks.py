"""Memory of planes that are no longer used, handed out again.

A clip of 24 frames of 256x256 takes 25 MB of float planes. Fresh from the system each page of it is cleared
and faulted in first, which took 1.8 ms a clip (2.9 of 6.3 ms for one of 128x128); where the allocator gives
such blocks back at once, every clip pays. Blocks kept here are handed to the next clip of the same size.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

#: Of unused blocks of one size, per process.
KEEP_BYTES = 128 << 20
#: Sizes that are remembered: planes and alphas of a few kinds of clips.
_KEEP_SIZES = 8


class _Owner:
    """Holds a block for as long as any array or tensor looks at it; then puts it back.

    numpy makes the object that gave the memory, and not an array in between, the base of every view.
    """

    __slots__ = ("__array_interface__", "_block", "_free")

    def __init__(self, block: npt.NDArray[np.float32], shape: tuple[int, ...], free: deque[Any]) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = {
            "data": (block.ctypes.data, False),
            "shape": shape,
            "typestr": block.dtype.str,
            "version": 3,
        }

    def __del__(self) -> None:
        # A deque takes it without a lock, so this may run at any moment in any thread; a full one drops
        # its oldest block.
        self._free.append(self._block)


class Blocks:
    """Float32 arrays out of blocks that are used again once nothing looks at them. Safe for many threads."""

    def __init__(self, keep_bytes: int = KEEP_BYTES) -> None:
        self.keep_bytes = keep_bytes
        self._free: dict[int, deque[npt.NDArray[np.float32]]] = {}

    def empty(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array of any content, as numpy.empty gives."""
        size = math.prod(shape)
        if size == 0:
            return np.empty(shape, np.float32)
        free = self._free.get(size)
        if free is None:
            while len(self._free) >= _KEEP_SIZES:
                self._free.pop(next(iter(self._free), size), None)
            free = self._free.setdefault(size, deque(maxlen=self.keep_bytes // (4 * size)))
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(size, np.float32)
        return np.asarray(_Owner(block, shape, free))
