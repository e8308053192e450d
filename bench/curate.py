"""make bench-curate: what curation costs. Prints a table and ends with one line of JSON.

  1. measuring every action of the sources with one worker and with two (Blender's start included), and whose
     CPU seconds these are: on a machine that others use, they say what the seconds on the clock cannot,
  2. what an asset with all its actions costs to measure, against rendering its accepted actions at the preset
     `default`, both with two workers (of each of --rendered assets, evenly chosen, one accepted action is
     rendered and counted for all of them),
  3. deciding 1,000,000 measured rows, with the peak memory of a fresh process,
  4. writing the report for 10,000 rows with previews.

The sources default to ../shared/assets and ../shared/pool beside the checkout (name others as arguments).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orbit4d.datasets.core.cores import usable_cores

if TYPE_CHECKING:
    from parts.tree_cpu import TreeCpu

ROOT = Path(__file__).resolve().parent.parent


def measure_all(
    sources: list[str], workers: int, limit: int | None
) -> tuple[float, pa.Table, dict[str, object]]:
    """Wall seconds of measuring `sources` from nothing, Ray's start left out, the table, and who computed."""
    # Here, since the process that only decides is started with -P, which hides the folder of this file.
    from parts.tree_cpu import TreeCpu

    from orbit4d.curate.measuring import MeasureSettings, measure_sources
    from orbit4d.datasets.sources.resolve import resolve
    from orbit4d.render.fleet.cluster import ray_cluster
    from orbit4d.render.fleet.settings import FleetSettings

    fleet = FleetSettings(workers=workers, threads_per_worker=1)
    if limit is not None:
        assets = resolve(sources).assets
        chosen = np.unique(np.linspace(0, len(assets) - 1, min(limit, len(assets))).round().astype(int))
        sources = [assets[i].path for i in chosen]
    with ray_cluster(fleet), TreeCpu() as tree:
        started = time.perf_counter()
        table = measure_sources(sources, settings=MeasureSettings("window"), fleet=fleet).table
        seconds = time.perf_counter() - started
    return seconds, table, computed(tree)


def computed(tree: TreeCpu) -> dict[str, object]:
    """CPU seconds by part, and how the time of the Blender processes that worked divides."""
    cpu = {part: [round(one, 1) for one in some] for part, some in tree.parts().items()}
    blender = sorted(tree.waits("Blender"))
    return {
        "cpu_seconds": cpu,
        "blender_queued": [round(queued, 1) for queued, _ in blender],
        "blender_waited": [round(waited, 1) for _, waited in blender],
    }


def print_computed(workers: int, found: dict[str, object]) -> None:
    """The same, as lines."""
    for part, some in found["cpu_seconds"].items():  # type: ignore[attr-defined]
        print(f"  {workers} at work, CPU s of {part:<18} {sum(some):7.1f}   {' '.join(map(str, some[:4]))}")
    waits = f"without a core {found['blender_queued']} s, for work {found['blender_waited']} s"
    print(f"  {workers} at work, Blender waited {waits}", flush=True)


def blender_start_seconds() -> float:
    """Wall seconds until a Blender child answers, as every worker waits once."""
    from orbit4d.render.fleet.child import BlenderChild

    started = time.perf_counter()
    with BlenderChild(threads=1) as child:
        child.start()
        return time.perf_counter() - started


def against_render(table: pa.Table, n: int, workers: int, folder: Path) -> list[dict]:
    """Seconds of measuring and of rendering n assets with all their actions."""
    from orbit4d.curate.rules import decide
    from orbit4d.curate.tables import write_table

    decided = decide(table)
    rows = [row for row in decided.drop(["preview"]).to_pylist() if row["status"] == "measured"]
    assets: dict[str, list[dict]] = {}
    for row in rows:
        assets.setdefault(row["uid"], []).append(row)
    start = blender_start_seconds() * workers / len(assets)
    fit = sorted(uid for uid, some in assets.items() if any(row["verdict"] == "accepted" for row in some))
    names = [fit[i] for i in np.unique(np.linspace(0, len(fit) - 1, n).round().astype(int))]
    rendered = {}
    for name in names:
        accepted = [row for row in assets[name] if row["verdict"] == "accepted"]
        rendered[name] = (accepted[len(accepted) // 2]["action_index"], len(accepted))
    keep = [
        rendered.get(uid, (None, 0))[0] == action
        for uid, action in zip(decided["uid"].to_pylist(), decided["action_index"].to_pylist())
    ]
    write_table(decided.filter(pa.array(keep)), str(folder / "chosen.parquet"))
    command = [sys.executable, "-P", "-m", "orbit4d.app", "render", str(folder / "chosen.parquet")]
    command += ["--out", str(folder / "dataset"), "--workers", str(workers), "--threads-per-worker", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    from orbit4d.datasets.index.index import Index

    spent: dict[str, float] = {}
    for _, part in Index(str(folder / "dataset")).read(["uid", "render_seconds"]):
        for uid, seconds in zip(part["uid"].to_pylist(), part["render_seconds"].to_pylist()):
            spent[uid] = spent.get(uid, 0.0) + seconds
    found = []
    for name in names:
        # The import counts for measuring alone, though rendering pays it as well.
        cost = start + assets[name][0]["import_seconds"] + sum(row["measure_seconds"] for row in assets[name])
        if name in spent:
            found.append({"uid": name, "measure": cost, "render": spent[name] * rendered[name][1]})
    return found


def wide_table(n: int, previews: bytes | None = None) -> pa.Table:
    """n measured rows of plausible numbers."""
    from orbit4d.curate.columns import SCHEMA

    rng = np.random.default_rng(0)
    data: dict[str, pa.Array] = {}
    for field in SCHEMA:
        if field.type == pa.float64():
            data[field.name] = pa.array(10.0 ** rng.uniform(-3, 0.5, n))
        elif field.type == pa.int64():
            data[field.name] = pa.array(rng.integers(0, 100_000, n))
        elif field.type == pa.bool_():
            data[field.name] = pa.array(np.zeros(n, bool))
        elif pa.types.is_list(field.type):
            data[field.name] = pa.array([[]] * n, field.type)
        elif field.type == pa.binary():
            data[field.name] = pa.array([previews] * n, field.type)
        else:
            data[field.name] = pa.nulls(n, field.type)
    data["uid"] = pa.array([f"asset{i // 8}" for i in range(n)])
    data["action"] = pa.array([f"action{i % 8}" for i in range(n)])
    data["status"] = pa.array(["measured"] * n)
    data["license"] = pa.array(rng.choice(["CC0-1.0", "CC-BY-4.0", ""], n))
    return pa.table(data, schema=SCHEMA)


def decide_alone(path: str) -> None:
    """In a process of its own: read, decide, say how long it took and how much memory was used at most."""
    from orbit4d.curate.rules import decide, make_rules

    table = pq.read_table(path)
    started = time.perf_counter()
    decide(table, make_rules("default", None, {"license": ("CC0*",), "max_ssim": 0.95}))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def bench_measuring(sources: list[str], limit: int | None) -> tuple[pa.Table, dict[str, object]]:
    """The measured table, and how fast one worker and two were."""
    # Once before, so that neither pays for reading Blender from a cold disk.
    measure_all(sources, 1, 1)
    two, table, spent_2 = measure_all(sources, 2, limit)
    n, assets = table.num_rows, len(set(table["uid"].to_pylist()))
    print(f"{assets} assets, {n} actions       seconds   actions/s")
    print(f"measure, 2 workers     {two:14.1f} {n / two:11.2f}", flush=True)
    print_computed(2, spent_2)
    one, _, spent_1 = measure_all(sources, 1, limit)
    print(f"measure, 1 worker      {one:14.1f} {n / one:11.2f}   two are x{one / two:.2f}", flush=True)
    print_computed(1, spent_1)
    seconds = np.array([value or np.nan for value in table["measure_seconds"].to_pylist()])
    return table, {
        "assets": assets,
        "actions": n,
        "seconds_1": one,
        "seconds_2": two,
        "speedup_2": one / two,
        "spent_1": spent_1,
        "spent_2": spent_2,
        "actions_per_second_2": n / two,
        "median_action_seconds": float(np.nanmedian(seconds)),
    }


def bench_share(table: pa.Table, n: int, folder: Path) -> dict[str, object]:
    """What measuring costs, as a share of rendering."""
    pairs = against_render(table, n, 2, folder)
    for pair in pairs:
        measure, render = pair["measure"], pair["render"]
        share = f"measure {measure:.2f} s, render {render:.1f} s = {measure / render:.1%}"
        print(f"{pair['uid'][:32]:<32} {share}")
    median = float(np.median([pair["measure"] / pair["render"] for pair in pairs]))
    print(f"median share of rendering {median:.1%}")
    return {"median_share_of_render": median}


def bench_deciding(rows: int, preview: bytes | None, folder: Path) -> dict[str, object]:
    """Deciding many rows in a fresh process, and a report of 10,000 with images."""
    from orbit4d.curate.report.page import write_report
    from orbit4d.curate.rules import decide

    pq.write_table(wide_table(rows), folder / "wide.parquet")
    command = [sys.executable, "-P", __file__, "--decide", str(folder / "wide.parquet")]
    alone = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    peak = alone["peak_bytes"] / 2**30
    print(f"decide {rows:,} rows {alone['seconds']:.2f} s, peak {peak:.2f} GiB")
    small = decide(wide_table(10_000, preview))
    started = time.perf_counter()
    page = write_report(small, folder / "report")
    seconds = time.perf_counter() - started
    print(f"report of 10,000 rows {seconds:.2f} s, {page.stat().st_size / 2**20:.1f} MiB", flush=True)
    return {
        "decide_rows": rows,
        "decide_seconds": alone["seconds"],
        "decide_peak_gib": peak,
        "report_10000_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--limit", type=int, default=None, help="measure at most this many assets")
    parser.add_argument("--rendered", type=int, default=12, help="assets to render for comparison; 0: none")
    parser.add_argument("--table", default=None, help="keep the measured table here (.parquet)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--decide", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.decide is not None:
        decide_alone(args.decide)
        return
    beside = [ROOT.parent / "shared" / name for name in ("assets", "pool")]
    sources = args.sources or [str(folder) for folder in beside if folder.is_dir()]
    result: dict[str, object] = {"bench": "curate", "cores": usable_cores()}
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as name:
        folder, preview, table = Path(name), None, None
        if sources:
            table, found = bench_measuring(sources, args.limit)
            result |= found
            preview = next((value for value in table["preview"].to_pylist() if value), None)
            if args.table:
                from orbit4d.curate.rules import decide
                from orbit4d.curate.tables import write_table

                write_table(decide(table), args.table)
        result |= bench_deciding(args.rows, preview, folder)
        if table is not None and args.rendered:
            result |= bench_share(table, args.rendered, folder)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
