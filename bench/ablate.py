"""The weight of the motion loss, and guidance, on the tiny preset.

    make bench-ablate                    after make bench-learn, from the static network trained there
    python bench/ablate.py DATA --work DIR --weights 0,1,5,30 --steps 600

From one static network, a dynamic stage for each ω of L_mr (0 turns it off); each is measured without
guidance, with the 3D-aware guidance of the paper (w2, away from the frozen static network), and with motion
guidance (away from itself conditioned on m = 0). One row each: Spearman of asked and measured motion, lowest
over highest, measured over asked (geometric mean over five levels), change of frame 0, cosine with the true
motion, PSNR of the dynamic orbit. The last line is one line of JSON.
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
from learn import ROOT, WHERE, rendered_pool, sample_as, train_here
from parts.learn_measures import Report, load_clips, measure_motion

GUIDANCE = {
    "none": {"w1": 0.0, "w2": 0.0, "w_motion": 0.0},
    "w2 0.5": {"w1": 0.0, "w2": 0.5, "w_motion": 0.0},
    "w_motion 1": {"w1": 0.0, "w2": 0.0, "w_motion": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", help="default: the pool as bench-learn renders it")
    parser.add_argument("--work", default=str(ROOT / "bench" / "out" / "learn"), help="where bench-learn ran")
    parser.add_argument("--where", default=WHERE)
    parser.add_argument("--weights", default="0,0.1,5,30", help="values of ω")
    parser.add_argument("--steps", type=int, default=1000, help="of each dynamic stage")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", help="write the result into this file")
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = Path(args.work)
    dataset = args.dataset or rendered_pool(folder / "data")
    base = folder / "main" / "base"
    if not base.is_dir():
        sys.exit(f"error: no static network in {base}: run make bench-learn first")
    if args.train is not None:
        train_here(run_of(folder, args.train), configuration(args, base, args.train), dataset)
        return

    from orbit4d.model.sampling.pipeline import OrbitPipeline

    report = Report("ablate", time.monotonic())
    weights = [float(value) for value in args.weights.split(",")]
    train_all(folder, weights)
    report.say(f"{'ω':>6} {'guidance':12} Spearman  low/high  measured/asked  frame 0   cosine  PSNR")
    for weight in weights:
        config = configuration(args, base, weight)
        clips = load_clips(dataset, config, "train", args.clips, config.data.where)
        pipeline = OrbitPipeline.of_folder(run_of(folder, weight))
        sample_as(pipeline, config)
        for name, guidance in GUIDANCE.items():
            found = measure_motion(pipeline, clips, False, **guidance)
            ratio = float(np.exp(np.mean(np.log(np.maximum(found["measured_over_asked"], 1e-9)))))
            report.result[f"{weight:g}, {name}"] = found
            report.say(
                f"{weight:6g} {name:12} {found['spearman']:8.3f} {found['lowest_over_highest']:9.3f} "
                f"{ratio:15.2f} {found['first_frame_mse']:9.5f} {found['cosine_with_true_motion']:7.3f} "
                f"{found['dynamic_psnr']:5.2f}"
            )
    report.finish(args.out, steps=args.steps, where=args.where)


def train_all(folder: Path, weights: list[float]) -> None:
    """Two at a time, a process of one thread each; what is trained already is not trained again."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def train(weight: float) -> None:
        if not (run_of(folder, weight) / "model").exists():
            command = [sys.executable, *sys.argv, "--train", str(weight)]
            with (folder / f"{run_of(folder, weight).name}.log").open("a", encoding="utf-8") as log:
                subprocess.run(command, stdout=log, stderr=log, check=True, env=environment)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, weights))


def run_of(folder: Path, weight: float) -> Path:
    """Where the run of one ω is kept."""
    return folder / f"omega-{weight:g}"


def configuration(args: argparse.Namespace, base: Path, weight: float):
    """A dynamic stage alone, from the static network, which stays as the third branch of guidance."""
    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import override

    tiny = override(preset("tiny"), [f"data.where={args.where}", *args.sets])
    return replace(
        tiny,
        stages=(replace(tiny.stages[1], steps=args.steps),),
        model=replace(tiny.model, init=str(base)),
        loss=replace(tiny.loss, motion_weight=weight),
        sample=replace(tiny.sample, w2=0.5),
    )


if __name__ == "__main__":
    main()
