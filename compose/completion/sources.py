"""An input as the warp takes it: as a source of points and triangles, by a released rule, or not warped at
all where a target camera repeats it.

An input with alpha is warped with it: four channels, the colours premultiplied, so that nothing of the colour
behind the object is mixed in; `composed` lays the result on the background that a model was trained on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.compose.completion.view import View
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.images.resize import resampled
from orbit4d.model.guided.warp import Rule, Source, Warped, forward_warp

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

#: A source sampled this much more finely than the target is reduced first: a warp takes points, not areas.
FINER = 2


def as_source(view: View, target: Camera, with_alpha: bool = False) -> Source:
    """A view as the warp takes it; one that is sampled much more finely than the target is reduced.

    `with_alpha`: the image is premultiplied RGBA [h, w, 4], else straight RGB [h, w, 3].
    """
    camera = view.camera
    assert camera is not None
    image, depth = view.premultiplied if with_alpha else view.image, view.solid_depth
    times = int(camera.fl_x / target.fl_x)
    if times >= FINER:
        h, w = (side // times * times for side in depth.shape)
        known = np.isfinite(depth[:h, :w])
        # Straight colours count where there is an object; premultiplied ones are a mean over the area.
        weight = (known | with_alpha).reshape(h // times, times, w // times, times).astype(np.float32)
        blocks = image[:h, :w].reshape(h // times, times, w // times, times, -1)
        total = weight.sum((1, 3))
        mean = (blocks * weight[..., None]).sum((1, 3)) / np.maximum(total, 1)[..., None]
        middle = depth[times // 2 : h : times, times // 2 : w : times]
        count = known.reshape(h // times, times, w // times, times).sum((1, 3))
        image = mean.astype(np.float32)
        depth = np.where(count * 2 >= times * times, middle, np.float32(np.inf))
        camera = replace(
            camera, fl_x=camera.fl_x / times, fl_y=camera.fl_y / times, cx=camera.cx / times,
            cy=camera.cy / times, w=w // times, h=h // times,
        )  # fmt: skip
    return Source(np.ascontiguousarray(image), depth.astype(np.float32), camera.K, camera.w2c_opencv)


def composed(found: Warped, background: tuple[int, int, int]) -> tuple[Warped, Floats | None]:
    """A warp of premultiplied RGBA on a background, and its alpha [H, W]; one of RGB as it is, and None."""
    if found.image.shape[-1] == 3:
        return found, None
    alpha = found.image[..., 3].clip(0, 1)
    image = found.image[..., :3] + np.array(background, np.float32) / 255 * (1 - alpha[..., None])
    return replace(found, image=image.astype(np.float32)), alpha.astype(np.float32)


def released(group: list[View], target: Camera, background: tuple[int, int, int], rule: Rule) -> Warped:
    """A released rule from the nearest input, which is brought to the target's size as the release does."""
    apart = [np.linalg.norm(position(view) - target.position) for view in group]
    view = group[int(np.argmin(apart))]
    size = (target.w, target.h)
    assert view.depth is not None
    image = np.asarray(
        Image.fromarray(np.rint(view.on(background) * 255).astype(np.uint8)).resize(
            size, Image.Resampling.NEAREST
        )
    )
    rows = np.minimum((np.arange(size[1]) + 0.5) * view.size[1] / size[1], view.size[1] - 1).astype(int)
    columns = np.minimum((np.arange(size[0]) + 0.5) * view.size[0] / size[0], view.size[0] - 1).astype(int)
    depth = view.depth[rows[:, None], columns]
    # The released code knows no infinity; its own conversion ends at 500.
    depth = np.where(np.isfinite(depth), depth, 500.0)
    k = target.K.copy()
    k[:2, 2] -= 0.5
    assert view.camera is not None
    warped, seen = forward_warp(image, depth, k, view.camera.w2c_opencv, target.w2c_opencv, rule)
    return Warped(
        warped.astype(np.float32) / 255, seen, np.zeros(seen.shape, np.float32), seen.astype(np.float32)
    )


def recaptured(view: View, camera: Camera, background: tuple[int, int, int]) -> tuple[Floats, Floats | None]:
    """A view on the pixels of a camera at the same place: scaled and cut, never warped.

    [H, W, 3] on the background, and its alpha [H, W] where it has one.
    """
    image = _resampled(view.on(background), view, camera)
    alpha = None if view.alpha is None else _resampled(view.alpha[..., None], view, camera)[..., 0]
    return image, alpha


def _resampled(planes: Floats, view: View, camera: Camera) -> Floats:
    """[h, w, C] of a view as [H, W, C] of a camera at the same place."""
    own = view.camera
    assert own is not None
    zoom = own.fl_x / camera.fl_x
    left, top = own.cx - camera.cx * zoom, own.cy - camera.cy * zoom
    box = (left, top, left + camera.w * zoom, top + camera.h * zoom)
    w, h = view.size
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], w), min(box[3], h))
    if box == (0.0, 0.0, w, h) and (w, h) == (camera.w, camera.h):
        return planes
    return resampled(planes, (camera.w, camera.h), zoom > 1, box=box).clip(0, 1).astype(np.float32)


def position(view: View) -> Array:
    """Of its camera."""
    assert view.camera is not None
    return view.camera.position


def w2c(view: View) -> Array:
    """World to camera [4, 4], OpenCV axes."""
    assert view.camera is not None
    return view.camera.w2c_opencv
