"""Whether a camera stood still, from its pixels alone: corner tracks of the background.

Corners of the first frame are followed to every other one (Lucas and Kanade 1981, in a pyramid, forward and
backward), and the camera stands still where the median of the background's tracks stays within 0.5 % of the
width. Everything is compared with the first frame, so that no drift adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[np.float64]
#: Largest median displacement of a still camera, as a share of the width.
STILL_SHARE = 0.005
#: Frames a second that are inspected.
FPS = 8.0
#: Fewest tracks that say something.
FEWEST = 8
_MOST, _WINDOW, _LEVELS, _ROUNDS = 200, 4, 3, 12
#: Pixels that a track may miss its start by on the way back.
_RETURN = 0.5
#: Change of grey (0 to 1) that is motion, not noise of a codec.
_CHANGED = 0.06


@dataclass(frozen=True)
class Tracks:
    """Points of the first frame, followed through a clip."""

    places: Float
    """[F, N, 2] column and row in pixels."""
    alive: npt.NDArray[np.bool_]
    """[F, N], whether a point was found again."""


@dataclass(frozen=True)
class CameraMotion:
    """What the background's tracks say."""

    shift: float
    """Largest median displacement from the first frame, as a share of the width; inf where the background was
    lost on the way, NaN where there is too little of it to say."""
    tracks: int
    """Tracks of the background at the first frame."""

    @property
    def is_still(self) -> bool:
        """Whether the camera stood still; False where nothing can be said."""
        return self.shift < STILL_SHARE


def camera_motion(
    frames: npt.NDArray[np.uint8],
    fps: float = FPS,
    mask: npt.NDArray[np.bool_] | None = None,
    tracks: Tracks | None = None,
) -> CameraMotion:
    """Of a clip [F, H, W, 3 or 4], inspected 8 times a second.

    mask: [H, W] or [F, H, W], what moves by itself or shows no background. None: what changes in place, or
    nothing where that is most corners, since then the image as a whole moves.
    tracks: of another tracker, one entry for each of the `frames`; None: the one of this module.
    """
    stride = max(1, round(fps / FPS))
    images = frames[::stride]
    if tracks is not None:
        tracks = Tracks(tracks.places[::stride], tracks.alive[::stride])
    grey = _grey(images)
    found = tracks or track_corners(grey)
    if mask is None:
        inside = _at(_changed(grey), found.places[0])
        background = ~inside if 2 * inside.sum() <= len(inside) else np.ones(len(inside), bool)
    else:
        masks = np.broadcast_to(mask, (len(frames), *mask.shape[-2:]))[::stride]
        background = ~np.any([_at(m, p) for m, p in zip(masks, found.places)], axis=0)
    return motion_of_tracks(found, images.shape[2], background)


def motion_of_tracks(
    tracks: Tracks, width: int, background: npt.NDArray[np.bool_] | None = None
) -> CameraMotion:
    """Of tracks alone; `background` [N] says which are not of something that moves by itself."""
    chosen = tracks.alive[0] if background is None else tracks.alive[0] & background
    count = int(chosen.sum())
    if count < FEWEST:
        return CameraMotion(float("nan"), count)
    apart = np.linalg.norm(tracks.places - tracks.places[0], axis=-1)
    worst = 0.0
    for moved, alive in zip(apart[:, chosen], tracks.alive[:, chosen]):
        if alive.sum() < max(FEWEST // 2, count // 4):
            return CameraMotion(float("inf"), count)
        worst = max(worst, float(np.median(moved[alive])))
    return CameraMotion(worst / width, count)


def track_corners(grey: Float, most: int = _MOST) -> Tracks:
    """Corners of the first of [F, H, W] grey images (0 to 1), followed to all others."""
    pyramids = [_pyramid(image) for image in grey]
    start = corners(grey[0], most)
    places, alive = [start], [np.ones(len(start), bool)]
    for pyramid in pyramids[1:]:
        there, good = _follow(pyramids[0], pyramid, start, places[-1])
        back, returned = _follow(pyramid, pyramids[0], there, start)
        good &= returned & (np.linalg.norm(back - start, axis=1) < _RETURN)
        # A lost point waits where it was seen last.
        places.append(np.where(good[:, None], there, places[-1]))
        alive.append(good)
    return Tracks(np.array(places), np.array(alive))


def corners(grey: Float, most: int = _MOST) -> Float:
    """[N, 2] column and row of the strongest corners (Shi and Tomasi 1994), away from the border."""
    dy, dx = np.gradient(grey)
    a, b, c = (ndimage.gaussian_filter(v, 1.5) for v in (dx * dx, dx * dy, dy * dy))
    strength = (a + c) / 2 - np.sqrt(((a - c) / 2) ** 2 + b * b)
    edge = _WINDOW + 1
    peak = strength == ndimage.maximum_filter(strength, size=5)
    peak[:edge], peak[-edge:], peak[:, :edge], peak[:, -edge:] = False, False, False, False
    peak &= strength > max(0.01 * float(strength.max(initial=0.0)), 1e-6)
    rows, columns = np.nonzero(peak)
    order = np.argsort(-strength[rows, columns], kind="stable")[:most]
    return np.stack([columns[order], rows[order]], axis=1).astype(float)


def _grey(images: npt.NDArray[np.uint8]) -> Float:
    """[F, H, W] in 0 to 1."""
    return images[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255


def _changed(grey: Float) -> npt.NDArray[np.bool_]:
    """[H, W], where a pixel or a neighbour differs from the first frame at any time."""
    smooth = np.array([ndimage.gaussian_filter(image, 1.0) for image in grey])
    moved = (np.abs(smooth - smooth[0]) > _CHANGED).any(axis=0)
    found: npt.NDArray[np.bool_] = ndimage.binary_dilation(moved, iterations=_WINDOW)
    return found


def _at(mask: npt.NDArray[np.bool_], places: Float) -> npt.NDArray[np.bool_]:
    """[N], the mask at places."""
    columns, rows = np.rint(places).astype(int).T
    height, width = mask.shape
    found: npt.NDArray[np.bool_] = mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return found


def _pyramid(image: Float) -> list[Float]:
    """Finest first; no level under 16 pixels."""
    levels = [ndimage.gaussian_filter(image, 0.7)]
    while len(levels) < _LEVELS and min(levels[-1].shape) >= 32:
        levels.append(ndimage.gaussian_filter(levels[-1], 1.0)[::2, ::2])
    return levels


def _follow(
    first: list[Float], second: list[Float], start: Float, guess: Float
) -> tuple[Float, npt.NDArray[np.bool_]]:
    """Where the windows around `start` [N, 2] of the first image lie in the second, and which were found."""
    moved, good = guess - start, np.ones(len(start), bool)
    offsets = np.arange(-_WINDOW, _WINDOW + 1.0)
    window = np.stack(np.meshgrid(offsets, offsets), axis=-1).reshape(1, -1, 2)
    for level in reversed(range(len(first))):
        scale = 0.5**level
        at = start[:, None] * scale + window
        dy, dx = np.gradient(first[level])
        gx, gy, template = (_sample(image, at) for image in (dx, dy, first[level]))
        a, b, c = (gx * gx).sum(1), (gx * gy).sum(1), (gy * gy).sum(1)
        determinant = a * c - b * b
        solvable = determinant > 1e-9
        inverse = np.where(solvable, 1 / np.where(solvable, determinant, 1), 0)
        for _ in range(_ROUNDS):
            off = template - _sample(second[level], at + moved[:, None] * scale)
            u, v = (gx * off).sum(1), (gy * off).sum(1)
            step = np.stack([c * u - b * v, a * v - b * u], axis=1) * inverse[:, None]
            moved = moved + step.clip(-2, 2) / scale
        if not level:
            good &= solvable
    height, width = first[0].shape
    there = start + moved
    good &= ((there >= 0) & (there <= [width - 1, height - 1])).all(axis=1)
    return there, good


def _sample(image: Float, at: Float) -> Float:
    """Values at [N, M, 2] columns and rows."""
    found: Float = ndimage.map_coordinates(image, [at[..., 1], at[..., 0]], order=1, mode="nearest")
    return found
