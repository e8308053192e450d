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


def capped(turns: Floats, points: Floats, speed: float, most: float = np.pi) -> Floats:
    """Turns [N, 3, 3] about up that change by at most `most` radians a second along points [N, 3].

    Walked at `speed`, units a second. Where a bend is too sharp, turning begins before it and ends as long
    after it: angles are averaged over the shortest stretch of the way that keeps the limit. Turns that keep
    it already come back as they are, to the bit.
    """
    wanted = np.unwrap(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    steps = np.linalg.norm(np.diff(np.asarray(points, np.float64), axis=0), axis=1)
    marks = np.concatenate([[0.0], np.cumsum(steps)])
    limit = most / max(speed, 1e-12) * steps + 1e-9

    def averaged(width: float) -> Floats:
        places = marks[:, None] + width * np.linspace(-0.5, 0.5, 129)
        return np.asarray(np.interp(places, marks, wanted).mean(axis=1))

    def kept(angles: Floats) -> bool:
        return bool((np.abs(np.diff(angles)) <= limit).all())

    if kept(wanted) or marks[-1] == 0:
        return turns
    low, high = 0.0, float(marks[-1])
    while not kept(averaged(high)):
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if kept(averaged(middle)) else (middle, high)
    angles = averaged(high)
    c, s, zero, one = np.cos(angles), np.sin(angles), np.zeros_like(angles), np.ones_like(angles)
    found = np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
    return np.where((np.abs(angles - wanted) < 1e-9)[:, None, None], turns, found)


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
