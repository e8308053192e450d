# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `measure`: every action of one asset in numbers, before anything is rendered in earnest.

All vertices that are seen are evaluated at every frame of the file, since a few even samples can all land on
moments at which nothing is displaced; actions of more than 241 frames are looked through for their moving
window first, then measured at up to 241 moments of it and at keys. Pictures are three tiny ones an action,
from the front.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render import geometry_measures as geometry
from orbit4d.render import window
from orbit4d.render.blender.load import ActionInfo, Loaded, load_asset
from orbit4d.render.blender.motion import look_at, moving_window, search_looks, stride_for
from orbit4d.render.blender.preview import PreviewStudio
from orbit4d.render.blender.surfaces import Key, Surface, visible_surfaces
from orbit4d.render.blender.track import Track

Points = npt.NDArray[np.float32]
#: Clip moments at which the frame is tested, as many as a clip has frames.
N_MOMENTS = 24
#: Moments at which the whole surface is compared with the first one, beside that of the largest displacement.
N_SHAPES = 6
MAX_EDGES = 8_000
MAX_KINEMATIC = 4_000
#: Keys of a long action at which it is measured beside even moments.
MAX_MEASURED_KEYS = 60


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Measure payload["path"]; {"asset": {...}, "actions": [{...}]}.

    payload: path; previews "none" | "window" | "raw" | "both"; preview_size and preview_samples.
    An action without a moving window has window None and only zeros for its motion. A file without actions
    gives one entry with the name "".
    """
    started = time.perf_counter()
    loaded = load_asset(payload["path"])
    imported = time.perf_counter() - started
    topology = _topology(visible_surfaces(loaded, topology=True))
    n_vertices, n_triangles = _sizes(loaded)
    asset = {
        "n_actions": len(loaded.actions),
        "n_vertices": n_vertices,
        "n_triangles": n_triangles,
        "n_objects": len(loaded.meshes),
        "n_textures": sum(1 for image in bpy.data.images if image.source in ("FILE", "TILED")),
        "n_missing_textures": sum(flag.startswith("missing_texture") for flag in loaded.flags),
        "flags": list(loaded.flags),
        "import_seconds": imported,
        "fps": loaded.fps,
    }
    emit("imported", actions=len(loaded.actions))
    rest = _rest_pose(loaded, topology)
    studio = None
    if payload.get("previews", "none") != "none":
        studio = PreviewStudio(loaded, int(payload["preview_size"]), int(payload["preview_samples"]))
    rows = []
    for action in loaded.actions or [ActionInfo(0, "", 0.0, 0.0)]:
        began = time.perf_counter()
        row = _measure_action(loaded, action, topology, rest)
        if studio is not None and "_scale" in row:
            row |= studio.preview(row, payload["previews"])
        row.pop("_scale", None)
        if window.is_long(action.seconds_start, action.seconds_end, loaded.fps):
            row["flags"] = [*loaded.flags, "long_window"]
        row["measure_seconds"] = time.perf_counter() - began
        rows.append(row)
        emit("action", index=action.index)
    return {"asset": asset, "actions": rows}


@dataclass
class _Topology:
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


def _topology(surfaces: Sequence[Surface]) -> _Topology:
    """Of surfaces that were read with their topology."""
    edges, triangles, offset = [], [], 0
    for surface in surfaces:
        if surface.edges is not None and surface.triangles is not None:
            edges.append(surface.edges + offset)
            triangles.append(surface.triangles + offset)
        offset += len(surface.local)
    every_edge = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    return _Topology(
        {surface.key: len(surface.local) for surface in surfaces},
        every_edge[:: max(1, -(-len(every_edge) // MAX_EDGES))],
        np.concatenate(triangles) if triangles else np.zeros((0, 3), np.int64),
    )


def _sizes(loaded: Loaded) -> tuple[int, int]:
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


def _points(surfaces: Sequence[Surface]) -> Points:
    parts = [surface.points() for surface in surfaces]
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


def _rest_pose(loaded: Loaded, topology: _Topology) -> tuple[npt.NDArray[np.float64], float] | None:
    """(edge lengths, diameter) of the file's pose without any action; None where vertices come and go."""
    loaded.activate(None)
    loaded.set_seconds(0.0)
    surfaces = visible_surfaces(loaded)
    if not topology.fits(surfaces):
        return None
    points = _points(surfaces)
    return geometry.edge_lengths(points, topology.edges), geometry.diameter(points)


@dataclass
class _Samples:
    """One walk over the active action."""

    seconds: list[float]
    window: tuple[float, float] | None
    track: Track
    n_looks: int
    """Moments at which the action was evaluated."""
    keys: frozenset[float] = frozenset()
    """Those of `seconds` that are keys between even moments."""

    @property
    def inside(self) -> list[int]:
        """Samples that lie in the window; the first one alone without a window."""
        if self.window is None:
            return [next((i for i in range(len(self.track)) if self.track.moments[i]), 0)]
        start, end = self.window
        return [i for i, t in enumerate(self.seconds) if start - 1e-9 <= t <= end + 1e-9]


def _sample(loaded: Loaded, action: ActionInfo | None, topology: _Topology) -> _Samples:
    """Find the moving window of the active action (None: a still asset), and sample it.

    Thinning is that of `motion`, so that the window found here is the one render will find.
    """
    if action is None:
        track = Track(stride_for(topology.n_vertices), topology.counts, topology.edges)
        return _Samples([0.0], None, look_at(loaded, [0.0], track), 1)
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
            return _Samples(seconds, found, track, len(seconds))
    found = moving_window(loaded, action)
    track = Track(stride_for(n), topology.counts, topology.edges, extremes=False)
    if found is None:
        n_looks = len({t for times in looks for t in times})
        return _Samples(list(span[:1]), None, look_at(loaded, span[:1], track), n_looks)
    even = window.dense_seconds(*found, loaded.fps)
    keys = _some_keys(loaded, action, found) - set(even)
    seconds = sorted({*even, *keys})
    return _Samples(seconds, found, look_at(loaded, seconds, track), len(seconds), keys)


def _some_keys(loaded: Loaded, action: ActionInfo, found: tuple[float, float]) -> frozenset[float]:
    """Up to MAX_MEASURED_KEYS moments of a window at which the action has keys."""
    keys = [t for t in loaded.key_seconds(action.index) if found[0] < t < found[1]]
    kept = np.linspace(0, len(keys) - 1, min(len(keys), MAX_MEASURED_KEYS)).round().astype(int)
    return frozenset(keys[int(i)] for i in kept)


def _measure_action(
    loaded: Loaded,
    action: ActionInfo,
    topology: _Topology,
    rest: tuple[npt.NDArray[np.float64], float] | None,
) -> dict[str, Any]:
    """All geometric measures of one action."""
    moves = bool(loaded.actions)
    loaded.activate(action.index if moves else None)
    samples = _sample(loaded, action if moves else None, topology)
    if not samples.track.is_finite():
        # Numbers that are finite in the file may overflow on the way through its nodes.
        return {
            "action": action.name,
            "action_index": action.index,
            "seconds": action.seconds_end - action.seconds_start,
            "status": "refused",
            "failure": "bad_file:non_finite",
            "detail": "positions become infinite or undefined while the action plays",
        }
    found, inside, track = samples.window, samples.inside, samples.track
    body, box = track.body(inside), track.boxes(inside)
    times = [samples.seconds[i] for i in inside]
    start, end = found or (times[0], times[0])
    scale, centre = geometry.first_frame_scale(box)
    row: dict[str, Any] = {
        "action": action.name,
        "action_index": action.index,
        "seconds": action.seconds_end - action.seconds_start,
        "window_start": start if found else None,
        "window_end": end if found else None,
        "n_samples": samples.n_looks,
        "union_growth": geometry.union_growth(box),
        "drift": geometry.drift(box),
        "size": float((box[0, 1] - box[0, 0]).max()),
    }
    empty = body.shape[1] == 0
    displacement = track.displacement(inside, body)
    row["motion_geometry"] = 0.0 if empty else geometry.relative(float(displacement.max()), body[0])
    peak = times[int(np.argmax(displacement))]
    row["_scale"] = (scale, centre.tolist(), start, end, peak)
    still = empty or found is None
    even = [k for k, t in enumerate(times) if t not in samples.keys]
    # Averages over vertices settle long before MAX_VERTICES; the largest displacement above uses them all.
    body = body[even, :: max(1, body.shape[1] // MAX_KINEMATIC)]
    row |= _kinematics(body, [times[k] for k in even], still)
    # The nearest dense samples to the moments that a clip of 24 frames shows.
    moments = sorted({int(i) for i in np.linspace(0, len(even) - 1, N_MOMENTS).round()})
    normalised = (body[moments].astype(np.float64) - centre) * scale
    outside = [0.0] * geometry.N_VIEWS if empty else geometry.out_of_frame(normalised).tolist()
    row |= {"out_of_frame_views": outside, "out_of_frame": max(outside)}
    row |= _seen_at(loaded, start, topology, (scale, centre))
    row["motion_shape"] = 0.0
    if not still:
        shown = sorted({peak, *(times[even[i]] for i in moments[:: len(moments) // N_SHAPES + 1])} - {start})
        row["motion_shape"] = _shape_change(loaded, start, shown, topology)
    # Seen from the orbit's distance, an object scaled down by g covers about 1 / g² of what it covered.
    row["coverage_fit"] = row["coverage_mean"] / max(row["union_growth"], 1.0) ** 2
    lengths = [track.lengths[i] for i in inside]
    row["torn_edges"] = 0.0
    if rest is not None and len(topology.edges) and all(each is not None for each in lengths):
        row["torn_edges"] = geometry.torn_edges(np.stack(lengths), *rest)
    return row


def _kinematics(body: Points, times: Sequence[float], still: bool) -> dict[str, float]:
    """What even samples of the body say about how it moves; zeros when it is still."""
    rigid = (0.0, 0.0, 0.0) if still else geometry.rigid_split(body)
    speed = (0.0, 0.0, 0.0) if still else geometry.speed_and_jerk(body, times)
    beat = (0.0, 0.0, 0.0) if still else geometry.rhythm(body, times)
    names = ("motion_rigid", "motion_nonrigid", "turn_deg", "speed_mean", "speed_max", "jerk_rms",
             "periodicity", "period_seconds", "loop_gap")  # fmt: skip
    return dict(zip(names, (*rigid, *speed, *beat), strict=True))


def _seen_at(
    loaded: Loaded, t: float, topology: _Topology, normalised: tuple[float, npt.NDArray[np.float64]]
) -> dict[str, Any]:
    """How much of the frame the silhouettes cover at `t`, at the scale and centre `normalised`."""
    loaded.set_seconds(t)
    surfaces = visible_surfaces(loaded)
    if not topology.fits(surfaces):
        surfaces = visible_surfaces(loaded, topology=True)
        topology = _topology(surfaces)
    scale, centre = normalised
    places = geometry.surface_points(_points(surfaces), topology.triangles)
    views = geometry.silhouette_coverage((places - centre) * scale).tolist()
    return {
        "coverage_views": views,
        "coverage_min": min(views),
        "coverage_mean": float(np.mean(views)),
    }


def _shape_change(
    loaded: Loaded, start: float, seconds: Sequence[float], topology: _Topology
) -> float | None:
    """`geometry.shape_change` of the active action at `seconds` from `start`, over the surfaces that are seen
    at all of them with the same vertices; None where there are none with faces.
    """
    moments = []
    for t in (start, *seconds):
        loaded.set_seconds(t)
        moments.append({surface.key: surface.points() for surface in visible_surfaces(loaded)})
    counts = [{key: len(points) for key, points in moment.items()} for moment in moments]
    if any(each != topology.counts for each in counts):
        loaded.set_seconds(start)
        shared = set.intersection(*({*each.items()} for each in counts))
        surfaces = visible_surfaces(loaded, topology=True)
        topology = _topology([s for s in surfaces if (s.key, len(s.local)) in shared])
    if len(topology.triangles) == 0:
        return None
    first, *later = (np.concatenate([moment[key] for key in topology.counts]) for moment in moments)
    return geometry.shape_change(first, later, topology.triangles)
