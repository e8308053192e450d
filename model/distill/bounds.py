"""A change that cannot leave its bounds, as C3V refines scale and place."""

from __future__ import annotations

import torch
from torch import Tensor


def bounded(hat: Tensor, tau: float) -> Tensor:
    """tau sigmoid(hat) - tau / 2: a change in [-tau / 2, tau / 2], 0 where `hat` is 0, like `hat`.

    Add it as one number: `s + bounded(hat, tau)` leaves s to the bit at hat 0. Its slope there is tau / 4.
    Any float is taken, infinities too. ValueError for a tau that is not positive.
    """
    if not 0 < tau < float("inf"):
        raise ValueError(f"tau: needs a positive number, got {tau}")
    return (tau * torch.sigmoid(hat) - tau / 2).clamp(-tau / 2, tau / 2)
