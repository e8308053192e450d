# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""The room around an asset: where its ground is, and whether a camera stands inside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.checks import winding_numbers
from orbit4d.render.blender.geometry.surfaces import points_now, visible_surfaces
from orbit4d.render.blender.importers.load import Loaded
from orbit4d.render.planning.framing import Framing
from orbit4d.render.planning.views import Plan

Box = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Room:
    """Boxes around everything that is seen of a normalised asset."""

    boxes: dict[float, Box]
    """Time in seconds to (low [3], high [3])."""

    @property
    def ground(self) -> float:
        """Height of the lowest point over all times."""
        return float(min(low[2] for low, _ in self.boxes.values()))


def measure_room(loaded: Loaded, framing: Framing, times: Iterable[float]) -> Room:
    """Look at the asset, framed, at each of `times`. ValueError where nothing is seen at any of them."""
    loaded.normalise(framing.scale, framing.centre)
    boxes = {}
    for seconds in times:
        loaded.set_seconds(seconds)
        points = points_now(loaded)
        if len(points):
            boxes[seconds] = points.min(axis=0), points.max(axis=0)
    if not boxes:
        raise ValueError("nothing is seen at any time")
    return Room(boxes)


def camera_inside(loaded: Loaded, room: Room, plan: Plan) -> str | None:
    """What is wrong with the first camera of a plan that stands inside the object, None where none does.

    Outside the object's box a camera is outside; within it the surfaces decide by their winding number.
    """
    for clip in plan.clips:
        for camera, seconds in dict.fromkeys(zip(clip.cameras, clip.seconds)):
            if seconds not in room.boxes:
                continue
            low, high = room.boxes[seconds]
            place = camera.position
            if (place < low).any() or (place > high).any():
                continue
            loaded.set_seconds(seconds)
            if _winding_at(loaded, place) > 0.5:
                name = clip.facts.get("camera_label") or f"orbit {clip.orbit}"
                away = float(np.linalg.norm(place))
                return (
                    f"{clip.rig} {name}: the camera stands inside the object at {seconds:.3f} s, {away:.3f} "
                    "units from its centre; give a larger radius or distance"
                )
    return None


def _winding_at(loaded: Loaded, place: npt.NDArray[np.float64]) -> float:
    total = 0.0
    for surface in visible_surfaces(loaded, topology=True):
        if surface.triangles is not None and len(surface.triangles):
            corners = surface.points()[surface.triangles]
            total += float(winding_numbers(place[None], corners)[0])
    return abs(total)
