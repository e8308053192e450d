"""ActionBench: `<root>/<uid>/surfaces.npy` as truth, `mesh_00.glb ...` as result (formats.md 2.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.evaluate.benchmarks.result import Benchmark, Published, folders_in
from orbit4d.evaluate.geometry.motion import actionbench

#: Of the published protocol: objects, frames, points of a fit.
OBJECTS, FRAMES, FIT_POINTS = 128, 16, 10_000
_SOURCE = "ActionMesh paper, 128 scenes"
ROWS = tuple(
    Published(method, _SOURCE, {"CD-3D": a, "CD-4D": b, "CD-M": c})
    for method, a, b, c in (
        ("DreamMesh4D", 0.104, 0.152, 0.265),
        ("LIM", 0.089, 0.126, 0.243),
        ("V2M4", 0.068, 0.340, 0.616),
        ("ShapeGen4D", 0.056, 0.170, 0.348),
        ("ActionMesh", 0.053, 0.081, 0.148),
    )
)


def run(root: Path, given: Path | None, fit_points: int, align: str = "published", **_: Any) -> Benchmark:
    """Measure the results in `given/<uid>/` (default: beside the truth)."""
    found = Benchmark("ActionBench", {"CD-3D": True, "CD-4D": True, "CD-M": True})
    found.protocol = {"align": align, "queries": 10_000, "fit points": fit_points}
    chosen: Any = None if align == "none" else align
    sizes: set[int] = set()
    for folder in folders_in(root, "surfaces.npy"):
        results = folder if given is None else given / folder.name
        truth = read_surfaces(folder / "surfaces.npy")
        sizes.add(len(truth))
        meshes = naturally(results.glob("mesh_*.glb"))[: len(truth)]
        if len(meshes) < len(truth):
            found.lacking[folder.name] = f"{results} holds {len(meshes)} of {len(truth)} meshes mesh_*.glb"
            continue
        scores = actionbench(read_meshes(meshes), truth, align=chosen, icp_points=fit_points)
        found.rows[folder.name] = {
            "CD-3D": scores["cd3d"],
            "CD-4D": scores["cd4d"],
            "CD-M": scores["cdm"],
        }
    if not found.rows:
        raise InputError(f"{given or root}: no result to measure; {next(iter(found.lacking.values()))}")
    found.unlike = _unlike(len(found.rows), sizes, fit_points, align)
    found.published = () if found.unlike else ROWS
    return found


def _unlike(objects: int, frames: set[int], fit_points: int, align: str) -> str:
    if objects != OBJECTS:
        return f"they are of {OBJECTS} objects, these of {objects}"
    if frames != {FRAMES}:
        return f"they are of {FRAMES} frames, these of {', '.join(map(str, sorted(frames)))}"
    if align != "published":
        return f"they are aligned by nine parameters, these by {align}"
    if fit_points < FIT_POINTS:
        return f"they fit to {FIT_POINTS} points, these to {fit_points} (--fit-points)"
    return ""


def read_surfaces(path: Path) -> npt.NDArray[np.float64]:
    """Tracked points [T, N, 3] of `surfaces.npy` [T, N, 6]. Raises InputError."""
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no array, or damaged ({error})") from None
    if points.ndim != 3 or points.shape[2] not in (3, 6) or not points.size:
        raise InputError(f"{path}: has shape {list(points.shape)}; surfaces are [frames, points, 6]")
    return np.asarray(points[..., :3], np.float64)


def read_meshes(paths: list[Path]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Vertices [T, V, 3] and faces [M, 3] of a GLB a frame, scene graph applied, parts put together. Raises
    InputError for a file that is none, and for meshes that do not share their faces."""
    vertices: list[npt.NDArray[np.float64]] = []
    faces: npt.NDArray[np.int64] | None = None
    for path in paths:
        mesh, triangles = read_mesh(path)
        if faces is not None and (mesh.shape != vertices[0].shape or not np.array_equal(triangles, faces)):
            raise InputError(f"{path}: has other faces than {paths[0].name}; CD-M follows one mesh")
        vertices.append(mesh)
        faces = triangles
    assert faces is not None
    return np.stack(vertices), faces


def read_mesh(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Vertices [V, 3] and faces [M, 3] of one GLB, read as the published evaluation reads it."""
    import trimesh

    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False)
        return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    except Exception as error:
        # A foreign file makes the reader raise anything.
        raise InputError(f"{path}: cannot be read as a mesh ({' '.join(str(error).split())[:120]})") from None
