"""What tests of guided sampling share: reference tensors, a warp of a few values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def reference(shared: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """Arrays of a file of ../shared/fixtures/nvs_solver; the test is skipped where it is not there."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(shared / "fixtures" / "nvs_solver" / f"{name}.npz") as arrays:
            return dict(arrays)

    return read


@pytest.fixture
def known() -> tuple[torch.Tensor, torch.Tensor]:
    """A warp of three values of eight, and where it is seen."""
    warp = torch.zeros(1, 1, 4, 1, 2, dtype=torch.float64)
    warp[0, 0, 0, 0] = torch.tensor([1.0, -0.5], dtype=torch.float64)
    warp[0, 0, 1, 0, 0] = 0.8
    seen = torch.zeros(1, 1, 4, 1, 2, dtype=torch.bool)
    seen[0, 0, 0] = True
    seen[0, 0, 1, 0, 0] = True
    return warp, seen
