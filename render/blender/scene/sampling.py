# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""The times at which one action is measured, and what connects the vertices that are seen there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.surfaces import Key, Points, Surface, visible_surfaces
from orbit4d.render.blender.geometry.track import Track
from orbit4d.render.blender.importers.load import ActionInfo, Loaded
from orbit4d.render.blender.scene.motion import look_at, moving_window, search_looks, stride_for
from orbit4d.render.planning import window

#: Edges that torn skins are looked for on.
MAX_EDGES = 8_000
#: Keys of a long action at which it is measured beside even times.
MAX_MEASURED_KEYS = 60


@dataclass
class Topology:
    """What connects the vertices of all surfaces, numbered through in the order of `visible_surfaces`."""

    counts: dict[Key, int]
    edges: npt.NDArray[np.int64]
    """[E, 2], at most MAX_EDGES, evenly chosen."""
    triangles: npt.NDArray[np.int64]
    """[K, 3]."""

    @property
    def n_vertices(self) -> int:
        return sum(self.counts.values())

    def fits(self, surfaces: Sequence[Surface]) -> bool:
        """Whether the same surfaces are seen, with as many vertices."""
        return self.counts == {surface.key: len(surface.local) for surface in surfaces}


def topology_of(surfaces: Sequence[Surface]) -> Topology:
    """Of surfaces that were read with their topology."""
    edges, triangles, offset = [], [], 0
    for surface in surfaces:
        if surface.edges is not None and surface.triangles is not None:
            edges.append(surface.edges + offset)
            triangles.append(surface.triangles + offset)
        offset += len(surface.local)
    every_edge = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    return Topology(
        {surface.key: len(surface.local) for surface in surfaces},
        every_edge[:: max(1, -(-len(every_edge) // MAX_EDGES))],
        np.concatenate(triangles) if triangles else np.zeros((0, 3), np.int64),
    )


def sizes(loaded: Loaded) -> tuple[int, int]:
    """(vertices, triangles) of all surfaces that the first action shows at its start, middle or end."""
    first = loaded.actions[0] if loaded.actions else None
    times = [0.0] if first is None else np.linspace(first.seconds_start, first.seconds_end, 3).tolist()
    found: dict[Key, tuple[int, int]] = {}
    for t in times:
        loaded.set_seconds(t)
        for surface in visible_surfaces(loaded, topology=True):
            triangles = 0 if surface.triangles is None else len(surface.triangles)
            found.setdefault(surface.key, (len(surface.local), triangles))
    return sum(n for n, _ in found.values()), sum(n for _, n in found.values())


def points_of(surfaces: Sequence[Surface]) -> Points:
    parts = [surface.points() for surface in surfaces]
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


@dataclass
class Samples:
    """One walk over the active action."""

    seconds: list[float]
    window: tuple[float, float] | None
    track: Track
    n_looks: int
    """Times at which the action was evaluated."""
    keys: frozenset[float] = frozenset()
    """Those of `seconds` that are keys between even times."""

    @property
    def inside(self) -> list[int]:
        """Samples that lie in the window; the first one alone without a window."""
        if self.window is None:
            return [next((i for i in range(len(self.track)) if self.track.steps[i]), 0)]
        start, end = self.window
        return [i for i, t in enumerate(self.seconds) if start - 1e-9 <= t <= end + 1e-9]


def sample(loaded: Loaded, action: ActionInfo | None, topology: Topology) -> Samples:
    """Find the moving window of the active action (None: a still asset), and sample it.

    Thinning is that of `motion`, so that the window found here is the one render will find.
    """
    if action is None:
        track = Track(stride_for(topology.n_vertices), topology.counts, topology.edges)
        return Samples([0.0], None, look_at(loaded, [0.0], track), 1)
    span = action.seconds_start, action.seconds_end, loaded.fps
    n = topology.n_vertices
    for t in np.linspace(*span[:2], 3):
        # Most of it may be hidden at first.
        loaded.set_seconds(float(t))
        n = max(n, sum(len(surface.local) for surface in visible_surfaces(loaded)))
    track = Track(stride_for(n), topology.counts, topology.edges)
    looks = search_looks(loaded, action)
    if len(looks[0]) <= window.MAX_SAMPLES:
        seconds = window.dense_seconds(*span)
        look_at(loaded, seconds, track)
        number = {t: i for i, t in enumerate(seconds)}
        found = window.search_window(seconds, lambda t: track.places(number[t]))
        if found is not None or len(looks) == 1:
            return Samples(seconds, found, track, len(seconds))
    found = moving_window(loaded, action)
    track = Track(stride_for(n), topology.counts, topology.edges, extremes=False)
    if found is None:
        n_looks = len({t for times in looks for t in times})
        return Samples(list(span[:1]), None, look_at(loaded, span[:1], track), n_looks)
    even = window.dense_seconds(*found, loaded.fps)
    keys = _some_keys(loaded, action, found) - set(even)
    seconds = sorted({*even, *keys})
    return Samples(seconds, found, look_at(loaded, seconds, track), len(seconds), keys)


def _some_keys(loaded: Loaded, action: ActionInfo, found: tuple[float, float]) -> frozenset[float]:
    """Up to MAX_MEASURED_KEYS times of a window at which the action has keys."""
    keys = [t for t in loaded.key_seconds(action.index) if found[0] < t < found[1]]
    kept = np.linspace(0, len(keys) - 1, min(len(keys), MAX_MEASURED_KEYS)).round().astype(int)
    return frozenset(keys[int(i)] for i in kept)
