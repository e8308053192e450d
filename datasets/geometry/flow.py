"""Optical flow of what an image sees, to any time and camera, with exact occlusion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.geometry import kernels
from orbit4d.datasets.geometry.action import ActionMesh
from orbit4d.datasets.geometry.surface_map import view_matrix


def flow_to(
    mesh: ActionMesh,
    seen: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float64],
    t: int,
    camera: Camera,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(flow [H, W, 2] float32, visible [H, W] bool) from a surface map, `seen` [H, W] with `weights`
    [H, W, 3], to time `t` as `camera` sees it.
    """
    height, width = seen.shape
    covered = np.flatnonzero(seen.reshape(-1) >= 0)
    triangles = seen.reshape(-1)[covered]
    barycentric = weights.reshape(-1, 3)[covered]
    pixels, found = project_and_test(mesh, triangles, barycentric, t, camera)[1:]
    flow = np.zeros((height * width, 2), np.float32)
    visible = np.zeros(height * width, bool)
    centres = np.stack([covered % width + 0.5, covered // width + 0.5], axis=1)
    front = np.isfinite(pixels[:, 0])
    flow[covered[front]] = (pixels - centres)[front]
    visible[covered] = found
    return flow.reshape(height, width, 2), visible.reshape(height, width)


def project_and_test(
    mesh: ActionMesh,
    triangles: npt.NDArray[np.int32],
    barycentric: npt.NDArray[np.float64],
    t: int,
    camera: Camera,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(places [N, 3] in the world at time `t`, pixels [N, 2], NaN behind the camera, visible [N])."""
    view = view_matrix(camera)
    places = kernels.carry(triangles, barycentric, mesh.welded[t], mesh.welded_faces)
    h = kernels.homogeneous(mesh.welded[t], view)
    points = kernels.homogeneous(places, view)
    posed = kernels.Posed(h, mesh.welded_faces, mesh.kind(t), mesh.alpha)
    found = kernels.visible(points, triangles, barycentric, posed, camera.w, camera.h)
    depth = points[:, 2:]
    pixels = np.divide(points[:, :2], depth, out=np.full((len(points), 2), np.nan), where=depth > 0.0)
    return places, pixels, found.astype(bool)
