"""How often closed surfaces go around a point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


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
