"""Geometry made visible: depth, flow, tracks and the skeleton of a clip as images for people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from orbit4d.datasets.geometry.clip import ClipGeometry
from orbit4d.datasets.geometry.skeleton import Skeleton

Pixels = npt.NDArray[np.uint8]

#: Names of the layers, in the order in which they are offered.
LAYERS = ("depth", "flow", "tracks", "skeleton")
#: Points that are followed, and frames of the trail behind each.
TRACKS, TRAIL = 160, 6
_WHITE = (255, 255, 255)
#: Near to far, of even steps in lightness.
_DEPTHS = np.array(
    [(252, 231, 164), (246, 190, 106), (231, 138, 88), (202, 87, 98), (152, 56, 117), (92, 41, 116),
     (34, 24, 68)], np.float64,
)  # fmt: skip


def layers(clip: ClipGeometry, images: Pixels, skeleton: Skeleton | None = None) -> dict[str, Pixels]:
    """Name of LAYERS -> frames uint8 [F, H, W, 3] of a clip; `images` are its own frames over a background,
    on which tracks and skeleton are drawn. Without a skeleton there is no such layer.
    """
    return {name: make() for name, make in makers(clip, images, skeleton).items()}


def makers(
    clip: ClipGeometry, images: Pixels, skeleton: Skeleton | None = None
) -> dict[str, Callable[[], Pixels]]:
    """As `layers`, each made when it is called for."""
    found: dict[str, Callable[[], Pixels]] = {
        "depth": lambda: depth_frames(clip),
        "flow": lambda: flow_frames(clip),
        "tracks": lambda: track_frames(clip, images),
    }
    if skeleton is not None:
        found["skeleton"] = lambda: skeleton_frames(clip, images, skeleton)
    return found


def depth_frames(clip: ClipGeometry) -> Pixels:
    """Near is light, far is dark, between the nearest and the farthest surface of the whole clip; white where
    nothing is seen.
    """
    depths = np.stack([clip.depth(f) for f in range(len(clip))])
    seen = np.isfinite(depths)
    out = np.full((*depths.shape, 3), 255, np.uint8)
    if seen.any():
        near, far = depths[seen].min(), depths[seen].max()
        share = (depths[seen] - near) / (float(far - near) or 1.0) * (len(_DEPTHS) - 1)
        colours = [np.interp(share, np.arange(len(_DEPTHS)), _DEPTHS[:, k]) for k in range(3)]
        out[seen] = np.rint(np.stack(colours, axis=-1)).astype(np.uint8)
    return out


def flow_frames(clip: ClipGeometry) -> Pixels:
    """Flow from each frame to the next one as colours of the wheel; the last frame's runs from the frame
    before it. One scale for the whole clip: the 99th percentile of the lengths is full colour.
    """
    n = len(clip)
    pairs = [(f, f + 1) if f + 1 < n else (f, max(f - 1, 0)) for f in range(n)]
    flows = [clip.flow(a, b)[0] * (1.0 if b >= a else -1.0) for a, b in pairs]
    seen = np.stack([clip.triangles(f) >= 0 for f in range(n)])
    lengths = np.linalg.norm(np.stack(flows), axis=-1)[seen]
    largest = float(np.percentile(lengths, 99.0)) if lengths.size else 1.0
    return np.stack([wheel(flow, largest, where) for flow, where in zip(flows, seen)])


def wheel(
    flow: npt.NDArray[np.floating], largest: float, seen: npt.NDArray[np.bool_] | None = None
) -> Pixels:
    """[H, W, 3] colours of a flow [H, W, 2]: the hue is the direction (right red, down yellow-green, left
    cyan, up violet), the strength the length, white at rest and where nothing is `seen`.
    """
    hue = (np.arctan2(flow[..., 1], flow[..., 0]) / (2.0 * np.pi)) % 1.0
    strength = np.clip(np.linalg.norm(flow, axis=-1) / max(largest, 1e-6), 0.0, 1.0)
    if seen is not None:
        strength = np.where(seen, strength, 0.0)
    # Hue to RGB, mixed with white by the strength.
    ramps = np.abs((hue[..., None] * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0
    pure = np.clip(ramps, 0.0, 1.0)
    return np.rint(255.0 * (1.0 - strength[..., None] * (1.0 - pure))).astype(np.uint8)


def track_frames(clip: ClipGeometry, images: Pixels, n: int = TRACKS) -> Pixels:
    """Points on the surface in colours of their own, each with the trail of the frames before while seen."""
    if not any((clip.triangles(f) >= 0).any() for f in range(len(clip))):
        return images.copy()
    xyz, pixels, visible = clip.tracks(n, 0)
    colours = _spread(xyz[:, 0])
    unit = max(images.shape[1:3]) / 256.0
    out = []
    for f in range(len(clip)):
        image, draw, factor = _canvas(images[f])
        for i in range(len(xyz)):
            if not visible[i, f]:
                continue
            # The trail starts where the point came into sight: what lies before is behind something.
            first = f
            while first > max(f - TRAIL, 0) and visible[i, first - 1]:
                first -= 1
            path = [tuple(factor * place) for place in pixels[i, first : f + 1]]
            if len(path) > 1:
                draw.line(path, fill=colours[i], width=max(round(factor * unit), 1))
            _dot(draw, path[-1], 1.7 * unit * factor, colours[i])
        out.append(_shrunk(image, images[f]))
    return np.stack(out)


def skeleton_frames(clip: ClipGeometry, images: Pixels, skeleton: Skeleton) -> Pixels:
    """Bones from parent to child over the paled image; joints behind another part of the body are hollow."""
    unit = max(images.shape[1:3]) / 256.0
    out = []
    for f in range(len(clip)):
        paled = (0.55 * images[f] + 0.45 * 255).astype(np.uint8)
        image, draw, factor = _canvas(paled)
        pixels, inside, front = skeleton.joints_2d(clip, f)
        ahead = clip.cameras[f].project(skeleton.pose[clip.times[f]][:, :3, 3])[1] > 0
        for j, parent in enumerate(skeleton.parents):
            if parent >= 0 and ahead[j] and ahead[parent]:
                ends = [tuple(factor * pixels[k]) for k in (parent, j)]
                draw.line(ends, fill=(35, 60, 120), width=max(round(1.6 * unit * factor), 1))
        for j in np.flatnonzero(inside):
            place = tuple(factor * pixels[j])
            _dot(draw, place, 2.6 * unit * factor, (200, 40, 40))
            if not front[j]:
                _dot(draw, place, 1.5 * unit * factor, _WHITE)
        out.append(_shrunk(image, paled))
    return np.stack(out)


def _spread(places: npt.NDArray[np.floating]) -> list[tuple[int, int, int]]:
    """Colours of points by where they lie, so that neighbours look alike and parts differ."""
    low, high = places.min(axis=0), places.max(axis=0)
    share = (places - low) / np.maximum(high - low, 1e-9)
    return [(int(r), int(g), int(b)) for r, g, b in (40 + 200 * share)]


#: Lines are drawn at this multiple of the size and shrunk, since Pillow draws them without smoothing.
_FINE = 3


def _canvas(pixels: Pixels) -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
    image = Image.fromarray(pixels)
    image = image.resize((image.width * _FINE, image.height * _FINE), Image.Resampling.BICUBIC)
    return image, ImageDraw.Draw(image), float(_FINE)


def _shrunk(image: Image.Image, like: Pixels) -> Pixels:
    return np.asarray(image.resize((like.shape[1], like.shape[0]), Image.Resampling.BOX))


def _dot(
    draw: ImageDraw.ImageDraw, place: tuple[float, ...], radius: float, colour: tuple[int, int, int]
) -> None:
    x, y = place
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
