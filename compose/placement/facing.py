"""Which way an actor faces along its path, in closed form (C3V, arXiv 2409.00558, equation 8).

The rotation that turns f to d the short way is R = I + [k] + [k]² / (1 + f·d) with k = f × d. Taken as d × f,
as the paper prints it, the same formula gives the transpose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Length of a step below which it says nothing.
STILL = 1e-9
#: 1 - |cosine| below which two directions are one, or opposite.
_ALIGNED = 1e-12
_UP = np.array([0.0, 0.0, 1.0])


def face(points: Any, forward: Any = (0.0, -1.0, 0.0), yaw_only: bool = True) -> Any:
    """Rotations [N, 3, 3] that turn `forward` along the step from each point to the next.

    points [N, 3]; forward [3], any length above 0. The last point repeats. A step shorter than 1e-9 keeps
    the rotation before; leading ones take the first that is defined; without any all are the identity.
    Opposite to forward it is half a turn about up. `yaw_only` leaves the height of steps out, so that slopes
    do not pitch a body and a vertical step keeps the last rotation. numpy or torch, whose kind comes back.
    ValueError for a forward of length 0.
    """
    given = points
    places = _numpy(points).astype(np.float64)
    f = np.asarray(_numpy(forward), np.float64)
    size = np.linalg.norm(f)
    if not size > 0:
        raise ValueError("face: forward has no direction")
    f = f / size
    steps = np.diff(places, axis=0)
    if yaw_only:
        steps = steps * [1.0, 1.0, 0.0]
    found: list[Floats | None] = []
    for step in steps:
        length = np.linalg.norm(step)
        found.append(turn(f, step / length) if length >= STILL else found[-1] if found else None)
    first = next((r for r in found if r is not None), np.eye(3))
    rows = [first if r is None else r for r in found]
    rows.append(rows[-1] if rows else np.eye(3))
    return _like(given, np.stack(rows[: max(len(places), 1)])[: len(places)])


def turn(f: Floats, d: Floats) -> Floats:
    """[3, 3] the rotation that turns unit f to unit d the short way."""
    c = float(f @ d)
    if c > 1 - _ALIGNED:
        return np.eye(3)
    if c < -1 + _ALIGNED:
        axis = _UP - (_UP @ f) * f
        if np.linalg.norm(axis) < 1e-6:
            axis = np.array([1.0, 0.0, 0.0]) - f[0] * f
        axis = axis / np.linalg.norm(axis)
        return 2.0 * np.outer(axis, axis) - np.eye(3)
    x, y, z = np.cross(f, d)
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + k + k @ k / (1.0 + c)


def _numpy(a: Any) -> npt.NDArray[Any]:
    return a.detach().cpu().numpy() if hasattr(a, "detach") else np.asarray(a)


def _like(given: Any, found: Floats) -> Any:
    if hasattr(given, "detach"):
        import torch

        return torch.from_numpy(found).to(given)
    kind = np.asarray(given).dtype
    return found.astype(kind) if kind.kind == "f" else found
