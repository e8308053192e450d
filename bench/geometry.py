"""make bench-geometry: what the pass `geometry` costs beside the images, and what is derived from it at load.

Each asset of `--assets FOLDER` (default: eight of ../shared beside the checkout) is rendered once, with its
geometry, at `default`, by one worker of one thread without Ray, and read back. CPU time of one thread, the
least of several runs, so that a busy machine stretches little; kernels are compiled before:

  record     reading the surfaces from Blender, all times of the action, over the images' render time
  maps       drawing and packing the surface maps of all clips, over the images' render time
  share      bytes of the action's geometry and maps over the bytes of the images of its clips; of one clip
  map, flow, tracks, points, decode    milliseconds: one frame's map, dense flow of a pair with occlusion,
             2,048 points through all frames with visibility, one point map, unpacking an action
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets import DatasetWriter, Index, orbit, read_geometry
from orbit4d.datasets.added.rolling import roll_added
from orbit4d.datasets.added.rows import action_sample, clip_sample
from orbit4d.datasets.geometry.action import Material, decode_mesh, encode_mesh, stored_mesh
from orbit4d.datasets.geometry.clip import clip_geometry
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.render.dataset.asset_job import asset_job
from orbit4d.render.fleet.worker import Worker, WorkerSettings
from orbit4d.render.planning.settings import preset

SHARED = Path(__file__).resolve().parents[2] / "shared"
ASSETS = (
    "assets/dev_fox.glb",
    "assets/dev_cesiumman.glb",
    "assets/dev_milktruck.glb",
    "assets/dev_robot.glb",
    "assets/dev_morphstress.glb",
    "assets/dev_ww1plane.glb",
    "pool/cyberpunk_pack_enemy_large_gun.glb",
    "assets/dev_planet.glb",
)


def least(work: Callable[[], Any], runs: int) -> float:
    """Milliseconds of CPU of this thread, the least of `runs`."""
    took = []
    for _ in range(runs):
        before = time.thread_time()
        work()
        took.append(time.thread_time() - before)
    return 1e3 * min(took)


def rendered(path: Path, folder: Path, args: Any) -> tuple[Index, dict[str, float]]:
    """(the dataset of one asset's first action, seconds by phase)."""
    settings = preset("default", frames=args.frames, resolution=args.size, passes=("geometry",))
    writer = DatasetWriter(str(folder), settings.as_config())
    worker = Worker(WorkerSettings(threads=1))
    try:
        asset = resolve([str(path)]).assets[0]
        job = asset_job(asset, str(folder), settings.as_config())
        job.payload["actions"] = [0]
        reply = worker.run(job)
    finally:
        worker.close()
    if reply.result is None:
        raise SystemExit(f"{path}: {reply.reason}: {reply.detail}")
    writer.roll(final=True)
    roll_added(writer.store, writer.indexed(), final=True)
    return Index(folder), reply.result["timings"]


def warm_up() -> None:
    """Compile every kernel on one triangle."""
    mesh = stored_mesh(
        np.eye(3)[None] - 0.3,
        [],
        seconds=np.zeros(1),
        faces=np.array([(0, 1, 2)], np.int32),
        material=np.zeros(1, np.uint16),
        object=np.zeros(1, np.uint16),
        materials=(Material("m"),),
        objects=("o",),
        shown=np.ones((1, 1), bool),
    )
    clip = clip_geometry(decode_mesh(encode_mesh(mesh), "x")[0], orbit(1, size=(16, 16)), [0.0])
    clip.flow(0, 0)
    clip.tracks(4)


def measure(path: Path, folder: Path, args: Any) -> dict[str, Any]:
    index, timings = rendered(path, folder, args)
    uid = index.keys.uid(0)
    rows = index.rows_of(uid)
    action = index.added.row(uid, action_sample(uid, rows[0]["action_index"]), "geometry")
    assert action is not None
    if action["refused"]:
        return {"asset": path.stem, "refused": action["refused"]}
    images = {(row["rig"], row["orbit"]): sum(row["lengths"]) for row in rows}
    maps = sum(sum(index.added.row(uid, clip_sample(row), "surface")["lengths"]) for row in rows)  # type: ignore[index]
    stored = sum(action["lengths"]) + maps
    found = read_geometry(index, uid, rows[0]["action_index"])
    clip, mesh = found.clip(), found.mesh
    data = index.added.members(action)[0]
    clip.tracks(8)
    clip.flow(0, 1)

    def one_map() -> None:
        clip._drawn.clear()
        clip.triangles(1)

    frames = [k % len(clip) for k in (0, 5, 11, 17)]
    return {
        "asset": path.stem,
        "triangles": len(mesh.faces),
        "vertices": len(mesh.weld),
        "bits": mesh.bits,
        "record": timings["geometry"] / timings["render"],
        "maps": timings["surface_maps"] / timings["render"],
        "kB": stored / 1e3,
        "share": stored / sum(images.values()),
        "share_of_one": stored / images["dynamic_orbit", 0],
        "map_ms": least(one_map, args.runs),
        "flow_ms": statistics.mean(least(lambda f=f: clip.flow(f, f - 1), args.runs) for f in frames),
        "tracks_ms": least(lambda: clip.tracks(2048, 0, "pixels"), max(3, args.runs // 4)),
        "points_ms": least(lambda: clip.points(1), args.runs),
        "decode_ms": least(lambda: decode_mesh(data, "x"), max(3, args.runs // 4)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, help="folder or file of assets")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    if args.assets is not None:
        paths = sorted(args.assets.glob("*.glb")) if args.assets.is_dir() else [args.assets]
    elif SHARED.is_dir():
        paths = [SHARED / name for name in ASSETS]
    else:
        raise SystemExit("no ../shared beside the checkout: name assets with --assets FOLDER")
    warm_up()
    results = []
    print(
        "asset triangles vertices bits record maps kB share share_of_one map flow tracks points decode (ms)"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for path in paths:
            row = measure(path, Path(scratch) / path.stem, args)
            results.append(row)
            print(" ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    print(json.dumps({"bench": "geometry", "frames": args.frames, "size": args.size, "assets": results}))


if __name__ == "__main__":
    main()
