"""The shot of a film whose prompt says nothing of a camera: everybody, all the time, as large as can be.

The first of a list of cameras that shows every actor at `LEAST` of the height, and nobody behind others for
long, is taken, else the one that comes nearest to it. In front of the list are those that a viewer minds
least: first what the prompt names is held whole, a camera stands, looks from between profile and front, and
has the usual lens; a longer lens, which makes those behind less small, and another side come before a camera
that moves along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from orbit4d.compose.placement.camera.framing import (
    ELEVATIONS,
    FILL,
    FOV,
    LOWEST,
    back_for,
    corners_of,
    inside_share,
    tan_half,
    tightest,
)
from orbit4d.datasets.cameras.camera import Camera, focal_from_fov, orbit_c2w

Floats = npt.NDArray[np.float64]

#: A landmark that the prompt names: its box [2, 3], and when it is to be seen: start, end or always.
Mark = tuple[Floats, str]

#: Share of the height below which no actor is to be where the camera can help it.
LEAST = 0.15
#: Degrees between where actors face and the camera: between profile and front, and how else they may be seen.
ANGLES = (60.0, 75.0, 45.0, 90.0, 30.0)
#: Fields of view, degrees: the usual lens, and longer ones.
LENSES = (FOV, 25.0, 15.0)
#: Farthest from the front of the stage, behind which landmarks stand, degrees.
ASIDE = 75.0
#: Seconds to each side over which the way of a moving camera is smoothed.
SMOOTH = 0.5
#: Frames that a candidate is judged by.
LOOKS = 12
#: Share of anybody's box that others may cover where another camera helps it, and what a later candidate
#: must gain over an earlier one.
MOST_COVERED, GAIN = 0.3, 0.005


@dataclass(frozen=True)
class View:
    """One way to look at everybody."""

    azimuth: float
    fov: float
    moves: bool
    marks: Sequence[Mark]


def establish(
    boxes: Floats, forward: Floats, marks: Sequence[Mark], seconds: float, size: int
) -> list[Camera]:
    """A camera for every frame of boxes [F, A, 2, 3] whose individuals face `forward` [F, A, 3]."""
    best: list[Camera] = []
    rank = (False, -2.0)
    some = slice(None, None, max(1, len(boxes) // LOOKS))
    for view in _views(forward, marks):
        cameras = _cameras(view, boxes, seconds, size)
        least = inside_share(cameras, boxes)[1] / size
        hides = 0.0 if least < LEAST else covered(cameras[some], boxes[some])
        if marks and _hidden(cameras[some], boxes[some], marks):
            least, hides = least / 2, 1.0
        if least >= LEAST and hides <= MOST_COVERED:
            return cameras
        # Where nobody has its height, height decides; where all have it, who is seen.
        found = (True, -hides) if least >= LEAST else (False, least)
        if found > (rank[0], rank[1] + GAIN):
            best, rank = cameras, found
    return best


def covered(cameras: list[Camera], boxes: Floats) -> float:
    """The largest share, mean over frames, of anybody's box in the image that a nearer one's box covers."""
    frames, count = len(boxes), boxes.shape[1]
    shares = np.zeros((frames, count))
    for k, (camera, frame) in enumerate(zip(cameras, boxes, strict=True)):
        pixels, depth = camera.project(corners_of(frame))
        low, high, far = pixels.min(axis=1), pixels.max(axis=1), depth.mean(axis=1)
        for i in range(count):
            over = np.minimum(high, high[i]) - np.maximum(low, low[i])
            area = over.clip(0).prod(axis=1) / max(float((high[i] - low[i]).prod()), 1e-9)
            shares[k, i] = area[far < far[i]].max(initial=0.0)
    return float(shares.mean(axis=0).max())


def side_of(forward: Floats, angle: float = ANGLES[0]) -> tuple[float, float]:
    """Azimuths, degrees, from which actors facing `forward` [F, A, 3] are seen at an angle: the one nearer to
    the front of the stage first."""
    mean = forward.reshape(-1, 3).mean(axis=0)
    if np.linalg.norm(mean[:2]) < 0.2:
        return 0.0, 0.0
    way = float(np.degrees(np.arctan2(mean[0], -mean[1])))
    first, second = sorted(((way + turn + 180) % 360 - 180 for turn in (angle, -angle)), key=abs)
    return first, second


def _views(forward: Floats, marks: Sequence[Mark]) -> Iterator[View]:
    middles = [(box.mean(axis=0) + 0.5 * (box - box.mean(axis=0)), when) for box, when in marks]
    sides = [side_of(forward)[0]]
    for angle in ANGLES:
        sides += [a for a in side_of(forward, angle) if abs(a) <= ASIDE and a not in sides]
    for seen in (marks, middles, ()) if marks else ((),):
        for moves, fov, azimuth in product((False, True), LENSES, sides):
            yield View(azimuth, fov, moves, seen)


def _cameras(view: View, boxes: Floats, seconds: float, size: int) -> list[Camera]:
    """The cameras of a view, as near as everybody and what is due allow."""
    frames, tan = len(boxes), tan_half(view.fov)
    elevation = ELEVATIONS["eye"]
    c2w = orbit_c2w(view.azimuth, elevation, 1.0)
    axes = c2w[:3, :3]
    held = [
        corners_of(np.array([*frame, *_due(view.marks, i, frames)])).reshape(-1, 3) @ axes
        for i, frame in enumerate(boxes)
    ]
    if view.moves:
        reach = round(SMOOTH * frames / max(seconds, 1e-6))
        eyes = smooth(np.stack([tightest(local, tan) for local in held]), reach)
        needs = [back_for(local, eye, tan) - eye[2] for local, eye in zip(held, eyes, strict=True)]
        eyes[:, 2] += max(needs)
    else:
        eyes = np.repeat(tightest(np.concatenate(held), tan)[None], frames, axis=0)
    focal = focal_from_fov(view.fov, size)
    found = []
    for eye in eyes:
        pose = c2w.copy()
        pose[:3, 3] = axes @ eye
        # An eye below the ground is raised, its direction kept: what is upright stays upright.
        pose[2, 3] = max(pose[2, 3], LOWEST)
        found.append(Camera(pose, focal, focal, size / 2, size / 2, size, size))
    return found


def _due(marks: Sequence[Mark], frame: int, frames: int) -> list[Floats]:
    """Boxes of the marks to be seen in a frame: those of the start in the first quarter, of the end in the
    last."""
    share = (frame + 0.5) / frames
    return [box for box, when in marks if {"start": share < 0.25, "end": share > 0.75}.get(when, True)]


def smooth(points: Floats, reach: int) -> Floats:
    """Means [F, 3] over `reach` frames before and after, twice, so that a camera neither jumps nor jerks."""
    found = points
    for _ in range(2):
        wide = np.concatenate([found[:1].repeat(reach, 0), found, found[-1:].repeat(reach, 0)])
        found = np.stack([wide[i : i + 2 * reach + 1].mean(axis=0) for i in range(len(points))])
    return found


def _hidden(cameras: list[Camera], boxes: Floats, marks: Sequence[Mark]) -> bool:
    """Whether a landmark stands before the middle of anybody in a tenth of the frames or more."""
    tall = [box for box, _ in marks if box[1, 2] - box[0, 2] > 0.05]
    middles = boxes.mean(axis=2)
    count = 0
    for camera, frame in zip(cameras, middles, strict=True):
        count += any(_crosses(camera.position, point, box) for box in tall for point in frame)
    return count >= 0.1 * len(cameras)


def _crosses(eye: Floats, point: Floats, box: Floats) -> bool:
    """Whether the segment from `eye` to `point` goes through a box [2, 3], by slabs."""
    way = np.where(np.abs(point - eye) < 1e-12, 1e-12, point - eye)
    near, far = np.sort((box - eye) / way, axis=0)
    return bool(max(float(near.max()), 0.0) < min(float(far.min()), 1.0))


__all__ = ["FILL", "LEAST", "Mark", "establish", "side_of", "smooth"]
