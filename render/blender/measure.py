# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `measure`: every action of one asset in numbers, before anything is rendered in earnest.

All vertices are evaluated at every frame of the file (up to 241 an action), since a few even samples can all
land on moments at which nothing is displaced. Pictures are three tiny ones an action, from the front.
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
from orbit4d.render.blender.motion import support, vertices_now
from orbit4d.render.blender.preview import PreviewStudio

Points = npt.NDArray[np.float32]
#: Clip moments at which the frame is tested, as many as a clip has frames.
N_MOMENTS = 24
#: Moments at which the whole surface is compared with the first one, beside that of the largest displacement.
N_SHAPES = 6
MAX_EDGES = 8_000
MAX_KINEMATIC = 4_000


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Measure payload["path"]; {"asset": {...}, "actions": [{...}]}.

    payload: path; previews "none" | "window" | "raw" | "both"; preview_size and preview_samples.
    An action without a moving window has window None and only zeros for its motion. A file without actions
    gives one entry with the name "".
    """
    started = time.perf_counter()
    loaded = load_asset(payload["path"])
    imported = time.perf_counter() - started
    topology = _topology(loaded)
    asset = {
        "n_actions": len(loaded.actions),
        "n_vertices": topology.n_vertices,
        "n_triangles": len(topology.triangles),
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
        row["measure_seconds"] = time.perf_counter() - began
        rows.append(row)
        emit("action", index=action.index)
    return {"asset": asset, "actions": rows}


@dataclass
class _Topology:
    """What connects the vertices of all meshes, numbered through in the order of `vertices_now`."""

    counts: list[int]
    edges: npt.NDArray[np.int64]
    """[E, 2], at most MAX_EDGES, evenly chosen."""
    triangles: npt.NDArray[np.int64]
    """[K, 3]."""

    @property
    def n_vertices(self) -> int:
        return sum(self.counts)


def _topology(loaded: Loaded) -> _Topology:
    depsgraph = bpy.context.evaluated_depsgraph_get()
    counts, edges, triangles, offset = [], [], [], 0
    for obj in loaded.meshes:
        evaluated = obj.evaluated_get(depsgraph)
        mesh = evaluated.to_mesh()
        n = 0 if mesh is None else len(mesh.vertices)
        counts.append(n)
        if n:
            pairs = np.empty(len(mesh.edges) * 2, np.int32)
            mesh.edges.foreach_get("vertices", pairs)
            mesh.calc_loop_triangles()
            corners = np.empty(len(mesh.loop_triangles) * 3, np.int32)
            mesh.loop_triangles.foreach_get("vertices", corners)
            edges.append(pairs.reshape(-1, 2).astype(np.int64) + offset)
            triangles.append(corners.reshape(-1, 3).astype(np.int64) + offset)
        if mesh is not None:
            evaluated.to_mesh_clear()
        offset += n
    every_edge = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    return _Topology(
        counts,
        every_edge[:: max(1, -(-len(every_edge) // MAX_EDGES))],
        np.concatenate(triangles) if triangles else np.zeros((0, 3), np.int64),
    )


def _rest_pose(loaded: Loaded, topology: _Topology) -> tuple[npt.NDArray[np.float64], float] | None:
    """(edge lengths, diameter) of the file's pose without any action; None where vertices come and go."""
    loaded.activate(None)
    loaded.set_seconds(0.0)
    parts = vertices_now(loaded)
    if [len(part) for part in parts] != topology.counts:
        return None
    points = np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)
    return geometry.edge_lengths(points, topology.edges), geometry.diameter(points)


@dataclass
class _Samples:
    """One walk over the active action."""

    seconds: list[float]
    body: Points
    """[T, V, 3]: the same vertices at each moment, what motion is measured on."""
    extremes: Points
    """[T, X, 3]: further points that only the moving window looks at; X is 0 below MAX_VERTICES."""
    box: npt.NDArray[np.float64]
    """[T, 2, 3], of all vertices."""
    edges: npt.NDArray[np.float64]
    """[T, E] edge lengths; [T, 0] where vertices come and go."""


def _sample(loaded: Loaded, seconds: Sequence[float], topology: _Topology) -> _Samples:
    """Sample the active action, keeping only what is needed of each moment.

    Thinning is that of `motion.sample_vertices`, so that the window found here is the one render will find.
    """
    stride = max(1, -(-topology.n_vertices // window.MAX_VERTICES))
    counts: list[list[int]] = []
    thin: list[list[Points]] = []
    extreme: list[list[Points]] = []
    box, edges = [], []
    for t in seconds:
        loaded.set_seconds(t)
        parts = vertices_now(loaded)
        counts.append([len(part) for part in parts])
        thin.append([part[::stride].copy() for part in parts])
        if stride > 1:
            extreme.append([support(part) for part in parts])
        filled = [part for part in parts if len(part)]
        every = np.concatenate(filled) if filled else np.zeros((1, 3), np.float32)
        box.append(geometry.box_of(every))
        same = counts[-1] == topology.counts
        edges.append(geometry.edge_lengths(every, topology.edges) if same and filled else None)
    body, extremes = [], []
    for k in range(len(counts[0])):
        lengths = {moment[k] for moment in counts}
        if len(lengths) > 1:
            # Vertices come and go (an Alembic fluid, say): 26 extreme points stand for the mesh.
            points = extreme if stride > 1 else [[support(part) for part in moment] for moment in thin]
            body.append(np.stack([moment[k] for moment in points]))
        elif lengths != {0}:
            body.append(np.stack([moment[k] for moment in thin]))
            if stride > 1:
                extremes.append(np.stack([moment[k] for moment in extreme]))
    nothing = np.zeros((len(seconds), 0, 3), np.float32)
    whole = [lengths for lengths in edges if lengths is not None]
    return _Samples(
        list(seconds),
        np.concatenate(body, axis=1) if body else nothing,
        np.concatenate(extremes, axis=1) if extremes else nothing,
        np.stack(box),
        np.stack(whole) if len(whole) == len(seconds) else np.zeros((len(seconds), 0)),
    )


def _measure_action(
    loaded: Loaded,
    action: ActionInfo,
    topology: _Topology,
    rest: tuple[npt.NDArray[np.float64], float] | None,
) -> dict[str, Any]:
    """All geometric measures of one action."""
    moves = bool(loaded.actions)
    loaded.activate(action.index if moves else None)
    seconds = window.dense_seconds(action.seconds_start, action.seconds_end, loaded.fps) if moves else [0.0]
    samples = _sample(loaded, seconds, topology)
    if not np.isfinite(samples.box).all():
        # Numbers that are finite in the file may overflow on the way through its nodes.
        return {
            "action": action.name,
            "action_index": action.index,
            "seconds": action.seconds_end - action.seconds_start,
            "status": "refused",
            "failure": "bad_file:non_finite",
            "detail": "positions become infinite or undefined while the action plays",
        }
    found = window.moving_window(seconds, np.concatenate([samples.body, samples.extremes], axis=1))
    start, end = found or (seconds[0], seconds[0])
    inside = [i for i, t in enumerate(seconds) if start - 1e-9 <= t <= end + 1e-9] or [0]
    body, box = samples.body[inside], samples.box[inside]
    times = [seconds[i] for i in inside]
    scale, centre = geometry.first_frame_scale(box)
    row: dict[str, Any] = {
        "action": action.name,
        "action_index": action.index,
        "seconds": action.seconds_end - action.seconds_start,
        "window_start": start if found else None,
        "window_end": end if found else None,
        "n_samples": len(seconds),
        "union_growth": geometry.union_growth(box),
        "drift": geometry.drift(box),
        "size": float((box[0, 1] - box[0, 0]).max()),
    }
    empty = body.shape[1] == 0
    displacement = np.zeros(len(times)) if empty else geometry.rms_displacement(body)
    row["motion_geometry"] = 0.0 if empty else geometry.relative(float(displacement.max()), body[0])
    peak = times[int(np.argmax(displacement))]
    row["_scale"] = (scale, centre.tolist(), start, end, peak)
    still = empty or found is None
    # Averages over vertices settle long before MAX_VERTICES; the largest displacement above uses them all.
    body = body[:, :: max(1, body.shape[1] // MAX_KINEMATIC)]
    rigid = (0.0, 0.0, 0.0) if still else geometry.rigid_split(body)
    row["motion_rigid"], row["motion_nonrigid"], row["turn_deg"] = rigid
    speed = (0.0, 0.0, 0.0) if still else geometry.speed_and_jerk(body, times)
    row["speed_mean"], row["speed_max"], row["jerk_rms"] = speed
    beat = (0.0, 0.0, 0.0) if still else geometry.rhythm(body, times)
    row["periodicity"], row["period_seconds"], row["loop_gap"] = beat
    # The nearest dense samples to the moments that a clip of 24 frames shows.
    moments = sorted({int(i) for i in np.linspace(0, len(inside) - 1, N_MOMENTS).round()})
    normalised = (body[moments].astype(np.float64) - centre) * scale
    row["out_of_frame_views"] = (
        [0.0] * geometry.N_VIEWS if empty else geometry.out_of_frame(normalised).tolist()
    )
    row["out_of_frame"] = max(row["out_of_frame_views"])
    loaded.set_seconds(start)
    parts = [part for part in vertices_now(loaded) if len(part)]
    every = np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)
    whole = len(every) == topology.n_vertices
    row["motion_shape"] = 0.0
    if whole and not still:
        shown = sorted({peak, *(times[i] for i in moments[:: len(moments) // N_SHAPES + 1])} - {start})
        row["motion_shape"] = _shape_change(loaded, every, shown, topology)
        loaded.set_seconds(start)
    surface = geometry.surface_points(every, topology.triangles) if whole else every.astype(np.float64)
    row["coverage_views"] = geometry.silhouette_coverage((surface - centre) * scale).tolist()
    row["coverage_min"] = min(row["coverage_views"])
    row["coverage_mean"] = float(np.mean(row["coverage_views"]))
    # Seen from the orbit's distance, an object scaled down by g covers about 1 / g² of what it covered.
    row["coverage_fit"] = row["coverage_mean"] / max(row["union_growth"], 1.0) ** 2
    row["torn_edges"] = 0.0
    if rest is not None and samples.edges.shape[1]:
        row["torn_edges"] = geometry.torn_edges(samples.edges[inside], *rest)
    return row


def _shape_change(
    loaded: Loaded, first: Points, seconds: Sequence[float], topology: _Topology
) -> float | None:
    """`geometry.shape_change` of the active action at `seconds`; None where vertices come and go."""
    moments = []
    for t in seconds:
        loaded.set_seconds(t)
        parts = vertices_now(loaded)
        if [len(part) for part in parts] != topology.counts:
            return None
        moments.append(np.concatenate(parts))
    return geometry.shape_change(first, moments, topology.triangles)
