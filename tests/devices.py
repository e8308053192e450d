"""Tests run on the CPU, also where there is a GPU; those marked `gpu` see it.

What a test promises of bits holds on a CPU alone (docs/promises/resume.md), and stubs make CPU tensors. What
a test starts in another process sees no GPU either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any

import pytest

_VARIABLE = "CUDA_VISIBLE_DEVICES"


class Hidden:
    """Plugin: hides GPUs from the end of the collection on, where `skipif` has asked for them."""

    def __init__(self) -> None:
        self._before: tuple[str | None, Any] | None = None

    def pytest_collection_finish(self) -> None:
        self.hide()

    def pytest_unconfigure(self) -> None:
        self.show()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        seen = item.get_closest_marker("gpu") is not None
        if seen:
            self.show()
        try:
            return (yield)
        finally:
            if seen:
                self.hide()

    def hide(self) -> None:
        """No GPU, for this process and those it starts."""
        if self._before is not None:
            return
        torch = sys.modules.get("torch")
        self._before = os.environ.get(_VARIABLE), torch.cuda.is_available if torch else None
        os.environ[_VARIABLE] = ""
        if torch:
            torch.cuda.is_available = lambda: False
        _forget_device()

    def show(self) -> None:
        """What there is."""
        if self._before is None:
            return
        variable, available = self._before
        os.environ.pop(_VARIABLE)
        if variable is not None:
            os.environ[_VARIABLE] = variable
        if available is not None:
            sys.modules["torch"].cuda.is_available = available
        self._before = None
        _forget_device()


def _forget_device() -> None:
    """accelerate keeps the device of its first use for the process."""
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)
