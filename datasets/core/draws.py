"""Random streams that belong to an asset and a purpose alone."""

from __future__ import annotations

import hashlib

import numpy as np


def rng(seed: int, uid: str, purpose: str) -> np.random.Generator:
    """The asset's own random stream for one purpose: neither order nor other settings disturb it."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{uid}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
