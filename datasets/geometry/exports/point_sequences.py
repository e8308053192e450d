"""ActionBench surfaces and GVFDiffusion deltas: points of the surface, the same ones at all times."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.geometry.exports.glb import glb
from orbit4d.datasets.geometry.exports.job import (
    LEFT_OUT,
    ExportAction,
    ExportClip,
    Files,
    each_action,
    leave_out,
    npy,
    png,
    turned,
)
from orbit4d.datasets.geometry.exports.surface_points import carried, carried_normals
from orbit4d.datasets.geometry.tracks import Chosen, on_surface

#: Points and times of the published files.
ACTIONBENCH_POINTS, ACTIONBENCH_TIMES = 100_000, 16
GVFD_POINTS, GVFD_TIMES = 8192, 24


def _drawn(action: ExportAction, usual: int, t: int) -> Chosen:
    rng = np.random.default_rng(action.settings.seed)
    return on_surface(action.mesh, t, action.settings.points or usual, rng, action.name)


def actionbench(action: ExportAction) -> Files:
    """`<name>/surfaces.npy` float32 [16, N, 6], position and unit normal, with `mesh_XX.glb` of the times."""
    moments, up = action.moments(ACTIONBENCH_TIMES), action.axes("y")
    chosen = _drawn(action, ACTIONBENCH_POINTS, int(moments[0]))
    times = moments.tolist()
    places = turned(carried(action.mesh, *chosen, times), up)
    normals = turned(carried_normals(action.mesh, *chosen, times), up)
    yield f"{action.name}/surfaces.npy", npy(np.concatenate([places, normals], axis=-1))
    for k, t in enumerate(times):
        vertices = turned(action.geometry.vertices[t][None], up)
        yield f"{action.name}/mesh_{k:02d}.glb", glb(vertices, action.mesh.faces, name=f"mesh_{k:02d}")
    cameras = [
        {"name": clip.name, "frames": [_camera(c) for c in clip.geometry.cameras]} for clip in action.clips
    ]
    given = {"cameras": cameras, "camera_axes": "OpenGL, in the dataset's world: +Z up"}
    yield f"{action.name}/meta.json", action.meta(times, up, **given)


def _camera(camera: Camera) -> dict[str, Any]:
    names = ("fl_x", "fl_y", "cx", "cy", "w", "h")
    return {"c2w": camera.c2w.tolist(), **dict(zip(names, camera.intrinsics))}


def gvfd(actions: Iterable[ExportAction]) -> Files:
    """Folders of points and their deltas, images and meshes, and `list.txt`, which names them."""
    names = []
    for action in actions:
        try:
            yield from _gvfd_folder(action)
        except LEFT_OUT as error:
            leave_out(action.name, error, action.notes)
        else:
            names.append(action.name)
    yield "list.txt", "".join(f"{name}\n" for name in names).encode()


def _gvfd_folder(action: ExportAction) -> Files:
    known = len(action.mesh.seconds)
    moments = action.moments(min(GVFD_TIMES, known))
    if len(moments) != GVFD_TIMES:
        action.note(f"{len(moments)} times are written where GVFDiffusion's own folders have {GVFD_TIMES}")
    times, up = moments.tolist(), action.axes("z")
    first = action.geometry.vertices[times[0]].astype(np.float64)
    low, high = first.min(axis=0), first.max(axis=0)
    centre, factor = 0.5 * (low + high), 1.0 / float((high - low).max() or 1.0)
    places = (carried(action.mesh, *_drawn(action, GVFD_POINTS, times[0]), times) - centre) * factor
    static = turned(places[0], up)
    # Differences of the float32 numbers, so that static + delta is the place to float32's rounding.
    deltas = turned(places, up) - static
    yield f"{action.name}/objs/mesh_data/static_frame_vertices.pt", _tensor(static)
    yield f"{action.name}/objs/mesh_data/moving_frame_deltas.pt", _tensor(deltas)
    for k, t in enumerate(times):
        vertices = turned((action.geometry.vertices[t] - centre) * factor, up)
        yield f"{action.name}/objs/frame{k}.obj", _obj(vertices, action.mesh.faces)
    yield from _gvfd_images(action, times, centre, factor, up)
    yield (
        f"{action.name}/meta.json",
        action.meta(times, up, factor=factor, subtracted=centre, rule="longest edge at the first time = 1"),
    )


def _gvfd_images(
    action: ExportAction, times: list[int], centre: npt.NDArray[np.float64], factor: float, up: str
) -> Files:
    view = 0
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) if up == "y" else np.eye(3)
    for clip in action.clips:
        frames = [_first(clip, t) for t in times]
        if None in frames:
            action.notes.append(f"{clip.name}: does not show every time; its images are left out")
            continue
        for k, frame in enumerate(frames):
            assert frame is not None
            camera = clip.geometry.cameras[frame]
            c2w = camera.c2w.copy()
            c2w[:3, 3] = (c2w[:3, 3] - centre) * factor
            c2w[:3] = turn @ c2w[:3]
            stem = f"timestep_{k:02d}_view_{view:02d}"
            given = {"matrix_world": c2w.tolist(), "x_fov": float(np.radians(camera.fov_x_deg))}
            yield f"{action.name}/imgs/{stem}.png", png(clip.rgba(frame))
            yield f"{action.name}/meta_data/{stem}.json", json.dumps(given).encode()
        view += 1


def _first(clip: ExportClip, t: int) -> int | None:
    times = clip.geometry.times
    return times.index(t) if t in times else None


def _tensor(array: npt.NDArray[np.float32]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(array)), buffer)
    return buffer.getvalue()


def _obj(vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.integer]) -> bytes:
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


FORMATS = {"actionbench": each_action(actionbench), "gvfd": gvfd}
