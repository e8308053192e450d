"""Steps that are recorded once and launched as one: CUDA graphs of a function of tensors.

    step = Graphs(work, CudaRecorder(device))
    losses = step({"noisy": ..., "t": ...})    # the first time of its shapes: run; the second: recorded

A small network, or one clip of a large one, keeps a GPU busy for half of a step: the other half it waits for
some thousand launches. A graph launches all of them at once. What is recorded are kernels and addresses, so
`work` must be a function of its tensors alone (no number read back, nothing copied from the host), and what
it adds to (gradients) must stay where it is.

Shapes that come once are never recorded. A recording is compared with a plain run once, so that a step that
cannot be recorded faithfully ends in one line and not in other weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import WorkError

Tensors = Mapping[str, Tensor]
Work = Callable[[Tensors], dict[str, Tensor]]
#: What a recorded loss may differ by from the same one run plainly: less than any loss that was computed from
#: another batch or left out, more than kernels that add up in no fixed order, and dropout, come to.
_TOLERANCE = 0.02


class Recorder(Protocol):
    """What a device offers to record."""

    def warm(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run `work` for real, as it will be recorded."""
        ...

    def record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
        """Record `work` without running it: (replay, the tensors its results will stand in)."""
        ...

    def random_state(self) -> Tensor:
        """State of the device's generator."""
        ...

    def set_random_state(self, state: Tensor) -> None:
        """Put it back."""
        ...


class CudaRecorder:
    """CUDA graphs on one device; all of them share one pool of memory, since none runs beside another."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = work()
        current.wait_stream(self._stream)
        for value in results.values():
            value.record_stream(current)
        return results

    def record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        gc.collect()
        # What the plain run left in the allocator's cache is not open to the graph's own pool.
        torch.cuda.empty_cache()
        # "thread_local": the loader's thread that pins memory may call CUDA meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            results = work()
        return graph.replay, results

    def random_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device)

    def set_random_state(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self.device)


class Graphs:
    """`work`, recorded for each set of shapes that comes again.

    check: what a recording is compared with, `work` without its effects (no gradients); None: nothing.
    required: a step that cannot be recorded is a WorkError; otherwise it runs plainly, and why is printed.
    """

    def __init__(
        self, work: Work, recorder: Recorder, check: Work | None = None, required: bool = False
    ) -> None:
        self.work, self.recorder, self.check, self.required = work, recorder, check, required
        self.refused = ""
        """Why nothing is recorded any more."""
        self._seen: set[Hashable] = set()
        self._recorded: dict[Hashable, tuple[Tensors, Callable[[], None], dict[str, Tensor]]] = {}

    @property
    def count(self) -> int:
        """How many sets of shapes are recorded."""
        return len(self._recorded)

    def __call__(self, inputs: Tensors) -> dict[str, Tensor]:
        """Results of `work`; tensors of their own, which the next call leaves alone."""
        if self.refused:
            return self.work(inputs)
        shapes = signature(inputs)
        if shapes in self._recorded:
            given, replay, results = self._recorded[shapes]
            for name, value in inputs.items():
                given[name].copy_(value)
            replay()
            return {name: value.clone() for name, value in results.items()}
        if shapes not in self._seen:
            self._seen.add(shapes)
            return self.recorder.warm(lambda: self.work(inputs))
        return self._first_replay(shapes, inputs)

    def _first_replay(self, shapes: Hashable, inputs: Tensors) -> dict[str, Tensor]:
        given = {name: value.clone() for name, value in inputs.items()}
        before = self.recorder.random_state()
        try:
            replay, results = self.recorder.record(lambda: self.work(given))
        except RuntimeError as error:
            if self.required:
                raise WorkError(f"optim.graphs=on: the step cannot be recorded ({_line(error)})") from error
            self.refused = _line(error)
            print(f"note: the step cannot be recorded as a CUDA graph, and runs plainly: {self.refused}")
            self.recorder.set_random_state(before)
            return self.work(inputs)
        self.recorder.set_random_state(before)
        replay()
        self._recorded[shapes] = given, replay, results
        found = {name: value.clone() for name, value in results.items()}
        if self.check is not None:
            after = self.recorder.random_state()
            self.recorder.set_random_state(before)
            _held_against(self.check(inputs), found)
            self.recorder.set_random_state(after)
        return found


def signature(inputs: Tensors) -> Hashable:
    """What one recording serves: names, shapes and kinds."""
    return tuple((name, tuple(value.shape), value.dtype) for name, value in sorted(inputs.items()))


def _held_against(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        ours, plain = found[name].float(), value.float()
        if not torch.allclose(ours, plain, rtol=_TOLERANCE, atol=1e-6, equal_nan=True):
            raise WorkError(
                f"the recorded step gives {name} {_said(ours)} where a plain one gives {_said(plain)}: "
                "continue with --set optim.graphs=off"
            )


def _said(value: Tensor) -> Any:
    return f"{float(value):.6g}" if value.numel() == 1 else f"of another {tuple(value.shape)}"


def _line(error: RuntimeError) -> str:
    return str(error).strip().split("\n")[0]
