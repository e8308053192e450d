"""Functions recorded as CUDA graphs, again whenever the shapes of their arguments change.

A step of a fit is some seven hundred small kernels, and launching them takes five times as long as they run.
A graph launches them at once. It holds for one set of shapes and for the memory that it was recorded with:
density control changes both, so a function is recorded again when its arguments' shapes differ, and whoever
moves parameters (`state.replace_gaussians`) drops the `Graphs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Records a function or module for sample arguments, and returns one that replays it, with its gradient.
Capture = Callable[[Any, tuple[Tensor, ...]], Callable[..., Any]]


def cuda_capture(function: Any, samples: tuple[Tensor, ...]) -> Callable[..., Any]:
    """`torch.cuda.make_graphed_callables`; parameters of a module may go without a gradient."""
    return torch.cuda.make_graphed_callables(function, samples, allow_unused_input=True)


class Graphs:
    """Recorded functions by name."""

    def __init__(self, capture: Capture = cuda_capture) -> None:
        self.capture = capture
        self._held: dict[str, tuple[Any, Callable[..., Any]]] = {}
        self.recorded = 0
        """How often a function was recorded."""

    def __call__(self, name: str, make: Callable[[], Any], *args: Tensor) -> Any:
        """What `make()(*args)` returns, replayed where `name` was last recorded with such arguments.

        `make` gives the function, or a module of its own for each recording, which changes it. It must read
        nothing from the device and depend on tensors alone: `args`, a module's parameters, and buffers that
        stay where they are. What it returned before is overwritten.
        """
        key = tuple((tuple(t.shape), t.dtype, t.device, t.requires_grad) for t in args)
        held = self._held.get(name)
        if held is None or held[0] != key:
            # The old one first: its memory is free for the new.
            self._held.pop(name, None)
            samples = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in args)
            held = self._held[name] = (key, self.capture(make(), samples))
            self.recorded += 1
        return held[1](*args)
