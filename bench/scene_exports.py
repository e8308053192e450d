"""What a scene's exports keep: python bench/scene_exports.py SCENE [DATASET:uid:action]

Bytes a Gaussian and PSNR of the image per splat format; size and motion of the HTML page; for the mesh PSNR
against the scene's own image and, where the dataset holds geometry, Chamfer distance and IoU of silhouettes
against the asset at each time. Prints a table and ends with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets import orbit
from orbit4d.datasets.core.jit import jit
from orbit4d.datasets.images.measures import decibels
from orbit4d.recon4d import Scene, load_scene, read_splats, write_splats
from orbit4d.recon4d.export.html.packing import player_data
from orbit4d.recon4d.export.html.pages import page
from orbit4d.recon4d.export.mesh_files import MovingMesh, mesh_glb_bytes, moving_mesh
from orbit4d.recon4d.scene import draw

SUFFIXES = ("a.ply", "a.compressed.ply", "a.sog", "a.spz", "a.splat", "a.glb", "a.usdc")
SIZE, FRAMES = 256, 24


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return decibels(float(np.square(a - b).mean()))


def white(gaussians: Any, camera: Any, eps2d: float) -> np.ndarray:
    with torch.no_grad():
        color, alpha = draw(gaussians, camera, eps2d=eps2d)[:2]
    return (color + 1 - alpha).numpy().clip(0, 1)


def splat_rows(scene: Scene) -> dict[str, dict[str, float]]:
    g, rows = scene.at(0.5), {}
    cameras = [c for e in (-10.0, 35.0) for c in orbit(2, elevation_deg=e, size=(SIZE, SIZE))]
    truth = [white(g, c, scene.eps2d) for c in cameras]
    with tempfile.TemporaryDirectory() as folder:
        for name in SUFFIXES:
            path = Path(folder) / name
            try:
                write_splats(g, path)
            except ValueError as error:
                print(f"{name}: {error}")
                continue
            again = read_splats(path)
            values = [psnr(white(again, c, scene.eps2d), t) for c, t in zip(cameras, truth)]
            rows[name] = {"bytes": path.stat().st_size / len(g), "psnr": min(float(np.mean(values)), 99.0)}
    return rows


@jit
def raster(pixels, depth, faces, uv, image, out, nearest):
    """Triangles over `out` [H, W, 4] (RGBA in 0 to 1), the nearest one at each pixel's centre."""
    height, width, size = out.shape[0], out.shape[1], image.shape[0]
    for f in range(faces.shape[0]):
        i, j, k = faces[f]
        ax, ay = pixels[i]
        bx, by = pixels[j]
        cx, cy = pixels[k]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        for y in range(max(int(min(ay, by, cy)), 0), min(int(max(ay, by, cy)) + 1, height)):
            for x in range(max(int(min(ax, bx, cx)), 0), min(int(max(ax, bx, cx)) + 1, width)):
                px, py = x + 0.5 - ax, y + 0.5 - ay
                b = (px * (cy - ay) - (cx - ax) * py) / area
                c = ((bx - ax) * py - px * (by - ay)) / area
                a = 1.0 - b - c
                if a < 0.0 or b < 0.0 or c < 0.0:
                    continue
                wa, wb, wc = a / depth[i], b / depth[j], c / depth[k]
                z = 1.0 / (wa + wb + wc)
                if z >= nearest[y, x]:
                    continue
                nearest[y, x] = z
                u = (wa * uv[i, 0] + wb * uv[j, 0] + wc * uv[k, 0]) * z
                v = (wa * uv[i, 1] + wb * uv[j, 1] + wc * uv[k, 1]) * z
                column = min(max(int(u * size), 0), size - 1)
                row = min(max(int((1.0 - v) * size), 0), size - 1)
                for ch in range(3):
                    out[y, x, ch] = image[row, column, ch]
                out[y, x, 3] = 1.0


def drawn(vertices: Any, faces: Any, uv: Any, image: Any, camera: Any) -> np.ndarray:
    """RGBA of a mesh, two by two samples a pixel."""
    big = camera.resized(2 * camera.w, 2 * camera.h)
    w2c = big.w2c_opencv
    local = vertices @ w2c[:3, :3].T + w2c[:3, 3]
    pixels = local[:, :2] / local[:, 2:] * (big.fl_x, big.fl_y) + (big.cx, big.cy)
    out, nearest = np.zeros((big.h, big.w, 4)), np.full((big.h, big.w), np.inf)
    raster(pixels, np.ascontiguousarray(local[:, 2]), faces.astype(np.int64), uv, image / 255.0, out, nearest)
    return out.reshape(camera.h, 2, camera.w, 2, 4).mean((1, 3))


def mesh_rows(scene: Scene, moving: MovingMesh) -> dict[str, float]:
    mesh, values = moving.mesh, []
    for i in range(0, FRAMES, 4):
        camera = scene.cameras[(5 * i) % len(scene.cameras)].resized(SIZE, SIZE)
        got = drawn(moving.at(i), mesh.faces, mesh.uv, mesh.image, camera)
        t = i / (FRAMES - 1)
        want = white(scene._fitted(t), scene.world.camera(camera), scene.eps2d)
        values.append(psnr(got[..., :3] + 1 - got[..., 3:], want))
    return {"psnr_mean": float(np.mean(values)), "psnr_worst": min(values)}


def against(scene: Scene, moving: MovingMesh, name: str) -> dict[str, list[float]]:
    """Chamfer distance and IoU of the silhouettes of six views at each of six times; of the Gaussians too."""
    import trimesh
    from scipy.spatial import cKDTree

    from orbit4d.datasets import read_geometry

    dataset, uid, action = name.split(":")
    truth = read_geometry(dataset, uid, action)
    rows: dict[str, list[float]] = {"chamfer": [], "iou": [], "iou_of_scene": []}
    cameras = [c for e in (0.0, 40.0) for c in orbit(3, elevation_deg=e, size=(SIZE, SIZE))]
    for i in range(0, FRAMES, 4):
        k = round(i / (FRAMES - 1) * (len(truth.vertices) - 1))
        ours, theirs = moving.at(i), np.asarray(truth.vertices[k], np.float64)
        sets = [
            trimesh.Trimesh(v, f, process=False).sample(20_000, seed=0)
            for v, f in ((ours, moving.mesh.faces), (theirs, truth.faces))
        ]
        there, back = (cKDTree(a).query(b)[0].mean() for a, b in (sets, sets[::-1]))
        rows["chamfer"].append(float((there + back) / 2))
        shares, own = [], []
        for camera in cameras:
            a, b = (
                drawn(v, f, np.zeros((len(v), 2)), np.zeros((1, 1, 3)), camera)[..., 3] > 0.5
                for v, f in ((ours, moving.mesh.faces), (theirs, np.asarray(truth.faces)))
            )
            shares.append((a & b).sum() / max((a | b).sum(), 1))
            c = scene.render(camera, i / (FRAMES - 1))[..., 3] > 0.5
            own.append((c & b).sum() / max((c | b).sum(), 1))
        rows["iou"].append(float(np.mean(shares)))
        rows["iou_of_scene"].append(float(np.mean(own)))
    return rows


def main() -> None:
    scene = load_scene(sys.argv[1])
    result: dict[str, Any] = {"gaussians": len(scene.gaussians), "splats": splat_rows(scene)}
    for name, row in result["splats"].items():
        print(f"{name:<18}{row['bytes']:8.1f} B a Gaussian  {row['psnr']:6.1f} dB")
    data, motion = player_data(scene)
    size = len(page(scene, "x"))
    result["html"] = {"bytes": size, "bin": len(data), "times": motion.times, "error": motion.error}
    print("html", result["html"])
    start = time.perf_counter()
    moving = moving_mesh(scene, FRAMES, 16.0)
    glb = mesh_glb_bytes(moving)
    result["mesh"] = {"seconds": time.perf_counter() - start, "bytes": len(glb), **mesh_rows(scene, moving)}
    if len(sys.argv) > 2:
        result["asset"] = against(scene, moving, sys.argv[2])
    print("mesh", result["mesh"], result.get("asset", ""))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
