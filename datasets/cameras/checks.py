"""Whether the cameras and times of an index row fit its rig and the numbers beside them; and what tells a
camera inside an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import orbit_c2w

#: Cameras are stored as float64; imported ones may come from JSON with few digits.
_TOLERANCE = 1e-3
_ORBITS = ("static_orbit", "dynamic_orbit")


def camera_faults(row: Mapping[str, Any]) -> list[str]:
    """One line per fault of a row; [] when it is consistent.

    Every rig: as many cameras and times as frames, finite rigid matrices, times in [0, 1] that do not fall.
    Orbits: cameras on the circle that azimuth0_deg, elevation_deg and radius name, open or closed; on a path
    that was drawn, the first of them there, and all looking at the origin. The static orbit: one time. The
    front view: one camera.
    """
    n = row["n_frames"]
    counts = {name: len(row[name]) for name in ("c2w", "time", "seconds", "offsets", "lengths")}
    faults = [f"{n} frames but {count} {name}" for name, count in counts.items() if count != n]
    if faults or n == 0:
        return faults or ["no frames"]
    c2w = np.array(row["c2w"], dtype=np.float64).reshape(n, 4, 4)
    rotation = c2w[:, :3, :3]
    if not np.isfinite(c2w).all():
        return ["cameras that are not finite"]
    if np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() > _TOLERANCE:
        faults.append("cameras whose rotation is not orthonormal")
    if np.linalg.det(rotation).min() < 0:
        faults.append("cameras seen in a mirror")
    if not (row["fl_x"] > 0 and row["fl_y"] > 0):
        faults.append("focal lengths that are not positive")
    time = np.array(row["time"])
    if not ((time >= 0) & (time <= 1)).all() or (np.diff(time) < 0).any():
        faults.append("times outside [0, 1] or falling")
    if row.get("camera_draw") and row["rig"] in _ORBITS:
        faults += _path_faults(row, c2w)
    elif row["rig"] in _ORBITS:
        faults += _orbit_faults(row, c2w)
    if row["rig"] == "static_orbit" and np.ptp(time) > 0:
        faults.append("a static orbit whose time runs")
    if row["rig"] == "dynamic_orbit" and n > 1 and np.ptp(time) == 0:
        faults.append("a dynamic orbit whose time stands still")
    if row["rig"] == "front_view" and np.ptp(c2w, axis=0).max() > _TOLERANCE * row["radius"]:
        faults.append("a front view whose camera moves")
    return faults


def _path_faults(row: Mapping[str, Any], c2w: np.ndarray) -> list[str]:
    tolerance = _TOLERANCE * max(row["radius"], 1.0)
    start = orbit_c2w(row["azimuth0_deg"], row["elevation_deg"], row["radius"])
    if np.abs(c2w[0, :3, 2:] - start[:3, 2:]).max() > tolerance:
        return ["a first camera that is not where its azimuth0_deg, elevation_deg and radius say"]
    away = np.linalg.norm(c2w[:, :3, 3], axis=1)
    if np.abs(c2w[:, :3, 3] - away[:, None] * c2w[:, :3, 2]).max() > tolerance:
        return ["cameras on a path that do not look at the centre"]
    return []


def _orbit_faults(row: Mapping[str, Any], c2w: np.ndarray) -> list[str]:
    n, tolerance = row["n_frames"], _TOLERANCE * max(row["radius"], 1.0)
    for step in {360.0 / n, 360.0 / max(n - 1, 1)}:
        asked = [
            orbit_c2w(row["azimuth0_deg"] + step * i, row["elevation_deg"], row["radius"]) for i in range(n)
        ]
        if np.abs(c2w - np.stack(asked)).max() <= tolerance:
            return []
    return ["cameras that do not lie on the circle its azimuth0_deg, elevation_deg and radius name"]


def winding_numbers(points: npt.ArrayLike, triangles: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """[P] generalised winding numbers of triangles [K, 3, 3] around points [P, 3].

    1 or -1 inside a closed surface by its orientation, 0 outside, in between where there are holes. The solid
    angles are those of van Oosterom and Strackee (1983).
    """
    triangles = np.asarray(triangles, dtype=np.float64)
    found = []
    for point in np.asarray(points, dtype=np.float64):
        a, b, c = np.moveaxis(triangles - point, 1, 0)
        la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
        volume = np.einsum("ij,ij->i", a, np.cross(b, c))
        ab, bc, ca = (np.einsum("ij,ij->i", *pair) for pair in ((a, b), (b, c), (c, a)))
        angle = 2.0 * np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb)
        found.append(angle.sum() / (4.0 * np.pi))
    return np.array(found)
