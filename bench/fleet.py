"""What the fleet's driver costs where nothing is rendered: the section `fleet` of `make bench-render`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.render.dataset.render_assets import render_assets, stored_contents
from orbit4d.render.fleet.driver import FleetSettings, Job, run_fleet
from orbit4d.render.planning.settings import preset


def _finished_dataset(folder: Path, n: int) -> str:
    """A dataset whose index names n finished assets of three clips each (rows alone; nothing reads the
    shard).
    """
    import pyarrow as pa

    from orbit4d.datasets.cameras.camera import orbit
    from orbit4d.datasets.store import parts, sealed
    from orbit4d.datasets.store.clip import Clip, encode_webp

    writer = DatasetWriter(str(folder), {})
    cameras = orbit(24, size=(16, 16))
    frame = encode_webp(np.zeros((16, 16, 4), np.uint8))
    times = tuple(i / 23 for i in range(24))
    common = {"frames": (frame,) * 24, "cameras": tuple(cameras), "time": times, "seconds": times}
    place = {"window": (0.0, 1.0), "scale": 1.0, "centre": (0.0, 0.0, 0.0), "radius": 2.0}
    writer.stage(
        "a",
        [
            Clip("a", "Go", 0, rig, 0, **common, **place, azimuth0_deg=0.0, elevation_deg=0.0)
            for rig in ("static_orbit", "dynamic_orbit", "front_view")
        ],
    )
    writer.roll(final=True)
    name = parts.live_parts(writer.store)[0][0]
    rows = sealed.load(writer.store.read(name), name)
    per_part = 5000
    for start in range(0, n, per_part):
        count = min(per_part, n - start)
        table = pa.concat_tables([rows] * count)
        uids = pa.array([f"{i:032x}" for i in range(start, start + count) for _ in range(rows.num_rows)])
        table = table.set_column(0, rows.schema.field(0), uids)
        writer.store.put(f"index/{start // per_part + 1:06d}-{start:08x}.parquet", sealed.dump(table))
    return str(folder)


def refused_run(n: int) -> dict[str, float]:
    """`render_assets` on n small files that the look before Blender refuses: sources, driver, actors, and
    rejections as they are, without a picture. Then the same command again, which finds nothing to do."""
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "assets"
        for i in range(n):
            part = source / f"{i // 1000:03d}"
            part.mkdir(parents=True, exist_ok=True)
            (part / f"asset_{i:06d}.obj").write_text(f"# no vertex line {i}\n", encoding="utf-8")
        settings, fleet = preset("draft"), FleetSettings(workers=2, threads_per_worker=1)
        took = []
        before = psutil.Process().memory_info().rss
        for _ in range(2):
            began = time.perf_counter()
            summary = render_assets([str(source)], str(Path(folder) / "out"), settings, fleet, quiet=True)
            took.append(time.perf_counter() - began)
            assert summary.rejected == n
        grown = psutil.Process().memory_info().rss - before
    print(
        f"{n} files refused: {1e3 * took[0] / n:.2f} ms a file, driver grew by {grown / 2**20:.0f} MiB; "
        f"again in {took[1]:.1f} s"
    )
    return {"ms_per_file": 1e3 * took[0] / n, "rss_bytes": grown, "again_seconds": took[1]}


def fleet_section(args: argparse.Namespace) -> dict[str, Any]:
    """Cost of a job in the driver, at two sizes, and the scan that recognises finished assets."""
    import psutil
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    found: dict[str, Any] = {}
    try:
        for n in (args.null_jobs // 4, args.null_jobs):
            before, cpu = psutil.Process().memory_info().rss, time.process_time()
            began = time.perf_counter()
            jobs = (Job(f"{i:032x}", "") for i in range(n))
            summary = run_fleet(jobs, FleetSettings(workers=2, order="given"), lambda outcome: None)
            assert summary.done == n
            wall, used = time.perf_counter() - began, time.process_time() - cpu
            grown = psutil.Process().memory_info().rss - before
            found[str(n)] = {
                "ms_per_job": 1e3 * wall / n,
                "driver_cpu_ms_per_job": 1e3 * used / n,
                "rss_bytes": grown,
            }
            print(
                f"{n} null jobs: {1e3 * wall / n:.2f} ms a job, {1e3 * used / n:.2f} ms of driver CPU, "
                f"driver grew by {grown / 2**20:.0f} MiB"
            )
        for n in (args.null_jobs // 4, args.null_jobs):
            found[f"refused_{n}"] = refused_run(n)
    finally:
        ray.shutdown()
    with tempfile.TemporaryDirectory() as folder:
        out = _finished_dataset(Path(folder) / "dataset", args.null_jobs)
        began = time.perf_counter()
        writer = DatasetWriter(out, {})
        done = writer.finished()
        stored_contents(writer)
        seconds = time.perf_counter() - began
        assert len(done) == args.null_jobs + 1
        found["resume_scan"] = {"assets": args.null_jobs, "seconds": seconds}
        print(f"resume: {args.null_jobs} finished assets recognised in {seconds:.2f} s")
    return found
