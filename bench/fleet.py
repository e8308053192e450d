"""What the fleet's driver costs where nothing is rendered.

`make bench-fleet`: under a simulated fleet and store. The section `fleet` of `make bench-render`: under Ray.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.core.cores import usable_cores
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
    rejections as they are, without an image. Then the same command again, which finds nothing to do."""
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


# The driver under a simulated fleet: `make bench-fleet` -----------------------------------------------------


def _bytes_of(uids: list[str]) -> tuple[dict[str, tuple[bytes, bytes]], int]:
    """uid -> (tar, rows) as workers would stage them, and the bytes of the longest tar."""
    from orbit4d.datasets.cameras.camera import orbit
    from orbit4d.datasets.core.storage import Store
    from orbit4d.datasets.store.clip import Clip, encode_webp
    from orbit4d.datasets.store.rejections import Rejection
    from orbit4d.datasets.store.staging import stage_asset

    camera, frame = orbit(2, size=(8, 8)), encode_webp(np.zeros((8, 8, 4), np.uint8))
    times = (0.0, 1.0)
    found: dict[str, tuple[bytes, bytes]] = {}
    store, longest = Store("memory://fleet-bench"), 0
    for uid in uids:
        clips = [
            Clip(
                uid, "Go", 0, rig, 0, (frame, frame), tuple(camera), times, times, times, 1.0,
                (0.0, 0.0, 0.0), 0.0, 0.0, 2.0, asset_sha256="0" * 64,
            )
            for rig in ("static_orbit", "dynamic_orbit", "front_view")
        ]  # fmt: skip
        longest = max(longest, stage_asset(store, uid, clips, [Rejection(uid, "Rest", "render", "still")]))
        names = f"staging/{uid}.tar", f"staging/{uid}.parquet"
        found[uid] = store.read(names[0]), store.read(names[1])
        store.delete(names)
    return found, longest


def simulate(
    n: int, workers: int, seconds: float, latency: float, fail_every: int, share: int, group: int
) -> dict[str, Any]:
    """A run of `n` assets on simulated workers and a simulated store, by the real driver.

    With `share` 1 every asset is staged and committed; else one group of assets of `share` is, and of the
    others the same requests are made without the bytes.
    """
    import threading

    from parts.fleet_simulation import SampledWriter, SimulatedPool, SimulatedStore, Watch

    from orbit4d.datasets.sources.asset import Asset
    from orbit4d.datasets.store.lease import Lease
    from orbit4d.datasets.store.staging import Staged
    from orbit4d.render.dataset.render_assets import _Jobs
    from orbit4d.render.dataset.rolling import Roller
    from orbit4d.render.fleet.books import Books
    from orbit4d.render.fleet.driver import dispatch
    from orbit4d.render.fleet.patience import Patience
    from orbit4d.render.fleet.queue import Attempt, JobQueue
    from orbit4d.render.fleet.settings import Limits
    from orbit4d.render.fleet.worker import Reply

    uids = [f"{i:032x}" for i in range(n)]
    made, tar_bytes = _bytes_of(uids if share == 1 else uids[:1])
    SimulatedStore.clear(latency, fail_every)
    watch = Watch()
    config = preset("default").as_config()
    assets = [Asset(uid, f"s3://bucket/assets/{uid}.glb", uid * 2, "glb", 1 << 20) for uid in uids]
    writer = SampledWriter("sim://dataset", config, shard_bytes=group * tar_bytes)
    writer.share = share

    def put(uid: str) -> None:
        tar, rows = made.get(uid) or _bytes_of([uid])[0][uid]
        writer.store.put(f"staging/{uid}.tar", tar)
        writer.store.put(f"staging/{uid}.parquet", rows)

    if share > 1:

        def stage_group(staged: Any) -> None:
            for each in staged:
                put(each.uid)

        writer.stage_group = stage_group

    def finish(attempt: Attempt) -> Reply:
        if share == 1:
            put(attempt.job.key)
        elif latency:
            SimulatedStore.wait("put", 2)
        return Reply({"bytes": tar_bytes})

    pool = SimulatedPool(seconds, finish)
    roller = Roller(writer, Patience(600.0))
    books = Books(Limits())
    books.summary.workers = workers
    began, cpu, ended_at = time.monotonic(), time.process_time(), [0.0]

    def note(outcome: Any) -> None:
        roller.add(Staged(outcome.job.key, tar_bytes, 0))
        ended_at[0] = time.monotonic()

    with Lease(writer.store) as lease:
        writer.guard = lease.check
        jobs = JobQueue(_Jobs(assets, writer.uri, config))
        dispatch(pool, jobs, books, note, threading.Event(), Patience(600.0))  # type: ignore[arg-type]
        rendered = ended_at[0] - began
        roller.drain()
        behind = time.monotonic() - ended_at[0]
        if share == 1:
            roller.finish()
        roller.close()
    pool.kill_all()
    wall = time.monotonic() - began
    assert books.summary.done == n and (share > 1 or len(writer.contents()) == n)
    found = {
        "assets": n, "workers": workers, "asset_seconds": seconds, "latency_s": latency,
        "fail_every": fail_every, "assets_per_s": n / rendered,
        "ideal_per_s": workers / seconds if seconds else None,
        "busy": 1.0 - pool.idle_seconds / (workers * rendered), "commits_behind_s": behind, "wall_s": wall,
        "cpu_ms_per_asset": 1e3 * (time.process_time() - cpu) / n,
        "commit_cpu_ms_per_asset": 1e3 * writer.committed_seconds / max(writer.n_assets, 1),
        "requests_per_asset": {k: v / n for k, v in sorted(SimulatedStore.requests.items())},
        "driver_grew_bytes": watch.end(), "commits": f"{writer.n_committed} of {writer.n_groups}",
    }  # fmt: skip
    calls = ", ".join(f"{k} {v:.2f}" for k, v in found["requests_per_asset"].items())
    print(
        f"{n} assets, {workers} workers at {seconds:g} s, {1e3 * latency:g} ms a request, "
        + (f"every {fail_every}th fails" if fail_every else "none fails")
        + f": {found['assets_per_s']:.1f} assets/s, workers {100 * found['busy']:.1f} % busy, "
        f"commits end {behind:.1f} s later, {found['cpu_ms_per_asset']:.2f} ms CPU an asset, "
        f"driver grew by {found['driver_grew_bytes'] / 2**20:.0f} MiB; requests an asset: {calls}; "
        f"commits made {found['commits']}",
        flush=True,
    )
    return found


def main() -> None:
    """`make bench-fleet`: the steady state in real time, then the whole of 365,000 assets."""
    import json
    import os

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=320, help="simulated workers")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds that each takes for an asset")
    parser.add_argument("--steady", type=int, default=3200, help="assets of each real-time row; 0: none")
    parser.add_argument("--assets", type=int, default=365_000, help="assets of the whole; 0: none")
    parser.add_argument("--share", type=int, default=100, help="of the whole, one group of so many is real")
    parser.add_argument("--group", type=int, default=100, help="assets of a shard")
    parser.add_argument("--out", help="JSON file for the figures")
    args = parser.parse_args()
    rows = []
    print(f"{usable_cores()} cores, load {os.getloadavg()[0]:.1f}")
    for latency, fail_every in ((0.03, 0), (0.03, 10), (0.3, 0)) if args.steady else ():
        rows.append(simulate(args.steady, args.workers, args.seconds, latency, fail_every, 1, args.group))
    if args.assets:
        # The clock of the workers is left out: what remains is the driver, as fast as it goes.
        rows.append(simulate(args.assets, args.workers, 0.0, 0.0, 10, args.share, args.group))
    print(f"load {os.getloadavg()[0]:.1f}")
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
