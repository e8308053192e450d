"""The user's world: footage with cameras of its own may hold the object at any place and of any size.

The fit works in a world in which the object stands at the origin and its longest edge is about 1 (cameras.py,
scale `fit`); hull, fields and learning rates count on that. A scene keeps the transform between the two, so
that it is rendered at, and exported for, the cameras that were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.inputs.hull import carve
from orbit4d.recon4d.inputs.loading import Frames

Float = npt.NDArray[np.float64]
#: Half the size of the object, and how far it reaches from the origin, in worlds that are fitted as they are:
#: `fit` gives at most 0.67 from the axis.
_LEAST, _REACH = 0.15, 0.85
#: Voxels along an edge of the coarse hull that corrects the first guess.
_VOXELS = 48


@dataclass(frozen=True)
class World:
    """A point x of the fit stands at scale * x + centre in the world of the given cameras."""

    scale: float = 1.0
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __bool__(self) -> bool:
        return self != World()

    def __str__(self) -> str:
        place = ", ".join(f"{c:.3g}" for c in self.centre)
        return f"the object is {self.scale:.3g} times as large as orbit4d's unit, at ({place})"

    def camera(self, given: Camera) -> Camera:
        """A camera of the given world in the world of the fit: it sees the same."""
        if not self:
            return given
        c2w = given.c2w.copy()
        c2w[:3, 3] = (c2w[:3, 3] - self.centre) / self.scale
        return replace(given, c2w=c2w)

    def frames(self, given: Frames) -> Frames:
        """Frames with their cameras in the world of the fit."""
        return replace(given, cameras=tuple(map(self.camera, given.cameras))) if self else given

    def placed(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians of the fit as they stand in the given world."""
        if not self:
            return gaussians
        centre = gaussians.means.new_tensor(self.centre)
        larger = float(np.log(self.scale))
        return replace(
            gaussians, means=gaussians.means * self.scale + centre, log_scales=gaussians.log_scales + larger
        )

    def record(self) -> dict[str, Any]:
        """JSON-able; inverse of `World.of`."""
        return {"scale": self.scale, "centre": list(self.centre)}

    @classmethod
    def of(cls, record: dict[str, Any] | None) -> World:
        """From a scene's record; None is the world of the fit."""
        if record is None:
            return cls()
        x, y, z = map(float, record["centre"])
        return cls(float(record["scale"]), (x, y, z))


def find_world(sources: Sequence[Frames | None]) -> World:
    """The world of footage that brought its own cameras; that of the fit where none did, where the object
    stands and is as large as there, and where the cameras do not say where it is.

    First the point nearest to all rays through the middles of the silhouettes' boxes, and the size of these;
    then the box of a coarse visual hull there.
    """
    own = [frames for frames in sources if frames is not None and frames.posed]
    if not own:
        return World()
    guess = _seen(own)
    if guess is None or guess.scale < 1e-9:
        return World()
    reach = np.abs(guess.centre).max() + guess.scale / 2
    if guess.scale / 2 >= _LEAST and reach <= _REACH:
        return World()
    for frames in own[-1:]:
        hull = carve(guess.frames(frames), _VOXELS, agree=0.8)
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


def _half_size(camera: Camera, box: tuple[int, int, int, int], centre: Float) -> float:
    """Half the longer edge of a silhouette's box, in the world, at the centre's depth."""
    depth = camera.project(centre)[1]
    left, right, top, bottom = box
    return float(max((right - left) / camera.fl_x, (bottom - top) / camera.fl_y) / 2 * depth)


def stored(world: World) -> dict[str, Any]:
    """What scene.json says of the world: nothing where it is that of the fit."""
    return {"world": world.record()} if world else {}
