"""What synchronised cameras cost: `make bench-rigs`.

The same number of images of the same assets (first action), frames, samples and size: ten orbits, one camera
each, against rigs of ten cameras. Import, window and framing are done once for either. Images per second are
counted from the file of an asset to its committed clips, without the start of Blender. Runs alternate; the
best of --repeats counts, since other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.sources.asset import Asset
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.render.dataset.asset_job import asset_job
from orbit4d.render.fleet.worker import Job, Worker, WorkerSettings
from orbit4d.render.planning.settings import RenderSettings, preset

ASSETS = ("dev_fox.glb", "dev_robot.glb")
KINDS: dict[str, dict[str, Any]] = {
    "ten orbits": {"rigs": ("dynamic_orbit",), "orbits": 10},
    "ring:10": {"rigs": ("ring:10",)},
    "sync": {"rigs": ("sync",)},
    "sync_basic": {"rigs": ("sync_basic",)},
    "sync_moving": {"rigs": ("sync_moving",)},
}


def images_per_second(
    worker: Worker, asset: Asset, settings: RenderSettings
) -> tuple[float, dict[str, float]]:
    """(images per second of one asset, seconds by phase)."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "dataset")
        writer = DatasetWriter(out, settings.as_config())
        began = time.perf_counter()
        reply = worker.run(asset_job(asset, out, settings.as_config()))
        assert reply.result is not None, reply
        writer.roll(final=True)
        seconds = time.perf_counter() - began
        return reply.result["pictures"] / seconds, reply.result["timings"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", nargs="*", help="GLB files; default: two of ../shared/assets")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    paths = [Path(a).resolve() for a in args.assets or []]
    paths = paths or [root.parent / "shared" / "assets" / name for name in ASSETS]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        sys.exit(f"error: no file {missing[0]}; name GLB files with --assets")
    small = {"frames": args.frames, "resolution": args.resolution, "samples": args.samples}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    report: dict[str, Any] = {
        "bench": "rigs",
        "commit": commit,
        "cores": usable_cores(),
        **small,
        "rates": {},
    }
    worker = Worker(WorkerSettings())
    try:
        worker.run(Job("warm", "selftest"))
        for path in paths:
            asset = replace(resolve([str(path)]).assets[0], actions=(0,))
            best: dict[str, tuple[float, dict[str, float]]] = {}
            for _ in range(args.repeats):
                for name, kind in KINDS.items():
                    found = images_per_second(worker, asset, preset("draft", **small, **kind))
                    best[name] = max(best.get(name, found), found, key=lambda pair: pair[0])
            orbits = best["ten orbits"][0]
            for name, (rate, phases) in best.items():
                told = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items())
                print(
                    f"{path.stem:14} {name:12} {rate:7.2f} images/s, {rate / orbits:5.2f}x ({told})",
                    flush=True,
                )
                report["rates"][f"{path.stem}/{name}"] = rate
    finally:
        worker.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
