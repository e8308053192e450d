"""What the tiny preset learns: cameras, orbits from one view, and how much motion was asked for.

    orbit4d render POOL --out data --frames 24 --resolution 64 --rigs static_orbit,dynamic_orbit --orbits 2
    python bench/learn.py data                    trains the model and its controls, then measures (45
    minutes) python bench/learn.py data --run RUN          measures a run that is there
    python bench/learn.py data --ablate           L_mr on and off, x0 against v, 3D-aware guidance on and off

Three claims, each with what could refute it:

camera   Orbits generated with the cameras reversed match the reversed static orbit better than the
unreversed one, by
         PSNR; and the validation loss beats that of the same network without cameras but with a frame index.
orbit    Orbits of training assets from their first view (m = 0) against repeating the input, the training
clip whose
         first view is nearest, and the mean orbit; assets that were never seen are reported beside it.
motion   Five levels of m, several clips each: the motion of a generated orbit against the same clip's orbit
         generated with m = 0, same noise. Spearman over all pairs, lowest over highest, measured over
         requested, and the change of frame 0; a model trained with shuffled m must fail the same test.

The last line is one line of JSON; --out writes it with the table into a file, with command, machine and
commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Clips:
    """Clips of one split at the model's size: pixels [n, F, H, W, 3] in [0, 1] and cameras."""

    dynamic: np.ndarray
    static: np.ndarray
    cameras: list


def load_clips(dataset: str, config, split: str, limit: int) -> Clips:
    """Up to `limit` clips that start at the front, one per asset as far as they go."""
    from orbit4d.datasets import Camera, OrbitDataset
    from orbit4d.model.data import even_frames

    data = OrbitDataset(dataset, split=split, size=config.data.resolution, require=("dynamic", "static"))
    order = sorted(range(len(data)), key=lambda i: data.uids[:i].count(data.uids[i]))
    dynamic, static, cameras = [], [], []
    for i in order:
        if len(dynamic) == limit:
            break
        item = data[i]
        if item["orbit"] != 0:
            continue
        chosen = torch.from_numpy(even_frames(len(item["dynamic"]), config.data.frames))
        dynamic.append(item["dynamic"][chosen].permute(0, 2, 3, 1).numpy())
        static.append(item["static"][chosen].permute(0, 2, 3, 1).numpy())
        size = config.data.resolution
        K = item["K"][0]
        cameras.append(
            [
                Camera(
                    c2w.double().numpy(),
                    float(K[0, 0]),
                    float(K[1, 1]),
                    float(K[0, 2]),
                    float(K[1, 2]),
                    size,
                    size,
                )
                for c2w in item["c2w"][chosen]
            ]
        )
    empty = np.zeros((0, config.data.frames, config.data.resolution, config.data.resolution, 3), np.float32)
    return Clips(np.stack(dynamic) if dynamic else empty, np.stack(static) if static else empty, cameras)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays in [0, 1]."""
    return float(-10 * np.log10(max(np.mean((a - b) ** 2), 1e-10)))


def sample(
    pipeline, clips: Clips, i: int, motion, seed: int, cameras=None, static=False, **weights
) -> np.ndarray:
    """One orbit [F, H, W, 3] of clip i."""
    condition = {"static": clips.static[i]} if static else {"image": clips.static[i][0]}
    return pipeline(
        **condition,
        motion=motion,
        cameras=cameras or clips.cameras[i],
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **weights,
    ).frames[0]


def measure_camera(pipeline, clips: Clips) -> dict[str, float]:
    """PSNR against the reversed and the unreversed static orbit of orbits generated with reversed cameras."""
    right, wrong = [], []
    for i in range(len(clips.static)):
        back = [0, *range(len(clips.cameras[i]) - 1, 0, -1)]
        frames = sample(pipeline, clips, i, 0.0, i, [clips.cameras[i][k] for k in back], w_motion=0.0)
        right.append(psnr(frames, clips.static[i][back]))
        wrong.append(psnr(frames, clips.static[i]))
    return {
        "reversed_psnr": float(np.mean(right)),
        "unreversed_psnr": float(np.mean(wrong)),
        "margin_db": float(np.mean(right) - np.mean(wrong)),
    }


def measure_orbit(pipeline, clips: Clips, train: Clips, own: bool) -> dict[str, float]:
    """PSNR of orbits from one view, and of what costs nothing."""
    scores: dict[str, list[float]] = {"model": [], "repeat": [], "nearest": [], "mean_orbit": []}
    mean = train.static.mean(0)
    for i, truth in enumerate(clips.static):
        distance = ((train.static[:, 0] - truth[0]) ** 2).mean((1, 2, 3))
        if own:
            distance[i] = np.inf
        scores["model"].append(psnr(sample(pipeline, clips, i, 0.0, i, w_motion=0.0), truth))
        scores["repeat"].append(psnr(np.repeat(truth[:1], len(truth), 0), truth))
        scores["nearest"].append(psnr(train.static[int(np.argmin(distance))], truth))
        scores["mean_orbit"].append(psnr(mean, truth))
    found = {f"{name}_psnr": float(np.mean(values)) for name, values in scores.items() if values}
    return found | {"over_repeat_db": found.get("model_psnr", np.nan) - found.get("repeat_psnr", np.nan)}


def measure_motion(pipeline, clips: Clips, static: bool, **weights) -> dict[str, float]:
    """How the motion that was asked for comes out, held against the same clip generated with m = 0."""
    from scipy.stats import spearmanr

    asked, got, first = [], [], []
    for i in range(len(clips.static)):
        still = sample(pipeline, clips, i, 0.0, i, static=static, **weights)
        for level in LEVELS:
            m = pipeline.motion_statistics.quantile(level)
            moved = sample(pipeline, clips, i, m, i, static=static, **weights)
            asked.append(m)
            got.append(float(((moved - still) ** 2).mean()))
            first.append(float(((moved[0] - still[0]) ** 2).mean()))
    asked_, got_ = np.array(asked).reshape(-1, len(LEVELS)), np.array(got).reshape(-1, len(LEVELS))
    truth = ((clips.dynamic - clips.static) ** 2).mean((1, 2, 3, 4))
    per_level = got_.mean(0)
    return {
        "spearman": float(spearmanr(asked, got).statistic),
        "lowest_over_highest": float(per_level[0] / max(per_level[-1], 1e-12)),
        "amplitude_ratio": float(np.exp(np.mean(np.log((got_ + 1e-7) / (asked_ + 1e-7))))),
        "first_frame_mse": float(np.mean(first)),
        "asked": [float(v) for v in asked_.mean(0)],
        "measured": [float(v) for v in per_level],
        "true_m_mean": float(truth.mean()),
    }


def trained(name: str, config, dataset: str, folder: Path):
    """RUN of one configuration; trained unless it is there."""
    from orbit4d.model.run_log import read
    from orbit4d.model.train import train

    run = folder / name
    if not (run / "model").exists():
        print(f"training {name}: {config.total_steps} steps", flush=True)
        train(config, dataset, run, resume=(run / "config.json").exists())
    rows = read(run / "log.jsonl")
    held = [row["val_loss"] for row in rows if "val_loss" in row]
    last = [row["loss_diffusion"] for row in rows[-max(1, len(rows) // 10) :]]
    return run, {"train_loss": float(np.mean(last)), "val_loss": held[-1] if held else float("nan")}


def commit() -> str:
    """Of the working tree, for the record."""
    result = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("dataset")
    parser.add_argument("--run", help="measure this run instead of training one")
    parser.add_argument(
        "--work", default="bench-learn", help="where runs are kept; a second call goes on there"
    )
    parser.add_argument("--steps", type=int, default=2400, help="of the main model, over both stages")
    parser.add_argument(
        "--control-steps", type=int, default=800, help="of each control, and of its counterpart"
    )
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--out", help="write the result into this file")
    args = parser.parse_args()

    from orbit4d.model.config import override
    from orbit4d.model.pipeline import OrbitPipeline
    from orbit4d.model.presets import preset

    begin, folder = time.monotonic(), Path(args.work)
    folder.mkdir(parents=True, exist_ok=True)
    base = override(preset("tiny"), [f"steps={args.steps}", *args.sets])
    short = override(preset("tiny"), [f"steps={args.control_steps}", *args.sets])
    result: dict[str, object] = {"bench": "ablate" if args.ablate else "learn", "dataset": args.dataset}
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    def show(title: str, values: dict[str, object]) -> None:
        result[title] = values
        say(f"\n{title}")
        for key, value in values.items():
            text = " ".join(f"{v:.5f}" for v in value) if isinstance(value, list) else f"{value:.4f}"
            say(f"  {key:24} {text}")

    train_clips = load_clips(args.dataset, base, "train", args.clips)
    unseen = load_clips(args.dataset, base, "test", args.clips)
    if args.ablate:
        ways = {
            "x0, L_mr": {},
            "x0, no L_mr": {"loss": replace(short.loss, motion_weight=0.0)},
            "x0, ten times L_mr": {"loss": replace(short.loss, motion_weight=10 * short.loss.motion_weight)},
            "v, L_mr": {"model": replace(short.model, prediction="v_prediction")},
        }
        for name, change in ways.items():
            stem = "ablate-" + name.replace(", ", "-").replace(" ", "_")
            run, losses = trained(stem, replace(short, **change),
                                  args.dataset, folder)  # fmt: skip
            pipeline = OrbitPipeline.of_folder(run)
            pipeline.set_progress_bar_config(disable=True)
            for title, weights in (
                ("no guidance", {"w1": 0.0, "w2": 0.0, "w_motion": 0.0}),
                ("motion guidance", {"w1": 0.0, "w2": 0.0, "w_motion": 2.0}),
                ("3D-aware guidance", {"w1": 0.0, "w2": 0.5, "w_motion": 2.0}),
            ):
                show(f"{name}, {title}", losses | measure_motion(pipeline, train_clips, False, **weights))
            show(f"{name}, orbit", measure_orbit(pipeline, train_clips, train_clips, own=True))
    else:
        run, losses = (Path(args.run), {}) if args.run else trained("main", base, args.dataset, folder)
        pipeline = OrbitPipeline.of_folder(run)
        show("orbit, training assets", losses | measure_orbit(pipeline, train_clips, train_clips, own=True))
        if len(unseen.static):
            show("orbit, unseen assets", measure_orbit(pipeline, unseen, train_clips, own=False))
        show("camera", measure_camera(pipeline, train_clips))
        show("motion from a first view", measure_motion(pipeline, train_clips, False))
        if pipeline.takes_static:
            show("motion of a static orbit", measure_motion(pipeline, train_clips, True))
        if not args.run:
            told = trained("short", short, args.dataset, folder)[1]
            unet = {**short.model.unet, "frame_index_embedding": True}
            blind = replace(
                short, data=replace(short.data, cameras=False), model=replace(short.model, unet=unet)
            )
            hidden = trained("no-cameras", blind, args.dataset, folder)[1]
            show("control: cameras or a frame index", {
                "with_cameras_val_loss": told["val_loss"], "with_cameras_train_loss": told["train_loss"],
                "frame_index_val_loss": hidden["val_loss"], "frame_index_train_loss": hidden["train_loss"],
            })  # fmt: skip
            shuffled = replace(short, loss=replace(short.loss, shuffle_motion=True))
            run, _ = trained("shuffled-motion", shuffled, args.dataset, folder)
            show("control: shuffled motion", measure_motion(OrbitPipeline.of_folder(run), train_clips, False))

    result |= {
        "minutes": (time.monotonic() - begin) / 60, "steps": args.steps, "control_steps": args.control_steps,
        "clips": len(train_clips.static), "commit": commit(), "cpus": os.cpu_count(),
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    if args.out:
        command = "python " + " ".join(sys.argv)
        text = f"# {result['bench']}\n\n`{command}` at {result['commit']}, {result['cpus']} cores\n\n```\n"
        Path(args.out).write_text(text + "\n".join(lines).strip() + "\n```\n\n" + json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
