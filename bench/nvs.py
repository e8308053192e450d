"""Novel views: the warp against rendered truth, its speed, what guidance costs, and guided against unguided.

    make bench-nvs                             everything; renders and trains into bench/out/nvs
    python bench/nvs.py --only warp            one part: gaussian, warp, speed, overhead, end
    python bench/nvs.py --truth DATA --clips DATA --run RUN     on what is rendered and trained already

gaussian  Every mode and schedule on a prior whose conditional is known: 20,000 samples.
warp      Four assets, static orbit of 36 views: view a to views 10, 20, 30, 50 degrees on. PSNR where seen
          and truly co-visible, IoU of `seen` with co-visibility, from one source and from two on both sides.
speed     24 frames of 1024 x 576.
overhead  A guided step ("dgs") against an unguided one, alternating, median of 50.
end       A tiny model trained here: guided and unguided orbits from view 0 with its depth, against the
          rendered orbit. Modes and schedules, losers included.

The last line is one line of JSON; --out writes it into a file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from parts.nvs_gaussian import gaussian
from parts.nvs_rows import NEW, Done, against, by_kind, gain

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ("dev_fox.glb", "dev_cesiumman.glb", "dev_milktruck.glb", "dev_barbarian_fbx.fbx")
TRUTH = "--rigs static_orbit --frames 36 --resolution 256 --samples 32 --elevation 15 --passes depth"
FISH = "anglerfish betta blobfish bluetang butterflyfish cardinalfish clownfish coralgrouper cowfish flatfish"
CLIPS = (
    "--preset draft --frames 24 --resolution 64 --samples 8 --fov 30 --rigs static_orbit,dynamic_orbit "
    "--elevation 15 --passes depth"
)
PARTS = ("gaussian", "warp", "speed", "overhead", "end")
STEPS = {10: 1, 20: 2, 30: 3, 50: 5}
STARTS = (0, 9, 18, 27)
#: Goals of the mean over the four assets: PSNR dB and IoU by degrees, one source; then two.
GOALS = {10: (31.5, 0.980), 20: (29.5, 0.965), 30: (28.0, 0.940), 50: (25.8, 0.880)}
GOALS_TWO = {10: (31.8, 0.99), 20: (30.1, 0.99), 30: (28.8, 0.99), 50: (26.8, 0.98)}
SAME = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default=str(ROOT / "bench" / "out" / "nvs"), help="where all is kept")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--truth", help="dataset of 36-view orbits with depth; default: rendered here")
    parser.add_argument("--clips", help="dataset that the tiny model is trained on; default: rendered here")
    parser.add_argument("--run", help="a run that is trained on --clips; default: trained here")
    parser.add_argument("--train-steps", type=int, default=1500)
    parser.add_argument("--sample-steps", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--assets", type=int, default=3, help="training clips measured, beside the new ones")
    parser.add_argument("--samples", type=int, default=20_000, help="of `gaussian`")
    parser.add_argument("--rows", default="", help="rows of `end` that begin so, separated by ;")
    parser.add_argument("--out", help="write the result into this file")
    args = parser.parse_args()
    parts, work = args.only or PARTS, Path(args.work)
    found: dict[str, Any] = {}
    if "gaussian" in parts:
        found["gaussian"] = gaussian(args.samples)
    if "warp" in parts:
        found["warp"] = warp(args.truth or rendered(work / "truth", dev_assets(), TRUTH))
    if "speed" in parts:
        found["speed"] = speed()
    if {"overhead", "end"} & set(parts):
        clips = args.clips or rendered(work / "clips", fish(), CLIPS)
        run = args.run or trained(work / "run", clips, args.train_steps)
        if "overhead" in parts:
            found["overhead"] = overhead(run)
        if "end" in parts:
            found["end"] = end_to_end(
                run, clips, args.sample_steps, args.seeds, args.assets, work / "end.jsonl", args.rows
            )
    line = json.dumps({"bench": "nvs", **found})
    if args.out:
        Path(args.out).write_text(line + "\n", encoding="utf-8")
    print(line)


# Data -----------------------------------------------------------------------------------------------------


def dev_assets() -> list[str]:
    """The four assets that the goals are for."""
    return [str(ROOT.parent / "shared" / "assets" / name) for name in ASSETS]


def fish() -> list[str]:
    """What the tiny model learns, and two that it does not."""
    return [str(ROOT.parent / "shared" / "pool" / f"cute_fish_pack_{name}.glb") for name in FISH.split()]


def rendered(out: Path, assets: list[str], how: str) -> str:
    """A dataset of assets; resumes where it stopped."""
    missing = [asset for asset in assets if not Path(asset).exists()]
    if missing:
        sys.exit(f"error: {missing[0]}: not there; give --truth and --clips")
    command = [sys.executable, "-P", "-m", "orbit4d.app", "render", *assets, "--out", str(out), *how.split()]
    subprocess.run(command, check=True)
    return str(out)


def trained(run: Path, dataset: str, steps: int) -> str:
    """A run of the tiny preset's static stage on all assets but the new ones."""
    import torch

    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import override
    from orbit4d.model.training.train import train

    torch.set_num_threads(1)
    if not (run / "model").exists():
        where = " and ".join(f"uid <> '{uid}'" for uid in NEW)
        stages = json.dumps([{"name": "static", "steps": steps, "condition_scale": 0.1}])
        size = ["data.resolution=64", "data.frames=24", "optim.batch=1", "optim.effective_batch=1"]
        config = override(preset("tiny"), [f"stages={stages}", f"data.where={where}", *size])
        train(config, dataset, run, resume=(run / "config.json").exists())
    return str(run)


def static_clip(dataset: str, uid: str) -> Any:
    """The static orbit of an asset's first action."""
    from orbit4d.datasets import read_clip

    return read_clip(dataset, uid, 0, rig="static_orbit")


def uids(dataset: str) -> list[str]:
    """Assets of a dataset."""
    from orbit4d.datasets import Index

    return sorted({uid for _, part in Index(dataset).read(["uid"]) for uid in part["uid"].to_pylist()})


# 9.3 the warp ---------------------------------------------------------------------------------------------


def warp(dataset: str) -> dict[str, Any]:
    """Means over assets, by degrees: ours, the released rule, two sources; and whether the goals are met."""
    rows: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for uid in uids(dataset):
        clip = static_clip(dataset, uid)
        views = [view(clip, i) for i in range(len(clip.frames))]
        for degrees, step in STEPS.items():
            each: dict[str, list[tuple[float, float]]] = {"ours": [], "released": [], "two": []}
            for a in STARTS:
                b, c = (a + step) % len(views), (a + 2 * step) % len(views)
                each["ours"].append(judged([views[a]], views[b], "ours"))
                each["released"].append(judged([views[a]], views[b], "released"))
                each["two"].append(judged([views[a], views[c]], views[b], "ours"))
            for name, pairs in each.items():
                rows.setdefault(name, {}).setdefault(degrees, []).append(mean(pairs))
        told = {d: rows["ours"][d][-1] for d in STEPS}
        print(uid, " · ".join(f"{d}: {p:.2f} dB {i:.3f}" for d, (p, i) in told.items()), flush=True)
    table = {name: {d: mean(pairs) for d, pairs in found.items()} for name, found in rows.items()}
    for name, found in table.items():
        print(f"{name:9s}", " | ".join(f"{d}: {p:.2f}, {i:.3f}" for d, (p, i) in found.items()))
    goals = {
        "ours": all(np.all(np.array(table["ours"][d]) >= GOALS[d]) for d in STEPS),
        "two": all(np.all(np.array(table["two"][d]) >= GOALS_TWO[d]) for d in STEPS),
        "above_released": all(np.all(np.array(table["ours"][d]) > table["released"][d]) for d in STEPS),
    }
    print("goals", goals)
    return {"table": table, "goals": goals}


def view(clip: Any, i: int) -> dict[str, Any]:
    """Straight colours, alpha, depth and camera of one frame of a clip."""
    rgba = clip.pixels()[i].astype(np.float32) / 255
    depth = clip.pass_arrays("depth")[i].reshape(rgba.shape[:2]).astype(np.float32)
    return {"rgb": rgba[..., :3], "alpha": rgba[..., 3], "depth": depth, "camera": clip.cameras[i]}


def judged(sources: list[dict[str, Any]], target: dict[str, Any], rule: str) -> tuple[float, float]:
    """PSNR in dB where seen, co-visible and opaque; IoU of seen with co-visibility inside the silhouette."""
    from orbit4d.datasets.images.measures import decibels
    from orbit4d.model.guided.warp import Source, forward_warp, warp_sources

    camera = target["camera"]
    true = np.any([covisible(source, target) for source in sources], axis=0)
    if rule == "ours":
        made = [
            Source(
                s["rgb"], np.where(s["alpha"] > 0.5, s["depth"], np.float32(np.inf)), s["camera"].K,
                s["camera"].w2c_opencv,
            )
            for s in sources
        ]  # fmt: skip
        found = warp_sources(made, camera.K, camera.w2c_opencv, (camera.w, camera.h))
        image, seen = found.image, found.seen
    else:
        (s,) = sources
        white = np.rint((s["rgb"] * s["alpha"][..., None] + 1 - s["alpha"][..., None]) * 255).astype(np.uint8)
        depth = np.where(np.isfinite(s["depth"]), s["depth"], 500.0)
        k = camera.K.copy()
        k[:2, 2] -= 0.5
        image, seen = forward_warp(white, depth, k, s["camera"].w2c_opencv, camera.w2c_opencv, "repo-single")
        image = image.astype(np.float32) / 255
    wanted = target["rgb"] * target["alpha"][..., None] + 1 - target["alpha"][..., None]
    solid = np.isfinite(target["depth"]) & (target["alpha"] > 0.5)
    compared = seen & true & (target["alpha"] == 1)
    error = float(((image - wanted)[compared] ** 2).mean())
    inside = seen & solid
    iou = float((inside & true).sum() / max((inside | (true & solid)).sum(), 1))
    return decibels(error), iou


def covisible(source: dict[str, Any], target: dict[str, Any]) -> Any:
    """Target pixels whose point the source sees: within 1 % of the depth of any of the 3 x 3 pixels there."""
    camera, depth = target["camera"], target["depth"]
    known = np.isfinite(depth)
    rows, columns = np.nonzero(known)
    z = depth[known]
    local = np.stack(
        [
            (columns + 0.5 - camera.cx) / camera.fl_x * z,
            -(rows + 0.5 - camera.cy) / camera.fl_y * z,
            -z,
        ],
        -1,
    )
    points = local @ camera.c2w[:3, :3].T + camera.position
    pixel, there = source["camera"].project(points)
    h, w = source["depth"].shape
    column, row = np.floor(pixel[:, 0]).astype(int), np.floor(pixel[:, 1]).astype(int)
    inside = (there > 0) & (column >= 0) & (row >= 0) & (column < w) & (row < h)
    seen = np.zeros(len(points), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            found = source["depth"][(row + dy).clip(0, h - 1), (column + dx).clip(0, w - 1)]
            seen |= inside & (np.abs(found / np.maximum(there, 1e-9) - 1) < SAME)
    out = np.zeros(depth.shape, bool)
    out[known] = seen
    return out


def mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of PSNR and IoU."""
    values = np.array(pairs).mean(0)
    return round(float(values[0]), 3), round(float(values[1]), 4)


# Speed ----------------------------------------------------------------------------------------------------


def speed() -> dict[str, float]:
    """Seconds of 24 frames of 1024 x 576 from one source, on one thread and on two: the least of three."""
    from orbit4d.datasets import orbit
    from orbit4d.model.guided.warp import Source, warp_frames

    cameras = orbit(24 * 12, size=(1024, 576))[:24]
    x, y = np.meshgrid(np.linspace(-1, 1, 1024), np.linspace(-1, 1, 576))
    depth = (2.0 + 0.3 * np.sin(3 * x) * np.cos(2 * y)).astype(np.float32)
    image = np.random.default_rng(0).random((576, 1024, 3)).astype(np.float32)
    source = Source(image, depth, cameras[0].K, cameras[0].w2c_opencv)
    arguments = ([[source]] * 24, [c.K for c in cameras], [c.w2c_opencv for c in cameras], (1024, 576))
    warp_frames(*[a[:1] if isinstance(a, list) else a for a in arguments], threads=1)  # compiles
    found = {}
    for threads in (1, 2):
        seconds = []
        for _ in range(3):
            begun = time.perf_counter()
            warp_frames(*arguments, threads=threads)
            seconds.append(time.perf_counter() - begun)
        found[f"threads_{threads}"] = round(min(seconds), 3)
    print("speed of 24 frames 1024 x 576, s", found)
    return found


def overhead(run: str, count: int = 50) -> dict[str, float]:
    """What "dgs" adds to a step of the run's network: medians of alternating steps."""
    import torch

    from orbit4d.model import GuidanceWeights
    from orbit4d.model.guided.sampler import guided_sample
    from orbit4d.model.guided.schedules import DiffusersSchedule
    from orbit4d.model.sampling.branches import Branches
    from orbit4d.model.sampling.guided_orbit import OrbitRun

    torch.set_num_threads(1)
    model = OrbitRun.load(run)
    pipeline = model.pipeline
    first = np.random.default_rng(0).random((*model.size, 3)).astype(np.float32)
    asked = pipeline.conditions(first, cameras=pipeline.orbit())
    pipeline.scheduler.set_timesteps(50)
    schedule = DiffusersSchedule(pipeline.scheduler)
    denoiser = Branches(pipeline, asked, GuidanceWeights(0.0, 0.0, 0.0), None)
    warp = model.encode(np.repeat(first[None], model.frames, 0))
    seen = torch.ones(1, 1, *warp.shape[2:], dtype=torch.bool)
    x, seconds = torch.randn(warp.shape), {0.0: [], 0.5: []}

    class One:
        """A schedule of one step, from the middle."""

        sigmas, prediction = schedule.sigmas[25:27], schedule.prediction

        def __getattr__(self, name: str) -> Any:
            inner = getattr(schedule, name)
            if name == "to_ve" or name == "from_ve":
                return lambda x, i: inner(x, i + 25)
            return lambda output, i, x: inner(output, i + 25, x)

    class Shifted:
        def output(self, x: Any, i: int) -> Any:
            return denoiser.output(x, i + 25)

    for _ in range(count):
        for weight, times in seconds.items():
            begun = time.perf_counter()
            with torch.no_grad():
                guided_sample(Shifted(), One(), x, warp, seen, weight)
            times.append(time.perf_counter() - begun)
    plain, guided = (float(np.median(seconds[w])) for w in (0.0, 0.5))
    found = {"plain_ms": round(plain * 1e3, 3), "guided_ms": round(guided * 1e3, 3)}
    found["added"] = round(guided / plain - 1, 4)
    print("guidance", found)
    return found


# 9.4 end to end -------------------------------------------------------------------------------------------


def settings() -> dict[str, dict[str, str]]:
    """Rows of the table: options of a request."""
    rows = {"unguided": {"mode": "none"}}
    for mode in ("dgs", "posterior", "exact-likelihood", "worldforge", "repo-dgs", "repo-posterior"):
        rows[f"{mode}, infinite"] = {"mode": mode, "schedule": "infinite"}
    for mode in ("dgs", "exact-likelihood"):
        for name, how in {
            "constant 0.5": {"schedule": "constant:0.5"},
            "linear": {"schedule": "linear"},
            "closed, released v": {"schedule": "closed", "v": "0.001,1000,10"},
            "closed, searched": {"schedule": "closed", "v": "search"},
            "closed, v3 = 1": {"schedule": "closed", "v": "0.001,1000,1"},
        }.items():
            rows[f"{mode}, {name}"] = {"mode": mode, **how}
    return rows


def end_to_end(
    run: str, dataset: str, steps: int, seeds: int, assets: int, kept: Path, names: str = ""
) -> dict[str, Any]:
    """PSNR and SSIM to the rendered orbit, mean and standard error over clips and seeds, for every row.

    Each sample is a line of `kept` as it is made: a run that was cut resumes where it stopped. `names`
    keeps the rows whose name begins with one of them, separated by semicolons.
    """
    import torch

    from orbit4d.model.sampling.guided_orbit import OrbitRun

    torch.set_num_threads(1)
    model = OrbitRun.load(run)
    known = uids(dataset)
    chosen = [*[uid for uid in known if uid not in NEW][:assets], *[uid for uid in known if uid in NEW]]
    clips = {uid: static_clip(dataset, uid) for uid in chosen}
    done = samples(kept, run, steps)
    wanted = tuple(names.split(";")) if names else ("",)
    for name, how in settings().items():
        if not name.startswith(("unguided", *wanted)):
            continue
        for uid, clip in clips.items():
            for seed in range(seeds):
                if (name, uid, seed) not in done:
                    row = sampled(model, run, clip, steps, seed, how)
                    done[name, uid, seed] = row
                    keep(kept, {"run": run, "steps": steps, "name": name, "uid": uid, "seed": seed, **row})
        told(name, by_kind(done, name))
    for name, frames_of in (("warp alone on white", warp_alone), ("nearest given view", repeated)):
        for uid, clip in clips.items():
            given, truth = given_view(clip, model), on_background(clip, model)
            frames, seen = frames_of(given, clip, model)
            done[name, uid, 0] = against(frames, truth, seen)
        told(name, by_kind(done, name))
    rows = list(dict.fromkeys(name for name, _, _ in done))
    beats = {
        f"{name}: {kind}": gain(done, name, kind)
        for name in rows
        for kind in ("trained", "new", "all")
        if name != "unguided" and not name.startswith(("warp alone", "nearest"))
    }
    for name, found in beats.items():
        print(f"{name:44s} over unguided", found)
    table = {name: by_kind(done, name) for name in rows}
    return {"table": table, "beats": beats, "clips": chosen, "steps": steps, "prior": model.prior}


def samples(kept: Path, run: str, steps: int) -> Done:
    """What a cut run has measured: rows by (row, clip, seed)."""
    if not kept.exists():
        return {}
    lines = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines() if line[-1:] == "}"]
    return {
        (line["name"], line["uid"], line["seed"]): line
        for line in lines
        if (line["run"], line["steps"]) == (run, steps)
    }


def keep(kept: Path, line: dict[str, Any]) -> None:
    """Append a line, at once."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def sampled(model: Any, run: str, clip: Any, steps: int, seed: int, how: dict[str, str]) -> dict[str, Any]:
    """One video of one row, compared with the rendered orbit."""
    import contextlib
    import io

    from orbit4d.compose.completion.inputs import Given
    from orbit4d.compose.completion.novel_view import Request, make

    given, truth = given_view(clip, model), on_background(clip, model)
    request = Request((), run, path="orbit", steps=steps, seed=seed, **how)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = make(request, model, Given((given,), False))
    return against(made.frames.astype(np.float32) / 255, truth, made.sight.seen)


def given_view(clip: Any, model: Any) -> Any:
    """View 0 of a clip with its depth."""
    from orbit4d.compose.completion.view import view_of

    depth = clip.pass_arrays("depth")[0].reshape(clip.pixels().shape[1:3]).astype(np.float32)
    return replace(view_of(clip.pixels()[0], "view 0"), camera=clip.cameras[0], depth=depth)


def on_background(clip: Any, model: Any) -> Any:
    """Frames [F, H, W, 3] of a clip on the model's background."""
    from orbit4d.model.data.clip_source import frames_on

    return frames_on(clip.pixels(), model.background, model.size[0])


def _sight(given: Any, clip: Any, model: Any) -> Any:
    from orbit4d.compose.completion.inputs import Given
    from orbit4d.compose.completion.routes import Asked, route
    from orbit4d.compose.completion.seen import sight

    way = route(Asked("orbit", model.frames, model.size), Given((given,), False))
    return sight(Given((given,), False), way, False, model.scale, 1, model.background)


def warp_alone(given: Any, clip: Any, model: Any) -> tuple[Any, Any]:
    """The warp, white where nothing is seen."""
    found = _sight(given, clip, model)
    return found.warped, found.seen


def repeated(given: Any, clip: Any, model: Any) -> tuple[Any, Any]:
    """View 0 in every frame."""
    found = _sight(given, clip, model)
    return np.repeat(found.frames[:1], model.frames, 0), found.seen


def told(name: str, row: dict[str, Any]) -> None:
    """One row on the terminal."""
    cells = [
        f"{kind}: {v['psnr'][0]:.2f} ± {v['psnr'][1]:.2f} dB, unseen {v['unseen'][0]:.2f}, {v['ssim'][0]:.3f}"
        for kind, v in row.items()
    ]
    print(f"{name:34s}", " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
