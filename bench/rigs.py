"""What synchronised cameras cost: `make bench-rigs`.

The same number of images of the same assets (first action), frames, samples and size: ten orbits, one camera
each, against rigs of ten cameras. Import, window and framing are done once for either. Counted from the file
of an asset to its committed clips, without the start of Blender, in seconds of CPU time (which a busy machine
hardly stretches) and of the clock. Runs alternate; the median of --repeats counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

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


def cpu_seconds() -> float:
    """CPU time of this process and of the Blender that works for it."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def rates_of(worker: Worker, asset: Asset, settings: RenderSettings) -> tuple[float, float]:
    """Images of one asset per second of CPU time and of the clock."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "dataset")
        writer = DatasetWriter(out, settings.as_config())
        began = cpu_seconds(), time.perf_counter()
        reply = worker.run(asset_job(asset, out, settings.as_config()))
        assert reply.result is not None, reply
        writer.roll(final=True)
        n = reply.result["images"]
        return n / (cpu_seconds() - began[0]), n / (time.perf_counter() - began[1])


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
    report: dict[str, Any] = {"bench": "rigs", "commit": commit, "cores": usable_cores(), **small}
    worker = Worker(WorkerSettings())
    try:
        worker.run(Job("warm", "selftest"))
        for path in paths:
            asset = replace(resolve([str(path)]).assets[0], actions=(0,))
            runs: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
            for _ in range(args.repeats):
                for name, kind in KINDS.items():
                    runs[name].append(rates_of(worker, asset, preset("draft", **small, **kind)))
            rates = {name: [statistics.median(pair) for pair in zip(*found)] for name, found in runs.items()}
            for name, (per_cpu, per_clock) in rates.items():
                ratios = [a / b for a, b in zip(rates[name], rates["ten orbits"])]
                print(
                    f"{path.stem:14} {name:12} {per_cpu:7.2f} images per CPU second ({ratios[0]:.2f}x), "
                    f"{per_clock:7.2f} per second ({ratios[1]:.2f}x)",
                    flush=True,
                )
            report[path.stem] = rates
    finally:
        worker.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
