"""make bench-export: clips a second of an export to mp4, and of what comes with it, at 256 pixels a side.

100 clips of 24 frames (a lit, textured ellipsoid with the grain of few samples; `--renders DATASET` takes
renders instead) are exported for musubi-tuner with one, two and more clips at a time, and for VideoFolder
with a depth control. The goal is 5 clips a second on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from data import drawn_clip

from orbit4d.datasets import Clip, DatasetWriter, ExportSettings, Index, export_for_trainer
from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.operations.select import clips as clips_of


def make_dataset(folder: Path, clips: int, frames: int, size: int, renders: str | None) -> str:
    """A dataset of `clips` captioned clips: drawn, or those of a dataset under new uids."""
    writer = DatasetWriter(folder, {"bench": "export"})
    some: list[Clip] = []
    if renders is not None:
        for _, found in clips_of(Index(renders)):
            some += found
    else:
        some = [drawn_clip(seed, frames, size) for seed in range(8)]
    for i in range(clips):
        clip = some[i % len(some)]
        writer.stage(f"clip{i:04d}", [replace(clip, uid=f"clip{i:04d}", caption=f"clip {i}")])
    writer.roll(final=True)
    return str(folder)


def timed(dataset: str, trainer: str, settings: ExportSettings) -> tuple[float, int]:
    """(seconds, bytes of the videos) of one export."""
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as folder:
        out = Path(folder) / "out"
        start = time.perf_counter()
        export_for_trainer(dataset, out, trainer, settings)
        seconds = time.perf_counter() - start
        return seconds, sum(path.stat().st_size for path in out.rglob("*.mp4"))


def one_core(dataset: str, trainer: str) -> float:
    """Seconds of the export in a process that may use one core."""
    code = (
        "import os, sys, time; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})\n"
        "from orbit4d.datasets import export_for_trainer\n"
        "start = time.perf_counter(); export_for_trainer(sys.argv[1], sys.argv[2], sys.argv[3])\n"
        "print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as folder:
        words = [sys.executable, "-c", code, dataset, f"{folder}/out", trainer]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--renders", default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="orbit4d-bench-"))
    try:
        dataset = make_dataset(folder / "d", options.clips, options.frames, options.size, options.renders)
        n, cores = options.clips, usable_cores()
        found: dict[str, float] = {}
        before = time.process_time()
        plain, size = timed(dataset, "musubi", ExportSettings(frames="all"))
        # What the clips cost, whatever else runs: twice its inverse is what two quiet cores can reach.
        found["cpu_seconds_per_clip"] = (time.process_time() - before) / n
        found["clips_per_second"] = n / plain
        found["kB_per_clip"] = size / n / 1e3
        found["one_core"] = n / one_core(dataset, "musubi")
        masked, _ = timed(dataset, "videofolder", ExportSettings(controls=("mask",)))
        found["with_mask"] = n / masked
        print(f"{n} clips of {options.frames} frames, {options.size} pixels, {cores} cores usable,")
        print(f"load {os.getloadavg()[0]:.1f}; mp4 by libx264, crf 18, preset medium, one thread a clip")
        print(f"  musubi                      {found['clips_per_second']:6.1f} clips/s")
        print(f"  musubi, CPU                 {found['cpu_seconds_per_clip']:6.3f} s a clip")
        print(f"  musubi, one core            {found['one_core']:6.1f} clips/s")
        print(f"  videofolder, mask as well   {found['with_mask']:6.1f} clips/s")
        print(f"  size                        {found['kB_per_clip']:6.1f} kB a clip")
        print(json.dumps({name: float(np.round(value, 3)) for name, value in found.items()}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
