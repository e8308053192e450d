"""The camera of a film: one establishing shot that holds everybody, or what the spec asks for.

Boxes are [F, A, 2, 3], low and high corners of every actor at every frame, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.spec import Shot
from orbit4d.datasets.cameras.camera import Camera, focal_from_fov, orbit_c2w

Floats = npt.NDArray[np.float64]

#: Share of the frame that boxes may fill.
FILL = 0.90
ELEVATIONS = {"low": -5.0, "eye": 10.0, "high": 35.0, "top": 80.0}
#: Share of the frame's height that an actor fills.
SHARES = {"close": 0.70, "medium": 0.45, "wide": 0.30}
#: Seconds of the critically damped spring that a following camera hangs on, and that it looks ahead.
DAMPING, AHEAD = 0.5, 0.3
MOST_ORBIT = 30.0
#: Share of the height below which no actor is to be where the camera can help it.
LEAST = 0.15
#: Metres above the ground below which no camera goes.
LOWEST = 0.1
FOV = 39.5978


def corners_of(boxes: Floats) -> Floats:
    """[..., 8, 3] corners of boxes [..., 2, 3]."""
    return np.stack(
        [np.stack([boxes[..., k[a], a] for a in range(3)], axis=-1) for k in product((0, 1), repeat=3)],
        axis=-2,
    )


def distance_for(points: Floats, target: Floats, axes: Floats, tan_half: float, fill: float = FILL) -> float:
    """Smallest distance from `target` along back = axes[:, 2] at which points [N, 3] fill a square frame.

    Closed form for each point and axis: |right| <= fill tan (d - back), as framing does it for orbits.
    """
    local = (points - target) @ axes
    need = local[:, 2] + np.abs(local[:, :2]).max(axis=1) / (fill * tan_half)
    return max(float(need.max()), float(local[:, 2].max()) + 0.3)


#: A landmark that the prompt names: its box [2, 3], and when it is to be seen: start, end or always.
Mark = tuple[Floats, str]


def shoot(
    shots: tuple[Shot, ...],
    boxes: Floats,
    forward: Floats,
    actors: list[int],
    seconds: float,
    size: int,
    marks: Sequence[Mark] = (),
) -> list[Camera]:
    """A camera for every frame.

    boxes [F, A, 2, 3], forward [F, A, 3] where individuals face, actors [A] the spec's actor of each. Without
    shots: one that holds everybody over all frames, and `marks` where that leaves actors their height; it
    moves along where one that stands would make them smaller than `LEAST`. Several shots share the time,
    each at least 1.5 s.
    """
    frames = len(boxes)
    wanted = list(shots)
    most = max(1, int(seconds / 1.5))
    wanted = wanted[:most]
    borders = np.linspace(0, frames, len(wanted) + 1).round().astype(int)
    found: list[Camera] = []
    side = _side(forward, boxes)
    if not shots:
        return _establishing(boxes, marks, side, seconds, size)
    for shot, a, b in zip(wanted, borders, borders[1:]):
        chosen = [i for i, actor in enumerate(actors) if shot.of is None or actor == shot.of] or list(
            range(len(actors))
        )
        found += _shot(shot, boxes[a:b][:, chosen], side, seconds * (b - a) / frames, size)
    return found


def _establishing(
    boxes: Floats, marks: Sequence[Mark], side: float, seconds: float, size: int
) -> list[Camera]:
    """The first of these that shows every actor at `LEAST` of the height, else the one that shows most:
    a camera that stands and one that moves along, each with the marks, their middles, and without."""
    frames, elevation = len(boxes), ELEVATIONS["eye"]
    axes, tan = orbit_c2w(side, elevation, 1.0)[:3, :3], float(np.tan(np.radians(FOV / 2)))
    best: tuple[float, list[Camera]] = (-1.0, [])
    middles = [(box.mean(axis=0) + 0.5 * (box - box.mean(axis=0)), when) for box, when in marks]
    for seen in (marks, middles, ()) if marks else ((),):
        held = [[*frame, *_due(seen, i, frames)] for i, frame in enumerate(boxes)]
        for moves in (False, True):
            low = np.array([np.min(frame, axis=0)[0] for frame in held])
            high = np.array([np.max(frame, axis=0)[1] for frame in held])
            centres = (low + high) / 2
            if moves:
                targets = _smooth(centres, round(0.5 * frames / max(seconds, 1e-6)))
            else:
                targets = np.repeat(((low.min(axis=0) + high.max(axis=0)) / 2)[None], frames, axis=0)
            points = [corners_of(np.array(frame)).reshape(-1, 3) for frame in held]
            need = max(distance_for(p, t, axes, tan) for p, t in zip(points, targets, strict=True))
            cameras = [_camera(t, side, elevation, need, 0.0, size) for t in targets]
            least = inside_share(cameras, boxes)[1] / size
            if least >= LEAST:
                return cameras
            if least > best[0] * 1.02:
                best = (least, cameras)
    return best[1]


def _due(marks: Sequence[Mark], frame: int, frames: int) -> list[Floats]:
    """Boxes of the marks to be seen in a frame: those of the start in the first quarter, of the end in the
    last."""
    share = (frame + 0.5) / frames
    return [box for box, when in marks if {"start": share < 0.25, "end": share > 0.75}.get(when, True)]


def _smooth(points: Floats, reach: int) -> Floats:
    """Means [F, 3] over `reach` frames before and after, twice, so that a camera neither jumps nor jerks."""
    found = points
    for _ in range(2):
        wide = np.concatenate([found[:1].repeat(reach, 0), found, found[-1:].repeat(reach, 0)])
        found = np.stack([wide[i : i + 2 * reach + 1].mean(axis=0) for i in range(len(points))])
    return found


def _side(forward: Floats, boxes: Floats) -> float:
    """Azimuth, degrees, from which actors are seen between profile and front: their mean facing at 60."""
    mean = forward.reshape(-1, 3).mean(axis=0)
    if np.linalg.norm(mean[:2]) < 0.2:
        return 0.0
    way = float(np.degrees(np.arctan2(mean[0], -mean[1])))
    # Of the two azimuths at 60 degrees to the facing the one nearer to the front of the stage.
    options = [(way + turn + 180) % 360 - 180 for turn in (60.0, -60.0)]
    return min(options, key=abs)


def _shot(shot: Shot, boxes: Floats, side: float, seconds: float, size: int) -> list[Camera]:
    elevation = ELEVATIONS[shot.angle or "eye"]
    frames = len(boxes)
    centres = boxes.mean(axis=(1, 2))
    tan = np.tan(np.radians(FOV / 2))
    azimuths = np.full(frames, side)
    if shot.move in ("orbit", "bullet_time"):
        turn = min(MOST_ORBIT * seconds, 360.0)
        azimuths = side + np.linspace(-turn / 2, turn / 2, frames)
    targets = np.repeat(_middle(boxes)[None], frames, axis=0)
    if shot.move == "follow":
        targets = _damped(centres, seconds)
    distance = _distance(shot, boxes, targets, azimuths, elevation, tan)
    distances = np.full(frames, distance)
    if shot.move in ("zoom_in", "zoom_out"):
        ramp = np.linspace(1.25, 0.9, frames) if shot.move == "zoom_in" else np.linspace(0.9, 1.25, frames)
        distances = distance * ramp
    pans = np.zeros(frames)
    if shot.move in ("pan_left", "pan_right"):
        pans = np.linspace(-6, 6, frames) * (1.0 if shot.move == "pan_left" else -1.0)
    return [
        _camera(target, a, elevation, d, pan, size)
        for target, a, d, pan in zip(targets, azimuths, distances, pans, strict=True)
    ]


def _middle(boxes: Floats) -> Floats:
    return (boxes[..., 0, :].reshape(-1, 3).min(axis=0) + boxes[..., 1, :].reshape(-1, 3).max(axis=0)) / 2


def _distance(
    shot: Shot, boxes: Floats, targets: Floats, azimuths: Floats, elevation: float, tan: float
) -> float:
    tall = float((boxes[..., 1, 2] - boxes[..., 0, 2]).max())
    if shot.move == "follow" and shot.shot is None:
        return max(3.0 * tall, 0.6)
    if shot.shot in ("close", "medium"):
        return max(tall / (2 * tan * SHARES[shot.shot]), 0.5)
    corners = corners_of(boxes)
    need = max(
        distance_for(
            corners[i].reshape(-1, 3), targets[i], orbit_c2w(azimuths[i], elevation, 1.0)[:3, :3], tan
        )
        for i in range(len(boxes))
    )
    return max(need, tall / (2 * tan * SHARES["wide"])) if shot.shot == "wide" else need


def _damped(centres: Floats, seconds: float) -> Floats:
    """Targets that follow centres, led by what comes, on a critically damped spring."""
    frames = len(centres)
    step = seconds / max(frames, 1)
    ahead = round(AHEAD / max(step, 1e-6))
    aims = centres[np.minimum(np.arange(frames) + ahead, frames - 1)]
    omega = 2.0 / DAMPING
    place, pace = aims[0].copy(), np.zeros(3)
    found = []
    for aim in aims:
        found.append(place.copy())
        pull = omega * omega * (aim - place) - 2 * omega * pace
        pace = pace + pull * step
        place = place + pace * step
    return np.array(found)


def _camera(
    target: Floats, azimuth: float, elevation: float, distance: float, pan: float, size: int
) -> Camera:
    c2w = orbit_c2w(azimuth, elevation, distance)
    c2w[:3, 3] += target
    if c2w[2, 3] < LOWEST:
        c2w[2, 3] = LOWEST
    if pan:
        a = np.radians(pan)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
        c2w[:3, :3] = turn @ c2w[:3, :3]
    focal = focal_from_fov(FOV, size)
    return Camera(c2w, focal, focal, size / 2, size / 2, size, size)


def overview(low: Floats, high: Floats, elevation: float, size: int) -> Camera:
    """A camera in front of a box [3], [3], which fills its square frame."""
    corners, target = corners_of(np.stack([low, high])), (low + high) / 2
    axes = orbit_c2w(0.0, elevation, 1.0)[:3, :3]
    distance = distance_for(corners, target, axes, float(np.tan(np.radians(FOV / 2))))
    return _camera(target, 0.0, elevation, distance, 0.0, size)


def anybody(cameras: list[Camera], boxes: Floats) -> bool:
    """Whether anything of any box [F, A, 2, 3] is in the image of its frame."""
    for camera, frame in zip(cameras, boxes, strict=True):
        pixels, depth = camera.project(corners_of(frame))
        ahead = (depth > 0).any(axis=-1)
        low = np.where(depth[..., None] > 0, pixels, np.inf).min(axis=-2)
        high = np.where(depth[..., None] > 0, pixels, -np.inf).max(axis=-2)
        if (ahead & (high > 0).all(-1) & (low < [camera.w, camera.h]).all(-1)).any():
            return True
    return False


def inside_share(cameras: list[Camera], boxes: Floats) -> tuple[float, float]:
    """(share of frames with every box inside the image, least height of an actor in pixels)."""
    whole, least = [], np.inf
    for camera, frame in zip(cameras, boxes, strict=True):
        pixels, depth = camera.project(corners_of(frame))
        good: Any = (depth > 0) & (pixels >= 0).all(-1) & (pixels <= [camera.w, camera.h]).all(-1)
        whole.append(bool(good.all()))
        least = min(least, float(np.ptp(pixels[..., 1], axis=-1).min()))
    return float(np.mean(whole)), least
