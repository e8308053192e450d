"""What the tiny preset learns: cameras, orbits from one view, and how much motion was asked for.

    make bench-learn               renders the pool's fish once (cached), trains, measures: 25 minutes
    python bench/learn.py DATA     the same on a dataset of your own
    python bench/learn.py DATA --measure-only      what is trained already (bench/out/learn)

Three claims, each with what could refute it:

camera   Orbits generated with the cameras reversed match the reversed static orbit better than the unreversed
         one, by 2 dB; and the loss beats that of the same network without cameras, which knows the frame's
         index as this one does.
orbit    Orbits of training assets from their first view, by the static network, beat repeating the input by
         3 dB; beside it the training clip whose first view is nearest, the mean orbit, and the dynamic
         network conditioned on m = 0; assets never seen are reported.
motion   Five levels of m, 16 clips each: the motion of a generated orbit against the same clip's orbit
         generated with m = 0 from the same noise. Spearman over all pairs at least 0.9, lowest under a
         quarter of the highest, amplitude within a factor of 2 of what was asked for, frame 0 as it was; a
         model trained with shuffled m must fail the same test.

Training happens in two processes of one thread each: the model, and beside it the controls. What is trained
already is not trained again. The last line is one line of JSON; --out writes it with the tables into a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from parts.learn_measures import (
    Report,
    load_clips,
    measure_camera,
    measure_motion,
    measure_orbit,
    motion_verdict,
)

ROOT = Path(__file__).resolve().parents[1]
#: Eleven assets of one kind, six actions each.
WHERE = "uid > 'cute' and uid < 'cute_fish_pack_cowfish'"
#: At 30 degrees an asset fills the image: 32 pixels are few. Four of the five orbits start at the front and
#: play different shares of the window, so that a first view does not tell how much moves.
RENDER = (
    "--preset draft --frames 8 --resolution 32 --samples 16 --fov 30 --rigs static_orbit,dynamic_orbit "
    "--orbits 5 --azimuths 0,150,0,0,0 --window-shares 1,1,0.3,0.12,0.05 --order given"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", help="default: ../shared/pool, rendered into --work/data")
    parser.add_argument("--work", default=str(ROOT / "bench" / "out" / "learn"), help="where runs are kept")
    parser.add_argument("--where", default=WHERE, help="clips that are trained on")
    parser.add_argument("--steps", type=int, default=3000, help="of the model, over both stages")
    parser.add_argument(
        "--control-steps", type=int, help="at most so many for each control; default: as many"
    )
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--measure-only", action="store_true")
    parser.add_argument("--out", help="write the result into this file")
    parser.add_argument("--train", choices=("main", "no-cameras", "shuffled-motion"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = Path(args.work)
    dataset = args.dataset or rendered_pool(folder / "data")
    configs = configurations(args, folder)
    if args.train:
        train_here(folder / args.train, configs[args.train], dataset)
        return

    begin = time.monotonic()
    if not args.measure_only:
        train_all(args, folder, dataset)
    report = Report("learn", begin)
    measure(report, folder, dataset, configs["main"], args.clips)
    report.finish(args.out, steps=args.steps, control_steps=args.control_steps, where=args.where)


def rendered_pool(data: Path) -> str:
    """The fish of the pool beside the checkout as clips of 8 x 32 x 32; resumes where it stopped."""
    pool = ROOT.parent / "shared" / "pool"
    fish = sorted(map(str, pool.glob("cute_fish_pack_*.glb")))
    if not (data / "dataset.json").exists() or not (data.parent / "rendered").exists():
        if not fish:
            sys.exit(f"error: no assets in {pool}: give a dataset")
        command = ["-P", "-m", "orbit4d.app", "render", *fish, "--out", str(data), *RENDER.split()]
        subprocess.run([sys.executable, *command], check=True)
        (data.parent / "rendered").touch()
    return str(data)


def configurations(args: argparse.Namespace, folder: Path) -> dict:
    """The model, and the two controls: no cameras in its static stage, false motion in its dynamic one."""
    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import override

    base = override(preset("tiny"), [f"steps={args.steps}", f"data.where={args.where}", *args.sets])
    static, dynamic = base.stages
    if args.control_steps:
        static = replace(static, steps=min(static.steps, args.control_steps))
        dynamic = replace(dynamic, steps=min(dynamic.steps, args.control_steps))
    return {
        "main": base,
        "no-cameras": replace(base, stages=(static,), data=replace(base.data, cameras=False)),
        "shuffled-motion": replace(
            base,
            stages=(dynamic,),
            model=replace(base.model, init=str(folder / "main" / "base")),
            loss=replace(base.loss, shuffle_motion=True),
        ),
    }


def train_here(run: Path, config, dataset: str) -> None:
    """One training in this process; it resumes where it stopped."""
    import torch

    from orbit4d.model.training.train import train

    torch.set_num_threads(1)
    while config.model.init and not Path(config.model.init).is_dir():
        time.sleep(1)  # the static stage it starts from is still being trained beside us
    if not (run / "model").exists():
        train(config, dataset, run, resume=(run / "config.json").exists())


def train_all(args: argparse.Namespace, folder: Path, dataset: str) -> None:
    """The model in one process; in another the controls, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)

    def train(names: tuple[str, ...]) -> None:
        for name in names:
            command = [sys.executable, __file__, dataset, "--train", name, "--work", str(folder)]
            command += ["--steps", str(args.steps), "--where", args.where]
            command += ["--control-steps", str(args.control_steps)] if args.control_steps else []
            command += [part for value in args.sets for part in ("--set", value)]
            with (folder / f"{name}.log").open("a", encoding="utf-8") as log:
                done = subprocess.run(
                    command,
                    stdout=log,
                    stderr=log,
                    check=False,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                )
            if done.returncode:
                os._exit(fail(name, folder))

    print(f"training in {folder}; see the .log files there", flush=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, [("main",), ("no-cameras", "shuffled-motion")]))


def fail(name: str, folder: Path) -> int:
    """Say which training failed; the exit code."""
    print(f"error: training {name} failed: see {folder / name}.log", file=sys.stderr, flush=True)
    return 1


def measure(report: Report, folder: Path, dataset: str, config, count: int) -> None:
    """All tables of what is trained."""
    from orbit4d.model.run.log import read
    from orbit4d.model.sampling.pipeline import OrbitPipeline

    seen = load_clips(dataset, config, "train", count, config.data.where)
    unseen = load_clips(dataset, config, "test", count, "")
    pipeline = OrbitPipeline.of_folder(folder / "main")
    sample_as(pipeline, config)
    weight = config.sample.w_motion

    static = static_network(folder / "main")
    sample_as(static, config)
    orbit = measure_orbit(static, seen, seen, own=True)
    report.table("orbit of the static network, training assets", orbit)
    report.verdict("orbit 3 dB over repeating the input", orbit["over_repeat_db"] >= 3)
    if len(unseen.static):
        found = measure_orbit(static, unseen, seen, own=False)
        report.table("orbit of the static network, unseen assets", found)
    report.table(
        "orbit of the dynamic network conditioned on m = 0", measure_orbit(pipeline, seen, seen, own=True)
    )
    camera = measure_camera(static, seen)
    report.table("camera, static network", camera)
    report.table("camera, dynamic network conditioned on m = 0", measure_camera(pipeline, seen))
    report.verdict("reversed cameras give the reversed orbit, 2 dB", camera["margin_db"] >= 2)
    if (folder / "no-cameras" / "log.jsonl").exists():
        rows = {name: read(folder / name / "log.jsonl") for name in ("main", "no-cameras")}
        steps = min(len(stage_losses(found)) for found in rows.values())
        losses = {
            name: float(np.mean(stage_losses(found)[steps * 4 // 5 : steps])) for name, found in rows.items()
        }
        report.table(
            f"control: no cameras, loss of the static stage up to step {steps}",
            {"with_cameras": losses["main"], "without_cameras": losses["no-cameras"]},
        )
        report.verdict("cameras lower the loss", losses["main"] < losses["no-cameras"])
    for title, whole in (("motion from a first view", False), ("motion of a static orbit", True)):
        found = measure_motion(pipeline, seen, whole, w_motion=weight)
        report.table(f"{title}, motion guidance {weight}", found)
        for claim, met in motion_verdict(found).items():
            report.verdict(f"{title}: {claim}", met)
    report.table("motion from a first view, no guidance", measure_motion(pipeline, seen, False, w_motion=0.0))
    if (folder / "shuffled-motion" / "model").exists():
        control = OrbitPipeline.of_folder(folder / "shuffled-motion")
        sample_as(control, config)
        found = measure_motion(control, seen, False, w_motion=weight)
        report.table("control: shuffled motion", found)
        report.verdict("shuffled motion fails", not all(motion_verdict(found).values()))


def static_network(run: Path):
    """The network that ended the static stage, our stand-in for VideoMV, as a pipeline of its own."""
    from orbit4d.model.network.unet import OrbitUNet
    from orbit4d.model.sampling.pipeline import OrbitPipeline

    unet = OrbitUNet.from_pretrained(run / "base").eval()
    return OrbitPipeline.from_pretrained(run / "model", unet=unet, base_unet=None)


def sample_as(pipeline, config) -> None:
    """Steps and spacing as the preset has them now, whatever they were when the run was trained."""
    from orbit4d.model.diffusion.schedule import make_scheduler

    kind, settings = config.model, config.sample
    pipeline.scheduler = make_scheduler(kind.schedule, kind.prediction, settings.spacing)
    pipeline.register_to_config(sample_steps=settings.steps)


def stage_losses(rows: list[dict]) -> list[float]:
    """Training loss of each step of the static stage; the same samples in the same order in every run."""
    return [row["loss_diffusion"] for row in rows if row.get("stage") == "static"]


if __name__ == "__main__":
    main()
