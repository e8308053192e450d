"""Answers in pixels as places in the world: asked with the scene drawn, lifted through its depth.

What a director says of an actor's size, start, end and path is of the scene seen by one camera. Its points
are set on the ground that is seen there, off what stands in the way, and walked at the clip's own pace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.compose.director.model_depth import estimated_depth
from orbit4d.compose.director.placing import PlacedBox, PlacementView, Placer, place_actor
from orbit4d.compose.placement.facing import capped, face
from orbit4d.compose.placement.ground import POINTS, nearest_free, resampled
from orbit4d.compose.placement.lifting import contact_points, depth_at, height_of, on_ground
from orbit4d.compose.placement.planning import Placed, Plan
from orbit4d.compose.placement.shooting import corners_of, overview
from orbit4d.compose.spec import Actor, Spec
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import WorkError
from orbit4d.recon4d.composition import MOST_TURN
from orbit4d.recon4d.raster.threads import alone
from orbit4d.recon4d.scene import draw

Floats = npt.NDArray[np.float64]

#: Width and height of what a director is shown, pixels, and the height from which it looks.
SIZE, ELEVATION = 512, 20.0
#: Colour behind the scene.
SKY = (0.78, 0.87, 0.96)
#: Opacity below which a pixel shows no scene.
SEEN = 0.5
#: Bounds of a clip's pace that a film's length may ask for.
SLOWEST, FASTEST = 0.7, 1.4


@dataclass(frozen=True)
class Sight:
    """The scene as a director sees it: what it is shown, and the depth that its answers are lifted by."""

    camera: Camera
    view: PlacementView
    depth: Floats
    """[H, W] along the viewing axis; NaN where nothing is seen."""

    @property
    def intrinsics(self) -> Floats:
        """[3, 3]"""
        c = self.camera
        return np.array([[c.fl_x, 0, c.cx], [0, c.fl_y, c.cy], [0, 0, 1.0]])

    def lifted(self, pixels: Floats, what: str) -> Floats:
        """World points [N, 3] under pixels [N, 2]: through the depth, else where the ground plane is.

        WorkError naming the first pixel that shows neither.
        """
        depth = depth_at(self.depth, pixels)
        points = contact_points(pixels, depth, self.intrinsics, self.camera.c2w)
        flat = on_ground(pixels, self.intrinsics, self.camera.c2w)
        points = np.where(np.isfinite(depth)[:, None], points, flat)
        lost = ~np.isfinite(points).all(axis=1)
        if lost.any():
            x, y = pixels[int(np.flatnonzero(lost)[0])]
            raise WorkError(f"{what}: the contact point ({x:.0f}, {y:.0f}) shows sky and no ground")
        return np.asarray(points, np.float64)


def sight_of(plan: Plan, size: int = SIZE, depth_model: str = "") -> Sight:
    """The scene of a plan drawn without its actors, the same bytes each time.

    `depth_model` estimates the depth instead of the scene's own Gaussians; its line goes to `path_notes`.
    """
    stage = plan.stage
    tall = max(one.cast.metres for one in plan.placed)
    low, high = (np.array([s * stage.half_width, s * stage.half_depth, 0.0]) for s in (-1, 1))
    camera = overview(low, np.array([*high[:2], tall]), ELEVATION, size)
    with alone(1), torch.no_grad():
        colour, alpha, _ = draw(stage.gaussians, camera, render_mode="RGB+ED")
    opaque = alpha[..., 0].double().numpy()
    rgb = colour[..., :3].double().numpy() + (1 - opaque[..., None]) * np.array(SKY)
    depth = np.where(opaque >= SEEN, colour[..., 3].double().numpy(), np.nan)
    image = np.rint(255 * rgb.clip(0, 1)).astype(np.uint8)
    if depth_model:
        depth, line = estimated_depth(depth_model, image, depth, camera)
        plan.path_notes.append(line)
    return Sight(camera, PlacementView(image, _boxes(plan, camera)), depth)


def _boxes(plan: Plan, camera: Camera) -> dict[str, tuple[float, float, float, float]]:
    """Boxes of the landmarks in the image: centre, width and height in pixels."""
    found = {}
    for mark in plan.stage.landmarks:
        pixels, depth = camera.project(corners_of(np.array([mark.low, mark.high])))
        if (depth > 0).all():
            (x0, y0), (x1, y1) = pixels.min(axis=0), pixels.max(axis=0)
            found[mark.name] = tuple(
                round(float(v), 1) for v in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
            )
    return found  # type: ignore[return-value]


def place_all(placer: Placer, spec: Spec, plan: Plan, depth_model: str = "") -> None:
    """Ask for every actor of a plan and put it where the answers say; its lines go to `path_notes`.

    Raises:
        WorkError: an answer that lies outside the image, that shows no ground, or that leaves no free place.
    """
    plan.path_notes.clear()
    sight = sight_of(plan, depth_model=depth_model)
    for actor in spec.actors:
        answer = place_actor(placer, actor, sight.view)
        _placed(actor, answer, sight, plan)


def _placed(actor: Actor, answer: PlacedBox, sight: Sight, plan: Plan) -> None:
    """Move every individual of an actor to where its answer is."""
    who = f"actor {actor.id}"
    width_height = np.array([0.0, answer.box[1] / 2])
    pixels = np.array(answer.points) + width_height
    first = sight.lifted(pixels[:1], who)
    local = (first - sight.camera.c2w[:3, 3]) @ sight.camera.c2w[:3, :3]
    top = pixels[:1, 1] - answer.box[1]
    seen = float(height_of(pixels[:1], top, -local[:, 2], sight.intrinsics, sight.camera.c2w)[0])
    members = [one for one in plan.placed if one.actor == actor.id]
    metres = seen if actor.size.metres is None else actor.size.metres
    if not metres > 0:
        raise WorkError(f"{who}: a box {answer.box[1]:g} pixels high stands for no height; ask again")
    going = members[0].going
    way = sight.lifted(pixels, who) if going else np.repeat(first, POINTS, axis=0)
    old = members[0].track.points[0].copy()
    for one in members:
        aside = (one.track.points[0] - old) * (metres / one.cast.metres)
        _moved(one, way + aside, metres, plan, who)


def _moved(one: Placed, way: Floats, metres: float, plan: Plan, who: str) -> None:
    """Give an individual its height and its way over free ground."""
    ratio = metres / one.cast.metres
    lifted_by = plan.above(one)
    one.cast = replace(one.cast, metres=metres)
    points = _free(way, one, plan, who) + np.array([0.0, 0.0, lifted_by * ratio])
    track = replace(one.track, points=points, scale=one.cast.scale, stride=one.track.stride * ratio)
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    if not one.going or length < 1e-6:
        one.going, one.speed = False, 0.0
        one.track = replace(track, points=np.repeat(points[:1], POINTS, axis=0), end=0.0, stride=0.0)
        return
    natural = one.speed * ratio
    needed = length / max(plan.seconds - track.ease, 0.1)
    one.speed = float(np.clip(needed, SLOWEST * natural, FASTEST * natural))
    if needed > one.speed * 1.001:
        plan.path_notes.append(
            f"{who}: {one.speed * plan.seconds:.1f} of {length:.1f} m are walked in the film"
        )
    gait = one.cast.clip.gait
    forward = tuple(gait["forward"]) if gait["usable"] else (0.0, -1.0, 0.0)
    turns = capped(face(points, forward), points, one.speed, MOST_TURN)
    one.track = replace(track, turns=turns, end=track.begin + length / one.speed + track.ease)


def _free(way: Floats, one: Placed, plan: Plan, who: str) -> Floats:
    """[20, 3] of equal arcs on the ground; points in obstacles go to the nearest free cell, noted."""
    assert plan.ground is not None
    ground = plan.ground
    blocked = ground.inflated(one.cast.radius)
    flat, moved = way[:, :2].copy(), 0
    for i, (x, y) in enumerate(flat):
        cell = ground.cell_of(x, y)
        if blocked[cell]:
            free = nearest_free(blocked, cell)
            if free is None:
                raise WorkError(f"{who}: no free place on the ground; give another --scene")
            flat[i], moved = ground.place_of(free), moved + 1
    if moved:
        plan.path_notes.append(
            f"{who}: {moved} of its points lay in obstacles; the nearest free places stand in"
        )
    flat = resampled(flat)
    return np.column_stack([flat, [ground.height_at(float(x), float(y)) for x, y in flat]])


__all__: list[Any] = ["Sight", "place_all", "sight_of"]
