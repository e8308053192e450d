"""Errors of camera trajectories: rotation, translation, absolute and relative pose error.

Sturm et al. 2012 (ATE, RPE), Umeyama 1991 (alignment). RotErr and TransErr of CameraCtrl are sums over the
frames where ours are means, and other tables print poses that were estimated: no row is comparable as it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def camera_errors(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, float]:
    """How far a camera trajectory is from the true one.

    Args:
        predicted: camera-to-world matrices [F, 4, 4].
        truth: camera-to-world matrices [F, 4, 4] with the same camera axes (OpenGL or OpenCV: the errors are
            equal as long as both have the same).

    Returns:
        `rot`: mean angle in degrees between the rotations relative to the first camera, over frames 1 to F-1.
        `trans`: mean distance of the translations relative to the first camera, after one least-squares scale
        of the prediction, in units of the truth. `ate`: root mean square distance of the camera centres after
        the best similarity (rotation, scale, shift; no reflection). Beside them `rpe_rot` (degrees) and
        `rpe_trans` (RMS) of steps from frame to frame after that similarity, `rot_sum_rad` (RotErr of
        CameraCtrl) and the `scale` of `trans`. All 0 (scale 1) for one frame.

    Raises:
        ValueError: for other shapes, unequal numbers of frames or matrices that are not finite.
    """
    a, b = _poses(predicted, "predicted"), _poses(truth, "truth")
    if len(a) != len(b):
        raise ValueError(
            f"predicted has {len(a)} cameras and truth {len(b)}: they must be of the same frames"
        )
    if len(a) == 1:
        names = ("rot", "trans", "ate", "rpe_rot", "rpe_trans", "rot_sum_rad")
        return dict.fromkeys(names, 0.0) | {"scale": 1.0}
    rel_a, rel_b = np.linalg.inv(a[0]) @ a[1:], np.linalg.inv(b[0]) @ b[1:]
    angles = geodesic_degrees(rel_a[:, :3, :3], rel_b[:, :3, :3])
    t_a, t_b = rel_a[:, :3, 3], rel_b[:, :3, 3]
    length = float((t_a * t_a).sum())
    scale = float((t_a * t_b).sum()) / length if length > 0 else 1.0
    aligned = _aligned(a, b)
    step_a = np.linalg.inv(aligned[:-1]) @ aligned[1:]
    step_b = np.linalg.inv(b[:-1]) @ b[1:]
    between = np.linalg.inv(step_b) @ step_a
    eye = np.broadcast_to(np.eye(3), between[:, :3, :3].shape)
    return {
        "rot": float(angles.mean()),
        "trans": float(np.linalg.norm(scale * t_a - t_b, axis=1).mean()),
        "ate": _rms(np.linalg.norm(aligned[:, :3, 3] - b[:, :3, 3], axis=1)),
        "rpe_rot": float(geodesic_degrees(between[:, :3, :3], eye).mean()),
        "rpe_trans": _rms(np.linalg.norm(between[:, :3, 3], axis=1)),
        "rot_sum_rad": float(np.radians(angles).sum()),
        "scale": scale,
    }


def geodesic_degrees(a: Array, b: Array) -> Array:
    """Angle in degrees between rotations [N, 3, 3], per pair [N].

    2 asin(|a - b|_F / sqrt 8): the usual arccos of the trace loses half of the digits near 0.
    """
    chord = np.linalg.norm((a - b).reshape(len(a), 9), axis=1) / np.sqrt(8.0)
    return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord, 0, 1))))


def umeyama(source: Array, target: Array) -> tuple[float, Array, Array]:
    """The similarity (scale, rotation [3, 3], shift [3]) that takes `source` [N, 3] to `target` [N, 3].

    Least squares without reflection (Umeyama 1991). Points that all coincide are only shifted.
    """
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    variance = float((s * s).sum())
    if variance <= 1e-18 * max(1.0, float((source * source).sum())):
        return 1.0, np.eye(3), mean_t - mean_s
    u, d, vt = np.linalg.svd(t.T @ s)
    sign = np.array([1.0, 1.0, 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum()) / variance
    return scale, rotation, mean_t - scale * rotation @ mean_s


def _aligned(predicted: Array, truth: Array) -> Array:
    scale, rotation, shift = umeyama(predicted[:, :3, 3], truth[:, :3, 3])
    out = predicted.copy()
    out[:, :3, :3] = rotation @ predicted[:, :3, :3]
    out[:, :3, 3] = scale * predicted[:, :3, 3] @ rotation.T + shift
    return out


def _poses(matrices: npt.ArrayLike, name: str) -> Array:
    array = np.asarray(matrices, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (4, 4) or not len(array):
        raise ValueError(f"{name}: needs camera-to-world matrices [F, 4, 4], got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: has matrices that are not finite")
    return array


def _rms(values: Array) -> float:
    return float(np.sqrt((values * values).mean()))
