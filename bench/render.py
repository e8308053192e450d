"""What an image, an object and a job cost: `make bench-render` (add BENCH_ARGS="--full" for the long
version).

Sections, each skipped with --skip NAME:
  engine    presets and single settings against an image of many samples with the same pixel filter
  objects   whole objects, from file to committed clips, against the published script's way
  workers   two workers of one thread against one
  fleet     jobs that render nothing: what the driver adds, and how fast finished work is recognised

Quality is PSNR and SSIM on white. Times are CPU seconds where they can be (a busy machine does not stretch
those) and wall seconds otherwise; ratios are of one run on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fleet import fleet_section

from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.images.measures import composite, psnr, ssim
from orbit4d.datasets.sources.asset import Asset
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.render.dataset.asset_job import asset_job
from orbit4d.render.dataset.render_assets import render_assets
from orbit4d.render.fleet.child import BlenderChild
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.fleet.worker import Job, Worker, WorkerSettings
from orbit4d.render.planning.sample_count import PROBE_SAMPLES, PROBE_SEEDS
from orbit4d.render.planning.settings import PRESETS, RenderSettings, preset

ASSETS = ("dev_fox.glb", "dev_robot.glb", "dev_ww1plane.glb", "dev_planet.glb")


def truth_of(settings: RenderSettings, samples: int) -> RenderSettings:
    """The same look from many samples: no denoiser, nothing adaptive, other random numbers, no dither."""
    engine = replace(
        settings.engine,
        samples=samples,
        adaptive_threshold=None,
        denoise=False,
        seed=7,
        dither=0.0,
        target_psnr_db=None,
        target_ssim=1.0,
        least_samples=1,
    )
    return replace(settings, engine=engine)


def truths_of(
    child: BlenderChild, asset: Path, base: RenderSettings, truths: dict[str, RenderSettings], args: Any
) -> dict[str, list[np.ndarray]]:
    """Pictures RGBA of each truth at `args.frames`, rendered once and kept in the folder `args.truths`.

    What a truth shows depends on the file, on the plan and the framing of `base`, and on the truth's engine
    and lights; its engine's fields that only choose samples are the same for all.
    """
    from orbit4d.datasets.store.manifest import software_versions

    content = hashlib.sha256(asset.read_bytes()).hexdigest()
    plan = {**base.as_config(), "engine": None, "preset": None}
    found: dict[str, list[np.ndarray]] = {}
    for name, settings in truths.items():
        engine = settings.as_config() | {"preset": None}
        said = json.dumps([content, plan, engine, software_versions().get("bpy")], sort_keys=True)
        stem = Path(args.truths) / f"{asset.stem}_{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        files = [Path(f"{stem}_{i:03d}.npy") for i in args.frames]
        missing = [i for i, file in zip(args.frames, files, strict=True) if not file.is_file()]
        if missing:
            Path(args.truths).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as scratch:
                trials = {"truth": settings.as_config()}
                payload = {"path": str(asset), "uid": asset.stem, "base": base.as_config(), "trials": trials}
                made = child.call("trial", {**payload, "frames": missing, "scratch": scratch}, 36000)
                for i, file in zip(missing, made["truth"]["files"], strict=True):
                    shutil.copy(Path(scratch) / file, f"{stem}_{i:03d}.part")
                    os.replace(f"{stem}_{i:03d}.part", f"{stem}_{i:03d}.npy")
        found[name] = [np.load(file) for file in files]
    return found


def engine_section(assets: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Speed and quality of single images."""
    trials = {name: replace(PRESETS[name], resolution=args.resolution) for name in PRESETS}
    for n in args.samples:
        trials[f"{n} samples"] = preset("default", resolution=args.resolution, samples=n)
    truths = {name: truth_of(trials[name], args.truth) for name in ("default", "diffusion4d")}
    rows: dict[str, Any] = {}
    print(f"{'asset':18}{'setting':14}{'samples':>8}{'cpu s':>8}{'faster':>8}  PSNR dB / SSIM of each frame")
    with BlenderChild() as child:
        for asset in assets:
            truth_pictures = {
                name: [composite(image) for image in pictures]
                for name, pictures in truths_of(child, asset, trials["default"], truths, args).items()
            }
            if args.truths_only:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                result = child.call(
                    "trial",
                    {
                        "path": str(asset),
                        "uid": asset.stem,
                        "base": trials["default"].as_config(),
                        "trials": {name: s.as_config() for name, s in trials.items()},
                        "frames": args.frames,
                        "repeats": dict.fromkeys(trials, args.repeats),
                        "scratch": scratch,
                    },
                    36000,
                )
                pictures = {
                    name: [composite(np.load(Path(scratch) / file)) for file in found["files"]]
                    for name, found in result.items()
                }
            reference = float(np.mean(result["diffusion4d"]["cpu_seconds"]))
            for name in trials:
                truth = truth_pictures["diffusion4d" if name == "diffusion4d" else "default"]
                cpu = float(np.mean(result[name]["cpu_seconds"]))
                scores = [(psnr(a, b), ssim(a, b)) for a, b in zip(pictures[name], truth, strict=True)]
                rows[f"{asset.stem}/{name}"] = {
                    "samples": result[name]["samples"],
                    "cpu": cpu,
                    "faster": reference / cpu,
                    "scores": scores,
                }
                text = "  ".join(f"{p:.1f}/{s:.4f}" for p, s in scores)
                taken, faster = result[name]["samples"], reference / cpu
                print(f"{asset.stem:18}{name:14}{taken:8}{cpu:8.3f}{faster:8.1f}  {text}", flush=True)
    summary: dict[str, Any] = {"resolution": args.resolution, "truth_samples": args.truth}
    if args.truths_only:
        return summary
    for name in trials:
        if name == "diffusion4d":
            continue
        mine = [rows[f"{asset.stem}/{name}"] for asset in assets]
        theirs = [rows[f"{asset.stem}/diffusion4d"] for asset in assets]
        pairs = [(m, t) for a, b in zip(mine, theirs) for m, t in zip(a["scores"], b["scores"])]
        summary[name] = {
            "faster_geomean": float(np.exp(np.mean([np.log(row["faster"]) for row in mine]))),
            "faster_least": min(row["faster"] for row in mine),
            "frames_with_psnr_as_good": sum(m[0] >= t[0] for m, t in pairs),
            "frames_with_ssim_as_good": sum(m[1] >= t[1] for m, t in pairs),
            "frames": len(pairs),
            "psnr_least": min(m[0] for m, _ in pairs),
        }
        s = summary[name]
        print(
            f"{name:14} {s['faster_geomean']:.1f}x (least {s['faster_least']:.1f}x), as good in PSNR "
            f"{s['frames_with_psnr_as_good']}/{s['frames']}, in SSIM {s['frames_with_ssim_as_good']}"
            f"/{s['frames']}, least PSNR {s['psnr_least']:.1f} dB"
        )
    return summary


def objects_section(assets: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Objects per hour: all rigs of the first action, imported, framed, rendered, encoded, committed.

    The published way is one Blender start and one import per asset and 72 images of 128 denoised samples;
    `--published-pictures` of them are taken, the rest is multiplied.
    """
    ours = preset("default", resolution=args.resolution)
    published = preset("diffusion4d", resolution=args.resolution)
    n = args.published_pictures
    theirs, mine, other, phases = [], [], [], {}
    for asset in assets:
        with BlenderChild() as child, tempfile.TemporaryDirectory() as scratch:
            began = time.perf_counter()
            child.start()
            start = time.perf_counter() - began
            payload = {"path": str(asset), "uid": asset.stem, "scratch": scratch, "actions": [0]}
            few = replace(published, frames=max(2, n), rigs=("front_view",))
            began = time.perf_counter()
            result = child.call("render_clips", {**payload, "settings": few.as_config()}, 36000)
            whole = time.perf_counter() - began
            per_picture = result["timings"]["render"] / few.frames
            theirs.append(start + whole - result["timings"]["render"] + 72 * per_picture)
        work = replace(resolve([str(asset)]).assets[0], actions=(0,))
        with tempfile.TemporaryDirectory() as folder:
            result, took = one_object(work, ours, Path(folder))
            floor = one_object(work, replace_samples(ours, 1), Path(folder) / "floor")[0]["timings"]["render"]
        mine.append(took)
        other.append(1.0 - tracing_seconds(result, floor) / mine[-1])
        for phase, seconds in result["timings"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
        ratio = theirs[-1] / mine[-1]
        print(
            f"{asset.stem:18} published way {theirs[-1]:7.1f} s, ours {mine[-1]:6.1f} s: {ratio:.1f}x; "
            f"{result['samples']} samples, {other[-1]:.0%} of ours is not path tracing",
            flush=True,
        )
    total = sum(phases.values())
    share = {phase: seconds / total for phase, seconds in phases.items()}
    print("ours by phase: " + ", ".join(f"{phase} {part:.0%}" for phase, part in share.items()))
    print(f"objects/hour: {3600 * len(mine) / sum(mine):.0f} against {3600 * len(theirs) / sum(theirs):.0f}")
    return {
        "faster": sum(theirs) / sum(mine),
        "seconds": mine,
        "published_seconds": theirs,
        "not_path_tracing": other,
        "shares": share,
        "published_pictures_taken": n,
    }


def one_object(asset: Asset, settings: RenderSettings, folder: Path) -> tuple[dict[str, Any], float]:
    """What a worker answers for one asset, and the seconds from its file to the committed clips. The start of
    Blender is left out: a fleet shares it between 50 assets."""
    out = str(folder / "dataset")
    writer = DatasetWriter(out, settings.as_config())
    worker = Worker(WorkerSettings())
    try:
        worker.run(Job("warm", "selftest"))
        began = time.perf_counter()
        reply = worker.run(asset_job(asset, out, settings.as_config()))
        assert reply.result is not None, reply
        writer.roll(final=True)
        return reply.result, time.perf_counter() - began
    finally:
        worker.close()


def replace_samples(settings: RenderSettings, samples: int) -> RenderSettings:
    """The same settings with that many samples for every asset."""
    return replace(settings, engine=replace(settings.engine, samples=samples, target_psnr_db=None))


def tracing_seconds(result: dict[str, Any], floor: float) -> float:
    """Seconds of path tracing behind a worker's answer, given the same job's render seconds at one sample.

    What grows with the samples is path tracing, of the images and of the probe's; all else is not.
    """
    n = result["images"]
    per_sample = (result["timings"]["render"] - floor) / (n * (result["samples"] - 1))
    return per_sample * (n * result["samples"] + 2 * len(PROBE_SEEDS) * PROBE_SAMPLES)


def workers_section(assets: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    """One worker against two, one thread each, on the same objects."""
    settings = preset("draft", resolution=64, frames=8)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "assets"
        source.mkdir()
        for i in range(args.copies):
            for asset in assets[:2]:
                # Distinct contents, since equal ones would count as duplicates: glTF allows trailing spaces.
                shutil.copy(asset, source / f"{asset.stem}_{i}{asset.suffix}")
                _make_distinct(source / f"{asset.stem}_{i}{asset.suffix}", i)
        for workers in (1, 2):
            fleet = FleetSettings(workers=workers, threads_per_worker=1)
            # Ray's start is the same for both and no matter of scaling: it is paid before the clock runs.
            import ray

            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            began = time.perf_counter()
            render_assets([str(source)], str(Path(folder) / f"out{workers}"), settings, fleet, quiet=True)
            seconds[workers] = time.perf_counter() - began
            ray.shutdown()
    print(f"1 worker {seconds[1]:.1f} s, 2 workers {seconds[2]:.1f} s: {seconds[1] / seconds[2]:.2f}x")
    return {"seconds": seconds, "faster": seconds[1] / seconds[2], "cores": usable_cores()}


def _make_distinct(path: Path, i: int) -> None:
    """Pad a GLB's JSON chunk by 4 · i spaces."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[12:16], "little")
    data[20 + length : 20 + length] = b" " * (4 * i)
    data[12:16] = (length + 4 * i).to_bytes(4, "little")
    data[8:12] = len(data).to_bytes(4, "little")
    path.write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", nargs="*", help="GLB files; default: four of ../shared/assets")
    parser.add_argument(
        "--full", action="store_true", help="256 pixels, truths of 2048 samples, 100 000 null jobs"
    )
    parser.add_argument("--skip", nargs="*", default=[], choices=["engine", "objects", "workers", "fleet"])
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--truth", type=int, help="samples of a truth")
    parser.add_argument("--truths", help="folder that keeps truths; default: build/bench-truths")
    parser.add_argument("--truths-only", action="store_true", help="render missing truths and stop there")
    parser.add_argument("--samples", type=int, nargs="*", help="further sample counts of the default preset")
    parser.add_argument("--frames", type=int, nargs="*", help="frames of the dynamic orbit")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--null-jobs", type=int)
    parser.add_argument("--copies", type=int, default=4, help="even, or one worker ends alone")
    parser.add_argument("--published-pictures", type=int)
    args = parser.parse_args()
    small = {
        "resolution": 96,
        "truth": 256,
        "samples": [16],
        "frames": [0, 8],
        "null_jobs": 1000,
        "published_pictures": 2,
    }
    full = {
        "resolution": 256,
        "truth": 2048,
        "samples": [8, 16, 32, 64],
        "frames": [0, 8, 16],
        "null_jobs": 100_000,
        "published_pictures": 6,
    }
    for name, value in (full if args.full else small).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    root = Path(__file__).resolve().parent.parent
    args.truths = args.truths or root / "build" / "bench-truths"
    assets = [Path(a).resolve() for a in args.assets or []]
    if not assets:
        assets = [root.parent / "shared" / "assets" / name for name in ASSETS][: 4 if args.full else 2]
    missing = [asset for asset in assets if not asset.is_file()]
    if missing:
        sys.exit(f"error: no file {missing[0]}; name GLB files with --assets")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    report: dict[str, Any] = {"bench": "render", "commit": commit, "cores": usable_cores(), "full": args.full}
    sections = {
        "engine": lambda: engine_section(assets, args),
        "objects": lambda: objects_section(assets, args),
        "workers": lambda: workers_section(assets, args),
        "fleet": lambda: fleet_section(args),
    }
    for name, section in sections.items():
        if name not in args.skip:
            print(f"\n== {name}")
            report[name] = section()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
