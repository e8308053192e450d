"""A stand-in for CUDA graphs on the CPU: what runs is recorded kernel by kernel, and replayed on the same
memory without Python.

As on a device, recording reads nothing back and copies nothing from elsewhere (a `.item()` is refused), a
replay sees only what stands at the recorded addresses, and random kernels draw from the generator again.
Unlike on a device, recording does run each kernel; what it wrote is put back, so that nothing has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

#: Kernels that hand a number to Python, which a device in recording refuses.
_READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[tuple[int, Tensor]]]] = []
        self.written: dict[int, tuple[Tensor, Tensor]] = {}
        self.born: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name.rstrip("_") in _READS or name in _READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if func._schema.is_mutable:
            for argument, given in zip(func._schema.arguments, args):
                written = argument.alias_info is not None and argument.alias_info.is_write
                for tensor in tree_flatten(given)[0] if written else ():
                    self._keep(tensor)
        out = func(*args, **kwargs)
        given, new = _memory((args, kwargs)), []
        for index, tensor in enumerate(_leaves(out)):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in given:
                self.born.add(key)
                new.append((index, tensor.detach()))
        # What a replay needs is unpacked here, once: memory and places stay those of the recording.
        self.calls.append((func, tree_map(_plain, args), tree_map(_plain, kwargs), new))
        return out

    def _keep(self, tensor: Any) -> None:
        """What stood there before the recording, once per memory that is older than it."""
        if not isinstance(tensor, Tensor):
            return
        key = tensor.untyped_storage()._cdata
        if key not in self.born and key not in self.written:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            self.written[key] = whole, whole.clone()


def _memory(arguments: Any) -> set[int]:
    return {t.untyped_storage()._cdata for t in tree_flatten(arguments)[0] if isinstance(t, Tensor)}


def _leaves(value: Any) -> Any:
    return (value,) if isinstance(value, Tensor) else tree_flatten(value)[0]


class TapeRecorder:
    """A `graphs.Recorder` on the CPU."""

    def __init__(self) -> None:
        self.warmed = self.recorded = self.replayed = 0

    def warm(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        self.warmed += 1
        return work()

    def record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
        tape = _Tape()
        try:
            with tape:
                results = work()
        finally:
            with torch.no_grad():
                for tensor, before in tape.written.values():
                    tensor.copy_(before)
        self.recorded += 1

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for func, args, kwargs, new in tape.calls:
                again = func(*args, **kwargs)
                if new:
                    leaves = _leaves(again)
                    for index, old in new:
                        old.copy_(leaves[index])

        return replay, results

    def random_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_random_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
