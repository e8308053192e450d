"""Turntables: a scene along a camera path as mp4 on a colour, webm or mov with alpha."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.progress import track
from orbit4d.datasets.videos.video import write_video
from orbit4d.recon4d.filming import camera_path, on_colour
from orbit4d.recon4d.scene import Scene

RGBA = npt.NDArray[np.uint8]
#: Container -> codec, pixel format and options of the encoder. VP9's alpha is a second stream of its own.
_CODECS = {
    "webm": ("libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "24", "b": "0", "row-mt": "0"}),
    "mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
}
#: Pixels that colours are carried outwards where nothing is: 4:2:0 would darken rims with the black beside.
_REACH = 4


def write_turntable(
    scene: Scene,
    path: str | Path,
    kind: str,
    rig: str,
    frames: int,
    size: int | None,
    fps: float,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Write `kind` (mp4, webm or mov). A loop does not repeat its first frame; mp4 has no alpha."""
    views = camera_path(scene, rig, frames, size)
    drawn = (scene.render(camera, time) for camera, time in track(views, f"export {kind}", unit="frame"))
    if kind == "mp4":
        write_video(path, np.stack([on_colour(view, background) for view in drawn]), fps)
        return
    write_alpha_video(path, ((view * 255 + 0.5).astype(np.uint8) for view in drawn), fps, kind)


def write_alpha_video(path: str | Path, frames: Iterator[RGBA], fps: float, kind: str = "webm") -> None:
    """Straight RGBA frames [H, W, 4] as a video with alpha; odd sizes are padded with nothing."""
    import av

    codec, pixels, options = _CODECS[kind]
    with av.open(os.path.abspath(path), "w", format=kind) as container:
        stream: Any = None
        for index, rgba in enumerate(frames):
            rgba = np.pad(rgba, ((0, rgba.shape[0] % 2), (0, rgba.shape[1] % 2), (0, 0)))
            if stream is None:
                stream = container.add_stream(codec, Fraction(fps).limit_denominator(1001), options=options)
                stream.height, stream.width = rgba.shape[:2]
                stream.pix_fmt = pixels
                stream.codec_context.thread_count = 1
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(_bled(rgba)), format="rgba")
            frame = frame.reformat(format=pixels)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _bled(rgba: RGBA) -> RGBA:
    """Colours carried into the empty pixels around them; alpha stays."""
    out = rgba.copy()
    known = rgba[..., 3] > 0
    for _ in range(_REACH):
        total, count = np.zeros((*known.shape, 3)), np.zeros(known.shape)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = np.roll(known, step, axis)
            total += np.roll(out[..., :3], step, axis) * beside[..., None]
            count += beside
        new = ~known & (count > 0)
        out[new, :3] = (total[new] / count[new, None] + 0.5).astype(np.uint8)
        known = known | new
    return out
