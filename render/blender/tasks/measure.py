# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `measure`: every action of one asset in numbers, before anything is rendered at full quality.

All vertices that are seen are evaluated at every frame of the file, since a few even samples can all land on
times at which nothing is displaced; actions of more than 241 frames are looked through for their moving
window first, then measured at up to 241 times of it and at keys. Images are three tiny ones an action,
from the front.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.surfaces import Points, visible_surfaces
from orbit4d.render.blender.importers.load import ActionInfo, Loaded, load_asset
from orbit4d.render.blender.scene.preview import PreviewStudio
from orbit4d.render.blender.scene.sampling import Samples, Topology, points_of, sample, sizes, topology_of
from orbit4d.render.planning import vertex_measures as geometry
from orbit4d.render.planning import window

#: Clip times at which the frame is tested, as many as a clip has frames.
N_MOMENTS = 24
#: Times at which the whole surface is compared with the first one, beside that of the largest displacement.
N_SHAPES = 6
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
    topology = topology_of(visible_surfaces(loaded, topology=True))
    n_vertices, n_triangles = sizes(loaded)
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


def _rest_pose(loaded: Loaded, topology: Topology) -> tuple[npt.NDArray[np.float64], float] | None:
    """(edge lengths, diameter) of the file's pose without any action; None where vertices come and go."""
    loaded.activate(None)
    loaded.set_seconds(0.0)
    surfaces = visible_surfaces(loaded)
    if not topology.fits(surfaces):
        return None
    points = points_of(surfaces)
    return geometry.edge_lengths(points, topology.edges), geometry.diameter(points)


def _measure_action(
    loaded: Loaded,
    action: ActionInfo,
    topology: Topology,
    rest: tuple[npt.NDArray[np.float64], float] | None,
) -> dict[str, Any]:
    """All geometric measures of one action."""
    moves = bool(loaded.actions)
    loaded.activate(action.index if moves else None)
    samples = sample(loaded, action if moves else None, topology)
    seconds = action.seconds_end - action.seconds_start
    row: dict[str, Any] = {"action": action.name, "action_index": action.index, "seconds": seconds}
    if not samples.track.is_finite():
        # Numbers that are finite in the file may overflow on the way through its nodes.
        detail = "positions become infinite or undefined while the action plays"
        return {**row, "status": "refused", "failure": "bad_file:non_finite", "detail": detail}
    looks = _Looks(samples)
    row |= {
        "window_start": looks.start if samples.window else None,
        "window_end": looks.end if samples.window else None,
        "n_samples": samples.n_looks,
        "union_growth": geometry.union_growth(looks.box),
        "drift": geometry.drift(looks.box),
        "size": float((looks.box[0, 1] - looks.box[0, 0]).max()),
        "motion_geometry": looks.motion,
        "_scale": (looks.scale, looks.centre.tolist(), looks.start, looks.end, looks.peak),
    }
    row |= _kinematics(looks.even_body, looks.even_times, looks.is_still)
    row |= _out_of_frame(looks)
    row |= _seen_at(loaded, looks.start, topology, (looks.scale, looks.centre))
    row["motion_shape"] = 0.0 if looks.is_still else _shape_change(loaded, looks, topology)
    # Seen from the orbit's distance, an object scaled down by g covers about 1 / g² of what it covered.
    row["coverage_fit"] = row["coverage_mean"] / max(row["union_growth"], 1.0) ** 2
    row["torn_edges"] = _torn_edges(samples, topology, rest)
    return row


class _Looks:
    """What was sampled of one action inside its window, as the measures take it."""

    def __init__(self, samples: Samples) -> None:
        inside, track = samples.inside, samples.track
        body = track.body(inside)
        self.box = track.boxes(inside)
        times = [samples.seconds[i] for i in inside]
        self.start, self.end = samples.window or (times[0], times[0])
        self.scale, self.centre = geometry.first_frame_scale(self.box)
        self.is_empty = body.shape[1] == 0
        """No vertex is there in every sample."""
        self.is_still = self.is_empty or samples.window is None
        displacement = track.displacement(inside, body)
        self.motion = 0.0 if self.is_empty else geometry.relative(float(displacement.max()), body[0])
        self.peak = times[int(np.argmax(displacement))]
        """Seconds of the largest displacement."""
        even = [k for k, t in enumerate(times) if t not in samples.keys]
        self.even_times = [times[k] for k in even]
        # Averages over vertices settle long before MAX_VERTICES; the largest displacement uses them all.
        self.even_body = body[even, :: max(1, body.shape[1] // MAX_KINEMATIC)]
        # The nearest dense samples to the times that a clip of 24 frames shows.
        self.clip = sorted({int(i) for i in np.linspace(0, len(even) - 1, N_MOMENTS).round()})
        """Which of the even samples those are."""


def _out_of_frame(looks: _Looks) -> dict[str, Any]:
    """How far the body reaches out of each view's frame at the scale of the first frame."""
    normalised = (looks.even_body[looks.clip].astype(np.float64) - looks.centre) * looks.scale
    outside = [0.0] * geometry.N_VIEWS if looks.is_empty else geometry.out_of_frame(normalised).tolist()
    return {"out_of_frame_views": outside, "out_of_frame": max(outside)}


def _torn_edges(
    samples: Samples, topology: Topology, rest: tuple[npt.NDArray[np.float64], float] | None
) -> float:
    """Edges that the action stretches beyond what skin does; 0 where they cannot be followed."""
    lengths = [length for i in samples.inside if (length := samples.track.lengths[i]) is not None]
    if rest is None or not len(topology.edges) or len(lengths) < len(samples.inside):
        return 0.0
    return geometry.torn_edges(np.stack(lengths), *rest)


def _kinematics(body: Points, times: Sequence[float], still: bool) -> dict[str, float]:
    """What even samples of the body say about how it moves; zeros when it is still."""
    rigid = (0.0, 0.0, 0.0) if still else geometry.rigid_split(body)
    speed = (0.0, 0.0, 0.0) if still else geometry.speed_and_jerk(body, times)
    beat = (0.0, 0.0, 0.0) if still else geometry.rhythm(body, times)
    names = ("motion_rigid", "motion_nonrigid", "turn_deg", "speed_mean", "speed_max", "jerk_rms",
             "periodicity", "period_seconds", "loop_gap")  # fmt: skip
    return dict(zip(names, (*rigid, *speed, *beat), strict=True))


def _seen_at(
    loaded: Loaded, t: float, topology: Topology, normalised: tuple[float, npt.NDArray[np.float64]]
) -> dict[str, Any]:
    """How much of the frame the silhouettes cover at `t`, at the scale and centre `normalised`."""
    loaded.set_seconds(t)
    surfaces = visible_surfaces(loaded)
    if not topology.fits(surfaces):
        surfaces = visible_surfaces(loaded, topology=True)
        topology = topology_of(surfaces)
    scale, centre = normalised
    places = geometry.surface_points(points_of(surfaces), topology.triangles)
    views = geometry.silhouette_coverage((places - centre) * scale).tolist()
    return {
        "coverage_views": views,
        "coverage_min": min(views),
        "coverage_mean": float(np.mean(views)),
    }


def _shape_change(loaded: Loaded, looks: _Looks, topology: Topology) -> float | None:
    """`geometry.shape_change` of the active action at N_SHAPES times and the largest displacement from the
    window's start, over the surfaces that are seen at all of them with the same vertices; None where there
    are none with faces.
    """
    start, few = looks.start, looks.clip[:: len(looks.clip) // N_SHAPES + 1]
    seconds = sorted({looks.peak, *(looks.even_times[i] for i in few)} - {start})
    shapes = []
    for t in (start, *seconds):
        loaded.set_seconds(t)
        shapes.append({surface.key: surface.points() for surface in visible_surfaces(loaded)})
    counts = [{key: len(points) for key, points in shape.items()} for shape in shapes]
    if any(each != topology.counts for each in counts):
        loaded.set_seconds(start)
        shared = set.intersection(*({*each.items()} for each in counts))
        surfaces = visible_surfaces(loaded, topology=True)
        topology = topology_of([s for s in surfaces if (s.key, len(s.local)) in shared])
    if len(topology.triangles) == 0:
        return None
    first, *later = (np.concatenate([shape[key] for key in topology.counts]) for shape in shapes)
    return geometry.shape_change(first, later, topology.triangles)
