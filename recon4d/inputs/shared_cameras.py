"""Video and static orbit of one capture: the one without cameras is on those of the other."""

from __future__ import annotations

from dataclasses import replace

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec


def with_shared_cameras(dynamic: Frames, static: Frames, spec: OrbitSpec | None) -> tuple[Frames, Frames]:
    """Video and static orbit, the one without cameras of its own with those of the other.

    Where neither has any, both are on the orbit of `spec`. Raises InputError for a static orbit without
    cameras beside a video of another length that has some: no orbit can be guessed for it.
    """
    if dynamic.posed == static.posed:
        return dynamic, static
    counts = [frames.given or len(frames) for frames in (dynamic, static)]
    if dynamic.posed:
        if counts[0] != counts[1]:
            raise InputError(
                f"{static.name}: {counts[1]} frames of a static orbit without cameras beside a video of "
                f"{counts[0]} with cameras; give --static-cameras"
            )
        return dynamic, _posed_like(static, dynamic, "cameras of the video")
    if spec not in (None, OrbitSpec()):
        return dynamic, static
    if counts[0] == counts[1]:
        return _posed_like(dynamic, static, "cameras of the static orbit"), static
    note = "the default orbit was taken, though the static orbit has cameras; give --cameras or --orbit"
    return replace(dynamic, notes=(*dynamic.notes, note)), static


def _posed_like(frames: Frames, other: Frames, note: str) -> Frames:
    h, w = frames.rgba.shape[1:3]
    cameras = tuple(c if (c.w, c.h) == (w, h) else c.resized(w, h) for c in other.cameras)
    return replace(frames, cameras=cameras, posed=True, notes=(*frames.notes, note))
