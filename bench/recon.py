"""Quality and cost of reconstruction on rendered ground truth (`make bench-recon`).

Each asset's dynamic and static orbit are fitted; the front view and a second dynamic orbit that starts at the
back are never seen. Beside the fit stand its baselines: the coarse stage alone (static Gaussians), the
training frame of the nearest view, and the fine stage without the coarse one. Every number is PSNR in dB, on
white, mean over views.

    python bench/recon.py                               renders three assets of ../shared/assets first
    python bench/recon.py --dataset DATASET --preset fast --limit 2
    python bench/recon.py --fields nodes,hexplane       how the default field was chosen
    python bench/recon.py --cameras 4,8,16 --dataset DATASET    synchronised cameras, of `--rigs ring:16@15`
    python bench/recon.py --dnerf --resolution 128 --fields nodes,hexplane,keyframes    parts/recon_dnerf.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets import Index
from orbit4d.recon4d.fitting import losses, optimize
from orbit4d.recon4d.fitting import reconstruction as rec
from orbit4d.recon4d.fitting.settings import PRESETS, ReconstructionSettings
from orbit4d.recon4d.fitting.state import new_fit
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.scene import Scene, draw

sys.path.insert(0, str(Path(__file__).parent))
from parts import recon_dnerf, recon_views

SCORES = ("train", "front", "orbit1", "held out")
ASSETS = ("dev_fox.glb", "dev_cesiumman.glb", "dev_robot.glb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", help="rendered with --orbits 2 --azimuths 0,180; default: made here")
    parser.add_argument("--preset", default="default", choices=list(PRESETS))
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--fine-steps", type=int, help="instead of the preset's")
    parser.add_argument("--fields", default="nodes")
    parser.add_argument("--limit", type=int, default=3, help="number of assets")
    parser.add_argument("--assets", help="UID or UID:ACTION of these, instead of the first ones")
    parser.add_argument("--rows", default="fit,static,fine,nearest", help="which rows of the table are made")
    parser.add_argument("--no-step", action="store_true", help="leave the cost of a step unmeasured")
    parser.add_argument("--threads", type=int, default=2, help="of the fits")
    parser.add_argument("--curve", default="1,2", help="numbers of threads that a step is timed on, in turns")
    parser.add_argument("--cameras", help="4,8,16: synchronised cameras instead (parts/recon_views.py)")
    parser.add_argument("--rig", default="ring_16_15", help="of --cameras: rig that is trained on")
    parser.add_argument("--held", default="held", help="of --cameras: rig that is held out")
    parser.add_argument("--moments", type=int, default=4, help="of --cameras: moments with static Gaussians")
    parser.add_argument("--dnerf", nargs="?", const="", metavar="FOLDER", help="D-NeRF-like sets instead")
    parser.add_argument("--paths", default="hemisphere", help="of --dnerf: hemisphere, spiral, or both")
    options = parser.parse_args()
    settings = replace(PRESETS[options.preset], resolution=options.resolution)
    if options.fine_steps is not None:
        settings = replace(settings, fine_steps=options.fine_steps)
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as scratch:
        if options.dnerf is not None:
            monocular(Path(options.dnerf or scratch), Path(scratch), settings, options)
            return
        dataset = options.dataset or render(Path(scratch), options.resolution)
        pairs = references(dataset, options.assets.split(",") if options.assets else None)[: options.limit]
        if options.cameras:
            grids(pairs, settings, options)
            return
        kinds = (options.fields.split(","), options.rows.split(","))
        with threads.alone(options.threads):
            rows = [row for pair in pairs for row in fits(pair, settings, *kinds)]
        counts = [int(count) for count in options.curve.split(",")]
        step = None if options.no_step else step_cost(pairs[0], settings, counts)
    means = summary(rows)
    record = {
        "bench": "recon", "preset": options.preset, "resolution": options.resolution,
        "threads": options.threads, "torch": torch.__version__, "assets": len(pairs), "means": means,
        "step": step, "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rows": rows,
    }  # fmt: skip
    print(json.dumps(record))


def grids(pairs: list[str], settings: ReconstructionSettings, options: argparse.Namespace) -> None:
    """Rows of synchronised cameras, and their baselines, as one record."""
    counts = [int(count) for count in options.cameras.split(",")]
    wanted = (
        ("fit", "orbit", "moments") if options.rows == "fit,static,fine,nearest" else options.rows.split(",")
    )
    with threads.alone(options.threads):
        rows = [
            row
            for pair in pairs
            for row in recon_views.rows(
                pair, settings, counts, wanted, options.rig, options.held, options.moments, show
            )
        ]
    print(json.dumps({"bench": "recon, cameras", "preset": options.preset, "rows": rows}))


def monocular(
    folder: Path, scratch: Path, settings: ReconstructionSettings, options: argparse.Namespace
) -> None:
    """Rows of D-NeRF-like sets (`parts/recon_dnerf.py`), as one record. `folder` keeps the sets."""
    fields = {f"fit, {kind}": recon_dnerf.moved_by(settings, kind) for kind in options.fields.split(",")}
    rows = []
    for path in options.paths.split(","):
        assets = [shared_assets() / f"{name}.glb" for name in (options.assets or "dev_fox").split(",")]
        scenes = recon_dnerf.rendered(assets, path, folder, settings.resolution)
        rows += recon_dnerf.rows(scenes, settings, fields, scratch, show, threads=options.threads)
    print(json.dumps({"bench": "recon, D-NeRF-like", "preset": options.preset, "rows": rows}))


def shared_assets() -> Path:
    return Path(__file__).resolve().parents[2] / "shared" / "assets"


def render(folder: Path, resolution: int) -> str:
    """Render the shared assets with two orbits; the dataset's folder."""
    sources = [str(shared_assets() / name) for name in ASSETS if (shared_assets() / name).is_file()]
    if not sources:
        sys.exit("no assets beside this checkout: give --dataset DATASET rendered with --orbits 2")
    words = ["render", *sources, "--out", str(folder / "dataset"), "--resolution", str(resolution)]
    words += ["--orbits", "2", "--azimuths", "0,180"]
    subprocess.run([sys.executable, "-P", "-m", "orbit4d.app", *words], check=True)
    return str(folder / "dataset")


def references(dataset: str, wanted: list[str] | None = None) -> list[str]:
    """DATASET:uid:action of what is wanted by UID (its first action that has a dynamic orbit) or UID:ACTION,
    in that order; of every asset without."""
    found: dict[str, str] = {}
    for _, table in Index(dataset).read(["uid", "action", "rig"]):
        for row in table.to_pylist():
            if row["rig"] == "dynamic_orbit":
                reference = f"{dataset}:{row['uid']}:{row['action']}"
                found.setdefault(row["uid"], reference)
                found[f"{row['uid']}:{row['action']}"] = reference
    if unknown := [name for name in wanted or () if name not in found]:
        sys.exit(f"{dataset}: has no {', '.join(unknown)} with a dynamic orbit; it has {', '.join(found)}")
    return [found[name] for name in wanted or found if wanted or ":" not in name]


def fits(
    reference: str, settings: ReconstructionSettings, fields: list[str], wanted: list[str]
) -> list[dict[str, Any]]:
    """Rows of one asset: a fit per field, and the baselines."""
    inputs = rec.read_inputs(reference, None, None, None, 0.0, None, None)
    inputs = rec.Inputs(
        inputs.dynamic.resized(settings.resolution),
        inputs.static.resized(settings.resolution) if inputs.static else None,
        {name: frames.resized(settings.resolution) for name, frames in inputs.held_out.items()},
        inputs.notes,
    )
    name = reference.split(":", 1)[1]
    variants = {f"fit, {kind}": replace(settings, deformation=field(settings, kind)) for kind in fields}
    first = next(iter(variants.values()))
    if "fit" not in wanted:
        variants = {}
    if "static" in wanted:
        variants["static Gaussians"] = replace(first, fine_steps=0, deform_from=2.0)
    if "fine" in wanted:
        variants["fine without coarse"] = replace(first, coarse_steps=0)
    rows = []
    for label, chosen in variants.items():
        # Without the coarse stage there is no static orbit either: the fine stage sees the video alone.
        static = None if label == "fine without coarse" else inputs.static
        seen = rec.Inputs(inputs.dynamic, static, inputs.held_out, [])
        chosen = rec.anchored(chosen, seen)
        wall, cpu = time.monotonic(), time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):
            fit = new_fit(rec.first_gaussians(seen, chosen, 0), chosen, 0)
            optimize.optimise(fit, seen.dynamic, seen.static, chosen)
        scene = Scene(fit.gaussians, fit.field.requires_grad_(False), seen.dynamic.cameras, seen.dynamic.time)
        row = {"asset": name, "what": label, "seconds": round(time.monotonic() - wall, 1)}
        row["cpu_seconds"] = round(time.process_time() - cpu, 1)
        row["train"], row["train_ssim"] = rec.score(scene, inputs.dynamic)
        rows.append(with_held_out(row, inputs, lambda frames, scene=scene: rec.score(scene, frames)))
    if "nearest" in wanted:
        row = {"asset": name, "what": "nearest training frame"}
        rows.append(with_held_out(row, inputs, lambda frames: rec.nearest_frame(inputs.dynamic, frames)))
    return rows


def with_held_out(
    row: dict[str, Any], inputs: rec.Inputs, score: Callable[[Frames], tuple[float, float]]
) -> dict[str, Any]:
    """The row with scores of every held-out set and their mean, printed."""
    for held, frames in inputs.held_out.items():
        row[held], row[f"{held}_ssim"] = score(frames)
    for end in ("", "_ssim"):
        row[f"held out{end}"] = float(np.mean([row[f"{held}{end}"] for held in inputs.held_out]))
    return show(row)


def field(settings: ReconstructionSettings, kind: str) -> dict[str, Any]:
    return settings.deformation if settings.deformation["kind"] == kind else {"kind": kind}


def show(row: dict[str, Any]) -> dict[str, Any]:
    """Print a line of the table; the row with rounded numbers."""
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
    shown = [(f"{key} {row[key]:5.2f}", row.get(f"{key}_ssim")) for key in SCORES if key in row]
    scores = "  ".join(psnr if ssim is None else f"{psnr}/{ssim:.3f}" for psnr, ssim in shown)
    cost = f"  {row['seconds']:.0f} s ({row['cpu_seconds']:.0f} s CPU)" if "seconds" in row else ""
    print(f"{row['asset']:<24} {row['what']:<24} {scores}{cost}", flush=True)
    return rounded


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean over assets of each kind of row, printed."""
    means: dict[str, dict[str, float]] = {}
    for what in dict.fromkeys(row["what"] for row in rows):
        of_kind = [row for row in rows if row["what"] == what]
        keys = [f"{key}{end}" for key in SCORES for end in ("", "_ssim")] + ["seconds", "cpu_seconds"]
        keys = [key for key in keys if key in of_kind[0]]
        means[what] = {key: round(float(np.mean([row[key] for row in of_kind])), 3) for key in keys}
        print(f"{'mean':<24} {what:<24} " + "  ".join(f"{k} {v}" for k, v in means[what].items()))
    return means


def step_cost(
    reference: str, settings: ReconstructionSettings, counts: list[int], updates: int = 12
) -> dict[str, Any]:
    """Milliseconds a view of whole fine updates by number of threads, and of the rasteriser alone.

    Bursts of updates take turns, so that a busy machine slows every number of threads. `wall` is the quickest
    burst's, `cpu` the median's; `autograd` is the slow way of a view, on one thread.
    """
    inputs = rec.read_inputs(reference, None, None, None, 0.0, None, None)
    inputs = replace(inputs, dynamic=inputs.dynamic.resized(settings.resolution), static=None)
    whole = replace(settings, coarse_steps=0, fine_steps=10**6, warmup_share=0.0)
    fit = new_fit(rec.first_gaussians(inputs, whole, 0), whole, 0)
    fit.stage = "fine"
    fit.field.bind(fit.gaussians.means)
    pools = (optimize.views(inputs.dynamic), [])
    density = optimize.Density(whole.density)
    views = updates * whole.views_per_step

    def burst() -> None:
        for _ in range(updates):
            optimize.take_step(fit, pools, whole, density, whole.fine_steps, len(inputs.dynamic))

    def slow() -> None:
        for i in range(views):
            view = pools[0][i % len(pools[0])]
            frame = 1 / max(len(inputs.dynamic) - 1, 1) if i % whole.regularise_every == 0 else None
            losses.by_autograd(fit, whole, losses.Task(view, torch.rand(3), True, frame), fit.adam.row(0))

    def raster() -> None:
        for i in range(views):
            color, alpha, _ = draw(fit.gaussians, pools[0][i % len(pools[0])].camera)
            torch.autograd.backward((color, alpha), (torch.ones_like(color), torch.ones_like(alpha)))

    sides = [(f"{count} threads", count, burst) for count in counts]
    sides += [("autograd", 1, slow), ("rasteriser", 1, raster)]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in sides}
    for turn in range(8):
        for name, count, job in sides:
            with threads.alone(count):
                wall, cpu = time.perf_counter(), time.process_time()
                job()
                took = (time.perf_counter() - wall, time.process_time() - cpu)
            if turn:
                found[name].append(took)
    table = {}
    for name, times in found.items():
        wall, cpu = (
            1000 / views * float(pick(column)) for pick, column in zip((np.min, np.median), zip(*times))
        )
        table[name] = {"wall_ms": round(wall, 2), "cpu_ms": round(cpu, 2)}
        print(f"a view, {name:<12} {wall:6.2f} ms wall (quickest burst)  {cpu:6.2f} ms CPU (median)")
    return table


if __name__ == "__main__":
    main()
