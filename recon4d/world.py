"""The user's world: footage with cameras of its own may hold the object at any place and of any size.

The fit works in a world in which the object stands at the origin and its longest edge is about 1 (cameras.py,
scale `fit`); hull, fields and learning rates count on that. A scene keeps the transform between the two, so
that it is rendered at, and exported for, the cameras that were given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.recon4d.gaussians import Gaussians

Float = npt.NDArray[np.float64]


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


def stored(world: World) -> dict[str, Any]:
    """What scene.json says of the world: nothing where it is that of the fit."""
    return {"world": world.record()} if world else {}
