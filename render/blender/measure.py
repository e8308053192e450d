# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Task `measure`: every action of one asset in numbers, before anything is rendered in earnest.

All vertices are evaluated at every frame of the file (up to 241 an action), since a few even samples can all
land on moments at which nothing is displaced. Pictures are three tiny ones an action, from the front.
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from orbit4d.datasets import image_measures
from orbit4d.datasets.cameras import DEFAULT_RADIUS, orbit_c2w
from orbit4d.render import geometry_measures as geometry
from orbit4d.render import window
from orbit4d.render.blender.load import ActionInfo, Loaded, load_asset
from orbit4d.render.blender.motion import support, vertices_now

Points = npt.NDArray[np.float32]
#: Clip moments at which the frame is tested, as many as a clip has frames.
N_MOMENTS = 24
MAX_EDGES = 8_000
MAX_KINEMATIC = 4_000
#: Frames of the published preview rule: 0, T/4 and T/2 of T = 24 raw scene frames.
RAW_FRAMES = (0, 6, 12)


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
        studio = _Studio(int(payload["preview_size"]), int(payload["preview_samples"]))
    rows = []
    for action in loaded.actions or [ActionInfo(0, "", 0.0, 0.0)]:
        began = time.perf_counter()
        row = _measure_action(loaded, action, topology, rest)
        if studio is not None and "_scale" in row:
            row |= studio.preview(loaded, action, row, payload["previews"])
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
        "_scale": (scale, centre.tolist(), start, end),
    }
    empty = body.shape[1] == 0
    row["motion_geometry"] = 0.0 if empty else geometry.motion_geometry(body)
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
    surface = geometry.surface_points(every, topology.triangles) if whole else every.astype(np.float64)
    row["coverage_views"] = geometry.silhouette_coverage((surface - centre) * scale).tolist()
    row["coverage_min"] = min(row["coverage_views"])
    row["coverage_mean"] = float(np.mean(row["coverage_views"]))
    row["torn_edges"] = 0.0
    if rest is not None and samples.edges.shape[1]:
        row["torn_edges"] = geometry.torn_edges(samples.edges[inside], *rest)
    return row


class _Studio:
    """Three tiny pictures an action: the paper's motion rule, and something to look at in the report.

    Cycles on the CPU, two shadowless suns, no bounces, one seed: what little noise is left is the same in all
    three pictures. The suns leave a white surface grey, so that it shows on the white background that SSIM is
    taken on. The first moment's box is scaled to 1, seen from the front at distance 2.
    """

    def __init__(self, size: int, samples: int) -> None:
        scene = bpy.context.scene
        render = scene.render
        render.engine = "CYCLES"
        render.resolution_x = render.resolution_y = size
        render.resolution_percentage = 100
        render.film_transparent = True
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode = "RGBA"
        render.image_settings.compression = 0
        render.use_compositing = render.use_sequencer = False
        render.threads_mode = "FIXED"
        render.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        scene.view_settings.view_transform = "Standard"
        cycles = scene.cycles
        cycles.device = "CPU"
        cycles.samples, cycles.seed = samples, 0
        cycles.use_adaptive_sampling = cycles.use_denoising = False
        cycles.max_bounces = cycles.diffuse_bounces = cycles.glossy_bounces = 0
        cycles.transparent_max_bounces = 4
        render.use_persistent_data = True
        camera = bpy.data.objects.new("orbit4d_preview", bpy.data.cameras.new("orbit4d_preview"))
        camera.data.lens, camera.data.sensor_width = 50.0, 36.0
        camera.data.clip_start, camera.data.clip_end = 0.01, 100.0
        camera.matrix_world = orbit_c2w(0.0, 0.0, DEFAULT_RADIUS).T.tolist()
        scene.collection.objects.link(camera)
        scene.camera = camera
        for name, energy, azimuth, elevation in (("key", 2.2, -40.0, 35.0), ("fill", 0.7, 50.0, 10.0)):
            sun = bpy.data.objects.new(f"orbit4d_{name}", bpy.data.lights.new(f"orbit4d_{name}", "SUN"))
            sun.data.energy, sun.data.use_shadow = energy, False
            sun.matrix_world = orbit_c2w(azimuth, elevation, 10.0).T.tolist()
            scene.collection.objects.link(sun)

    def preview(self, loaded: Loaded, action: ActionInfo, row: dict[str, Any], which: str) -> dict[str, Any]:
        scale, centre, start, end = row["_scale"]
        found: dict[str, Any] = {}
        if which in ("window", "both"):
            found |= self._rule(
                loaded, [start + part * (end - start) for part in (0.0, 0.25, 0.5)], scale, centre, ""
            )
        if which in ("raw", "both"):
            raw = [loaded.raw_frame_seconds(frame) for frame in RAW_FRAMES]
            loaded.set_seconds(raw[0])
            parts = [part for part in vertices_now(loaded) if len(part)]
            every = np.concatenate(parts) if parts else np.zeros((1, 3), np.float32)
            raw_scale, raw_centre = geometry.first_frame_scale(geometry.boxes(every[None]))
            found |= self._rule(loaded, raw, raw_scale, raw_centre.tolist(), "_raw")
        loaded.normalise(1.0, (0.0, 0.0, 0.0))
        return found

    def _rule(
        self, loaded: Loaded, seconds: Sequence[float], scale: float, centre: Sequence[float], suffix: str
    ) -> dict[str, Any]:
        loaded.normalise(scale, centre)
        pictures = []
        for t in seconds:
            loaded.set_seconds(t)
            pictures.append(self._shoot())
        stack = np.stack(pictures)
        alpha = stack[..., 3]
        white = image_measures.composite(stack)
        rows, columns = image_measures.object_box(alpha, margin=4)
        found: dict[str, Any] = {
            f"ssim_quarter{suffix}": image_measures.ssim(white[0], white[1]),
            f"ssim_half{suffix}": image_measures.ssim(white[0], white[2]),
            f"ssim_object_quarter{suffix}": image_measures.ssim(
                white[0][rows, columns], white[1][rows, columns]
            ),
            f"ssim_object_half{suffix}": image_measures.ssim(
                white[0][rows, columns], white[2][rows, columns]
            ),
            f"alpha_coverage{suffix}": float(image_measures.coverage(alpha).max()),
            f"alpha_touch{suffix}": float(image_measures.boundary_touch(alpha).max()),
            f"flat{suffix}": bool(all(image_measures.is_flat(picture) for picture in pictures)),
        }
        if suffix == "":
            found["preview"] = _strip(stack)
        return found

    def _shoot(self) -> npt.NDArray[np.uint8]:
        """The scene as straight RGBA, uint8 [H, W, 4]."""
        from PIL import Image

        with tempfile.TemporaryDirectory(prefix="orbit4d-preview-") as folder:
            path = os.path.join(folder, "picture.png")
            bpy.context.scene.render.filepath = path
            bpy.ops.render.render(write_still=True)
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGBA"))


def _strip(pictures: npt.NDArray[np.uint8]) -> str:
    """Pictures [n, H, W, 4] side by side as one small WebP, base64."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(memory, "WEBP", quality=80, method=2)
    return base64.b64encode(memory.getvalue()).decode("ascii")
