"""The camera of a film: one establishing shot that holds everybody, or what the spec asks for.

Boxes are [F, A, 2, 3], low and high corners of every actor at every frame, metres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.compose.placement.camera.establishing import LEAST, Mark, establish, side_of
from orbit4d.compose.placement.camera.framing import (
    ELEVATIONS,
    FOV,
    LOWEST,
    NEAREST,
    anybody,
    back_for,
    camera_at,
    corners_of,
    inside_share,
    overview,
    tan_half,
)
from orbit4d.compose.spec import Shot
from orbit4d.datasets.cameras.camera import Camera, orbit_c2w

Floats = npt.NDArray[np.float64]

#: Share of the frame's height that an actor fills.
SHARES = {"close": 0.70, "medium": 0.45, "wide": 0.30}
#: Seconds of the critically damped spring that a following camera hangs on, and that it looks ahead.
DAMPING, AHEAD = 0.5, 0.3
MOST_ORBIT = 30.0
#: Degrees to each side that a pan turns, and how much farther a zoom begins or ends.
PAN, ZOOM = 6.0, 1.4
#: Least seconds between two cuts.
LEAST_SHOT = 1.5


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
    shots: one that holds everybody over all frames, and `marks` where that leaves actors their height.
    Several shots share the time, each at least 1.5 s.
    """
    if not shots:
        return establish(boxes, forward, marks, seconds, size)
    frames = len(boxes)
    wanted = list(shots)[: max(1, int(seconds / LEAST_SHOT))]
    borders = np.linspace(0, frames, len(wanted) + 1).round().astype(int)
    found: list[Camera] = []
    side = side_of(forward)[0]
    for shot, a, b in zip(wanted, borders, borders[1:]):
        chosen = [i for i, actor in enumerate(actors) if shot.of is None or actor == shot.of] or list(
            range(len(actors))
        )
        found += _shot(shot, boxes[a:b][:, chosen], side, seconds * (b - a) / frames, size)
    return found


def _shot(shot: Shot, boxes: Floats, side: float, seconds: float, size: int) -> list[Camera]:
    """Cameras of one shot of boxes [F, A, 2, 3]; one that is near looks at the first of them."""
    frames = len(boxes)
    near = shot.shot in SHARES and shot.shot != "wide"
    boxes = boxes[:, :1] if near else boxes
    azimuths = np.full(frames, side)
    if shot.move in ("orbit", "bullet_time"):
        turn = min(MOST_ORBIT * seconds, 360.0)
        azimuths = side + np.linspace(-turn / 2, turn / 2, frames)
    targets = np.repeat(_middle(boxes)[None], frames, axis=0)
    if shot.move == "follow" or near:
        # A near camera that stood would see most actors for a moment only.
        targets = _damped(boxes.mean(axis=(1, 2)), seconds)
    elevation = ELEVATIONS[shot.angle or "eye"]
    for _ in range(2):
        distance = _distance(shot, boxes, targets, azimuths, elevation)
        elevation = max(elevation, _level(float(targets[:, 2].min()), distance))
    distances, pans = np.full(frames, distance), np.zeros(frames)
    if shot.move in ("zoom_in", "zoom_out"):
        distances *= np.linspace(ZOOM, 1.0, frames)[:: 1 if shot.move == "zoom_in" else -1]
    if shot.move in ("pan_left", "pan_right"):
        pans = np.linspace(-PAN, PAN, frames) * (1.0 if shot.move == "pan_left" else -1.0)
    return [
        camera_at(target, a, elevation, d, size, pan)
        for target, a, d, pan in zip(targets, azimuths, distances, pans, strict=True)
    ]


def _middle(boxes: Floats) -> Floats:
    return (boxes[..., 0, :].reshape(-1, 3).min(axis=0) + boxes[..., 1, :].reshape(-1, 3).max(axis=0)) / 2


def _level(height: float, distance: float) -> float:
    """The least elevation, degrees, at which a camera that looks at a height stays above the ground."""
    return float(np.degrees(np.arcsin(np.clip((LOWEST - height) / max(distance, 1e-9), -1.0, 1.0))))


def _distance(shot: Shot, boxes: Floats, targets: Floats, azimuths: Floats, elevation: float) -> float:
    """Metres from targets [F, 3] at which a shot shows boxes [F, A, 2, 3] as large as it says."""
    tan = tan_half()
    tall = float((boxes[..., 1, 2] - boxes[..., 0, 2]).max())
    corners = corners_of(boxes).reshape(len(boxes), -1, 3)
    axes = [orbit_c2w(azimuth, elevation, 1.0)[:3, :3] for azimuth in azimuths]
    local = [(points - aim) @ a for points, aim, a in zip(corners, targets, axes, strict=True)]
    clear = max(float(points[:, 2].max()) for points in local) + NEAREST
    if shot.shot in ("close", "medium"):
        return max(tall / (2 * tan * SHARES[shot.shot]), clear)
    if shot.move == "follow" and shot.shot is None:
        return max(3.0 * tall, clear)
    if shot.move in ("pan_left", "pan_right"):
        tan = tan_half(FOV - 2 * PAN)
    need = max(back_for(points, np.zeros(3), tan) for points in local)
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


__all__ = ["LEAST", "Mark", "anybody", "corners_of", "inside_share", "overview", "shoot"]
