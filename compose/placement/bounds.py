"""A change of scale or place that cannot leave its bounds (C3V, arXiv 2409.00558, equations 6 and 7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from orbit4d.model.distill.bounds import bounded as change


def bounded(raw: Any, tau: float, base: Any = 0.0) -> Any:
    """base + tau (sigmoid(raw) - 1/2): within tau / 2 of `base`, `base` itself where raw is 0.

    raw and base are numbers, arrays or tensors that broadcast; numpy comes back as float64. ValueError for a
    tau that is not positive.
    """
    import torch

    if isinstance(raw, torch.Tensor):
        return base + change(raw, tau)
    found = change(torch.as_tensor(np.asarray(raw, np.float64)), tau).numpy()
    return np.asarray(base, np.float64) + found
