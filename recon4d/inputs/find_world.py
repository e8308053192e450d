"""The world of the user's cameras: where the object stands in it and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.recon4d.inputs.hull import carve
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.world import World

#: Voxels along an edge of the coarse hull that corrects the first guess.
_VOXELS = 48


#: Half the size of the object, and how far it reaches from the origin, in worlds that are fitted as they are:
#: `fit` gives at most 0.67 from the axis.
_LEAST, _REACH = 0.15, 0.85


def frames_in(world: World, given: Frames) -> Frames:
    """Frames with their cameras in the world of the fit."""
    return replace(given, cameras=tuple(map(world.camera, given.cameras))) if world else given


def find_world(sources: Sequence[Frames | None], open_scene: bool = False) -> World:
    """The world of footage that brought its own cameras; that of the fit where none did, where the object
    stands and is as large as there, and where the cameras do not say where it is.

    First the point nearest to all rays through the middles of the silhouettes' boxes, and the size of these;
    then the box of a coarse visual hull there. An open scene has none: its unit is what images show across.
    """
    own = [frames for frames in sources if frames is not None and frames.posed]
    if not own:
        return World()
    guess = _seen(own)
    if guess is None or guess.scale < 1e-9:
        return World()
    if open_scene:
        return guess
    reach = np.abs(guess.centre).max() + guess.scale / 2
    if guess.scale / 2 >= _LEAST and reach <= _REACH:
        return World()
    for frames in own[-1:]:
        hull = carve(frames_in(guess, frames), _VOXELS, agree=0.8)
        if len(hull.points) > 3 and hull.coverage > 0.4:
            low, high = hull.points.min(0), hull.points.max(0)
            size = float((high - low).max()) + hull.voxel
            x, y, z = (guess.scale * (low + high) / 2 + guess.centre).tolist()
            guess = World(guess.scale * size, (x, y, z))
    return guess


def _seen(own: Sequence[Frames]) -> World | None:
    """From where the silhouettes stand in the images; None where the rays run in parallel."""
    origins, ways, boxes, cameras = [], [], [], []
    for frames in own:
        for image, camera in zip(frames.rgba, frames.cameras):
            rows, columns = np.nonzero(image[..., 3] > 0.5)
            if len(rows) == 0:
                continue
            boxes.append((columns.min(), columns.max() + 1, rows.min(), rows.max() + 1))
            middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
            local = np.array(
                [(middle[0] - camera.cx) / camera.fl_x, -(middle[1] - camera.cy) / camera.fl_y, -1.0]
            )
            way = camera.c2w[:3, :3] @ local
            origins.append(camera.position)
            ways.append(way / np.linalg.norm(way))
            cameras.append(camera)
    if len(ways) < 2:
        return None
    # Least squares: the sum of (I - d dᵀ)(x - o) is 0.
    across = np.eye(3) - np.einsum("ni,nj->nij", np.stack(ways), np.stack(ways))
    normal = across.sum(0)
    if np.linalg.cond(normal) > 1e4:
        return None
    centre = np.linalg.solve(normal, np.einsum("nij,nj->i", across, np.stack(origins)))
    half = [_half_size(camera, box, centre) for camera, box in zip(cameras, boxes)]
    if min(half) <= 0:
        return None
    x, y, z = centre.tolist()
    return World(2 * float(np.max(half)), (x, y, z))


def _half_size(camera: Camera, box: tuple[int, int, int, int], centre: npt.NDArray[np.float64]) -> float:
    """Half the longer edge of a silhouette's box, in the world, at the centre's depth."""
    depth = camera.project(centre)[1]
    left, right, top, bottom = box
    return float(max((right - left) / camera.fl_x, (bottom - top) / camera.fl_y) / 2 * depth)
