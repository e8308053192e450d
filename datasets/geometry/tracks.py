"""Points of a surface followed through the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.action import ActionMesh
from orbit4d.datasets.geometry.flow import project_and_test
from orbit4d.datasets.geometry.kernels import GONE

#: (xyz [N, F, 3] float32, pixels [N, F, 2] float32, visible [N, F] bool).
Tracks = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]
#: (triangles [N] int32, barycentric [N, 3] float64).
Chosen = tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]


def on_surface(mesh: ActionMesh, t: int, n: int, rng: np.random.Generator, where: str) -> Chosen:
    """`n` points spread evenly over the area that is drawn at time `t`. InputError when there is none."""
    corners = mesh.welded[t].astype(np.float64)[mesh.welded_faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    areas[mesh.kind(t) == GONE] = 0.0
    total = np.cumsum(areas)
    if not len(total) or not total[-1] > 0.0:
        raise InputError(f"{where}: no surface to draw points on")
    # The last triangle with an area, for a draw that rounding carries to the very end.
    last = int(np.flatnonzero(areas)[-1])
    triangles = np.minimum(np.searchsorted(total, rng.random(n) * total[-1], side="right"), last)
    u, v = np.sqrt(rng.random(n)), rng.random(n)
    return triangles.astype(np.int32), np.stack([1.0 - u, u * (1.0 - v), u * v], axis=1)


def on_pixels(
    seen: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float64],
    n: int,
    rng: np.random.Generator,
    where: str,
) -> Chosen:
    """What the centres of `n` covered pixels see: each pixel once while there are enough. InputError when
    nothing is seen.
    """
    covered = np.flatnonzero(seen.reshape(-1) >= 0)
    if not len(covered):
        raise InputError(f"{where}: nothing is seen that points could be drawn on")
    rounds = [rng.permutation(covered) for _ in range(-(-n // len(covered)))]
    chosen = np.concatenate(rounds)[:n]
    return seen.reshape(-1)[chosen], weights.reshape(-1, 3)[chosen]


def follow(
    mesh: ActionMesh,
    triangles: npt.NDArray[np.int32],
    barycentric: npt.NDArray[np.float64],
    times: Sequence[int],
    cameras: Sequence[Camera],
) -> Tracks:
    """Points through frames that show `mesh` at `times` [F] through `cameras` [F]; a pixel of a point behind
    the camera is NaN, and not visible.
    """
    n, frames = len(triangles), len(times)
    xyz = np.empty((n, frames, 3), np.float32)
    pixels = np.empty((n, frames, 2), np.float32)
    visible = np.empty((n, frames), bool)
    for f, (t, camera) in enumerate(zip(times, cameras, strict=True)):
        xyz[:, f], pixels[:, f], visible[:, f] = project_and_test(mesh, triangles, barycentric, t, camera)
    return xyz, pixels, visible
