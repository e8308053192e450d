# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Where every visible vertex of a loaded asset is at given times, and when an action moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.surfaces import points_now, visible_surfaces
from orbit4d.render.blender.geometry.track import Track
from orbit4d.render.blender.importers.load import ActionInfo, Loaded
from orbit4d.render.planning import window

Points = npt.NDArray[np.float32]


def vertices_now(loaded: Loaded, stride: int = 1) -> list[Points]:
    """World positions [V_k, 3] of every (`stride`-th) vertex of every visible surface after modifiers, at the
    current time.
    """
    return [surface.points(stride) for surface in visible_surfaces(loaded)]


def bounding_corners(loaded: Loaded) -> Points:
    """World positions [8 * surfaces, 3] of the corners of every object's own box, as the published script
    reads them. Looser than the vertices where an object is turned."""
    corners = [surface.corners() for surface in visible_surfaces(loaded)]
    return np.concatenate(corners).astype(np.float32) if corners else np.zeros((0, 3), np.float32)


def iter_points(loaded: Loaded, seconds: Sequence[float]) -> Iterator[Points]:
    """`points_now` [V, 3] at each of `seconds`, one after another."""
    for t in seconds:
        loaded.set_seconds(t)
        yield points_now(loaded)


def sample_vertices(loaded: Loaded, seconds: Sequence[float], max_vertices: int | None = None) -> Points:
    """World positions [T, V, 3] float32 of all vertices at `seconds` of the active action, helpers excluded.

    With `max_vertices` only every k-th vertex of each surface is taken. A surface whose vertex count changes
    (an Alembic fluid, say) is stood for by its extreme vertices along 26 directions; one that is not seen at
    some times stands there where it is first seen, or was seen last (see `Track`).
    """
    if not len(seconds):
        return np.zeros((0, 0, 3), np.float32)
    loaded.set_seconds(seconds[0])
    total = sum(len(surface.local) for surface in visible_surfaces(loaded))
    stride = 1 if max_vertices is None else max(1, -(-total // max_vertices))
    return look_at(loaded, seconds, Track(stride)).body(range(len(seconds)))


def look_at(loaded: Loaded, seconds: Sequence[float], track: Track) -> Track:
    """`track` with the surfaces of the active action at each of `seconds` added."""
    for t in seconds:
        loaded.set_seconds(t)
        track.add(visible_surfaces(loaded))
    return track


def stride_for(n_vertices: int) -> int:
    """Of how many vertices one is inspected, so that at most `window.MAX_VERTICES` are."""
    return max(1, -(-n_vertices // window.MAX_VERTICES))


def search_looks(loaded: Loaded, action: ActionInfo) -> list[list[float]]:
    """The times at which motion is looked for, and then those that are inspected if none was found.

    Keys between frames are inspected where nothing moves on the frames, and at once in actions so long that
    not every frame is.
    """
    span = action.seconds_start, action.seconds_end, loaded.fps
    keys = loaded.key_seconds(action.index)
    if window.is_long(*span):
        return [window.search_seconds(*span, keys)]
    frames, both = window.search_seconds(*span), window.search_seconds(*span, keys)
    return [frames] if len(frames) == len(both) else [frames, both]


def moving_window(loaded: Loaded, action: ActionInfo) -> tuple[float, float] | None:
    """(start, end) in seconds between which `action` moves, None when it never does. Leaves `action` active.

    Looked for at every frame of the file, up to `window.MAX_LOOKS`: a few even samples can all land on
    times at which nothing is displaced.
    """
    loaded.activate(action.index)
    stride: int | None = None

    def places(t: float) -> Points:
        nonlocal stride
        loaded.set_seconds(t)
        surfaces = visible_surfaces(loaded)
        if stride is None and surfaces:
            stride = stride_for(sum(len(surface.local) for surface in surfaces))
        parts = [surface.points(stride or 1) for surface in surfaces]
        return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)

    searched = (window.search_window(seconds, places) for seconds in search_looks(loaded, action))
    return next((found for found in searched if found is not None), None)
