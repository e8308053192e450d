"""What bench/learn.py and bench/ablate.py measure on a trained pipeline, and how they write it down."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.images.measures import decibels

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Clips:
    """Clips of one split at the model's size: pixels [n, F, H, W, 3] in [0, 1] and cameras."""

    dynamic: np.ndarray
    static: np.ndarray
    cameras: list


def load_clips(dataset: str, config, split: str, limit: int, where: str) -> Clips:
    """Up to `limit` clips that start at the front, one per asset as far as they go."""
    from orbit4d.datasets import Camera, OrbitDataset
    from orbit4d.model.data.training_clips import even_frames

    size = config.data.resolution
    data = OrbitDataset(dataset, where=where or None, split=split, size=size, require=("dynamic", "static"))
    nth = [data.uids[:i].count(uid) for i, uid in enumerate(data.uids)]
    dynamic, static, cameras = [], [], []
    for i in sorted(range(len(data)), key=lambda i: (nth[i], i)):
        if len(dynamic) == limit:
            break
        item = data[i]
        if item["orbit"] != 0:
            continue
        chosen = torch.from_numpy(even_frames(len(item["dynamic"]), config.data.frames))
        dynamic.append(item["dynamic"][chosen].permute(0, 2, 3, 1).numpy())
        static.append(item["static"][chosen].permute(0, 2, 3, 1).numpy())
        fx, fy, cx, cy = (float(item["K"][0][i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        poses = item["c2w"][chosen].double().numpy()
        cameras.append([Camera(pose, fx, fy, cx, cy, size, size) for pose in poses])
    empty = np.zeros((0, config.data.frames, size, size, 3), np.float32)
    return Clips(np.stack(dynamic) if dynamic else empty, np.stack(static) if static else empty, cameras)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays in [0, 1]."""
    return decibels(float(np.mean((a - b) ** 2)))


def sample(
    pipeline, clips: Clips, i: int, motions: list[float], cameras=None, static=False, **weights
) -> np.ndarray:
    """Orbits [n, F, H, W, 3] of clip i, one for each m, all from the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    condition = {"static": clips.static[i]} if static else {"image": clips.static[i][0]}
    factor = pipeline.parts.autoencoder.factor
    edge = pipeline.config.resolution // factor
    shape = (1, pipeline.parts.latent_channels, len(clips.static[i]), edge, edge)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(i))
    return pipeline(
        **condition,
        motion=motions,
        cameras=cameras or clips.cameras[i],
        latents=noise.expand(len(motions), -1, -1, -1, -1),
        output_type="np",
        **weights,
    ).frames


def measure_camera(pipeline, clips: Clips) -> dict[str, float]:
    """PSNR against the reversed and the unreversed static orbit of orbits generated with reversed cameras."""
    right, wrong = [], []
    for i in range(len(clips.static)):
        back = [0, *range(len(clips.cameras[i]) - 1, 0, -1)]
        frames = sample(pipeline, clips, i, [0.0], [clips.cameras[i][k] for k in back], w_motion=0.0)[0]
        right.append(psnr(frames, clips.static[i][back]))
        wrong.append(psnr(frames, clips.static[i]))
    return {
        "reversed_psnr": float(np.mean(right)),
        "unreversed_psnr": float(np.mean(wrong)),
        "margin_db": float(np.mean(right) - np.mean(wrong)),
    }


def measure_orbit(pipeline, clips: Clips, train: Clips, own: bool) -> dict[str, float]:
    """PSNR of orbits from one view, and of what costs nothing; `own`: `clips` are those of `train`."""
    scores: dict[str, list[float]] = {"model": [], "repeat": [], "nearest": [], "mean_orbit": []}
    for i, truth in enumerate(clips.static):
        distance = ((train.static[:, 0] - truth[0]) ** 2).mean((1, 2, 3))
        others = np.arange(len(train.static)) != (i if own else -1)
        distance = np.where(others, distance, np.inf)
        scores["model"].append(psnr(sample(pipeline, clips, i, [0.0], w_motion=0.0)[0], truth))
        scores["repeat"].append(psnr(np.repeat(truth[:1], len(truth), 0), truth))
        scores["nearest"].append(psnr(train.static[int(np.argmin(distance))], truth))
        scores["mean_orbit"].append(psnr(train.static[others].mean(0), truth))
    found = {f"{name}_psnr": float(np.mean(values)) for name, values in scores.items()}
    return found | {"over_repeat_db": found["model_psnr"] - found["repeat_psnr"], "clips": len(clips.static)}


def measure_motion(pipeline, clips: Clips, static: bool, **weights) -> dict[str, Any]:
    """How the motion that was asked for comes out, compared with the same clip generated with m = 0.

    And, with the clip's own m asked for, against ground truth: the cosine of generated and true motion, and
    the PSNR of the dynamic orbit beside that of the true static orbit.
    """
    from scipy.stats import spearmanr

    levels = [pipeline.motion_statistics.quantile(level) for level in LEVELS]
    got, first, cosine, dynamic, still_psnr = [], [], [], [], []
    for i, (moving, still) in enumerate(zip(clips.dynamic, clips.static)):
        true = float(((moving - still) ** 2).mean())
        base, *moved, own = sample(pipeline, clips, i, [0.0, *levels, true], static=static, **weights)
        got.append([float(((frames - base) ** 2).mean()) for frames in moved])
        first.append(max(float(((frames[0] - base[0]) ** 2).mean()) for frames in moved))
        a, b = (own - base).ravel(), (moving - still).ravel()
        cosine.append(float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9)))
        dynamic.append(psnr(own, moving))
        still_psnr.append(psnr(still, moving))
    measured = np.array(got)
    asked = np.broadcast_to(levels, measured.shape)
    ratios = measured.mean(0) / np.array(levels)
    return {
        "spearman": float(spearmanr(asked.ravel(), measured.ravel()).statistic),
        "lowest_over_highest": float(measured[:, 0].mean() / max(measured[:, -1].mean(), 1e-12)),
        "asked": levels,
        "measured": [float(v) for v in measured.mean(0)],
        "measured_over_asked": [float(v) for v in ratios],
        "first_frame_mse": float(np.mean(first)),
        "cosine_with_true_motion": float(np.mean(cosine)),
        "dynamic_psnr": float(np.mean(dynamic)),
        "static_orbit_as_dynamic_psnr": float(np.mean(still_psnr)),
    }


def motion_verdict(found: dict[str, Any]) -> dict[str, bool]:
    """The four claims about motion."""
    ratios = found["measured_over_asked"]
    mean = float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-9)))))
    return {
        "Spearman 0.9": found["spearman"] >= 0.9,
        "lowest under a quarter of the highest": found["lowest_over_highest"] < 0.25,
        f"amplitude within a factor of 2 (mean {mean:.2f})": 0.5 <= mean <= 2.0,
        # A tenth of the least motion asked for.
        "frame 0 unchanged": found["first_frame_mse"] < 0.1 * found["asked"][0],
    }


class Report:
    """Tables as they come, and one line of JSON at the end."""

    def __init__(self, name: str, begin: float) -> None:
        self.result: dict[str, Any] = {"bench": name}
        self.begin, self.lines, self.verdicts = begin, [], {}

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def table(self, title: str, values: dict[str, Any]) -> None:
        self.result[title] = values
        self.say(f"\n{title}")
        for key, value in values.items():
            text = " ".join(f"{v:.4f}" for v in value) if isinstance(value, list) else f"{value:.4f}"
            self.say(f"  {key:28} {text}")

    def verdict(self, claim: str, met: bool) -> None:
        self.verdicts[claim] = bool(met)
        self.say(f"  -> {'met' if met else 'MISSED'}: {claim}")

    def finish(self, out: str | None, **settings: Any) -> None:
        """Print the JSON line; with `out`, write all of it there."""
        self.result |= settings | {
            "verdicts": self.verdicts,
            "minutes": (time.monotonic() - self.begin) / 60,
            "commit": commit(),
            "cpus": usable_cores(),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        if out:
            command = "python " + " ".join(sys.argv)
            head = f"`{command}` at {self.result['commit']}, {self.result['cpus']} cores\n\n```\n"
            text = "\n".join(self.lines).strip()
            Path(out).write_text(f"{head}{text}\n```\n\n{json.dumps(self.result)}\n", encoding="utf-8")
        print(json.dumps(self.result))


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
