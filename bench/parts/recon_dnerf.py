"""A D-NeRF-like set of our own assets: `bench/recon.py --dnerf [--dnerf-set FOLDER]`.

One moving camera, 120 frames evenly over the action: 100 are trained on, every sixth is tested, so that test
times lie between training times, the first and the last time are trained on, and no test view is trained on.
`hemisphere` puts the camera elsewhere on the upper half of the sphere at every time, as the published sets
do; `spiral` moves it steadily, three turns while it rises from 5 to 50 degrees. The folders are in D-NeRF's
layout (`transforms_{train,val,test}.json`, RGBA PNGs) and are fitted as `orbit4d recon4d FOLDER` fits them,
on the layout's own split.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets import Camera, Index, read_clip
from orbit4d.datasets.cameras.moves import look_at_origin
from orbit4d.datasets.images.codec import encode_png
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.fitting.settings import LossWeights, ReconstructionSettings

FRAMES, EVERY = 120, 6
RADIUS, FOV_X = 2.0, 39.5978


@dataclass(frozen=True)
class KeyframeWeights(LossWeights):
    """With the one penalty of a keyframes field that the presets do not know."""

    time_tv: float = 1.0


def moved_by(settings: ReconstructionSettings, kind: str) -> ReconstructionSettings:
    """The settings with another field. A table of keys has no network between it and Adam, whose steps are
    then lengths: a rate of 1e-3, of an object that is 1 long.
    """
    if kind == settings.deformation["kind"]:
        return settings
    if kind != "keyframes":
        return replace(settings, deformation={"kind": kind})
    config = {"kind": "keyframes", "n_keys": 33, "n_nodes": 200, "heads": ["means", "quats"]}
    rates, weights = replace(settings.rates, field=1e-3), KeyframeWeights(**asdict(settings.weights))
    return replace(settings, deformation=config, rates=rates, weights=weights)


def positions(path: str, seed: int = 0) -> np.ndarray:
    """[FRAMES, 3] where the camera stands."""
    if path == "spiral":
        share = np.linspace(0.0, 1.0, FRAMES)
        azimuth, elevation = 6 * np.pi * share, np.radians(5 + 45 * share)
    else:
        random = np.random.default_rng(seed)
        azimuth = random.uniform(0, 2 * np.pi, FRAMES)
        elevation = np.arcsin(random.uniform(0, np.sin(np.radians(75)), FRAMES))
    flat = np.cos(elevation)
    way = np.stack([flat * np.sin(azimuth), -flat * np.cos(azimuth), np.sin(elevation)], -1)
    return RADIUS * way


def rendered(assets: Sequence[Path], path: str, folder: Path, resolution: int) -> list[Path]:
    """A folder in D-NeRF's layout per asset, of its first action; those that are there are kept."""
    rig = folder / f"{path}.json"
    focal = 0.5 * resolution / np.tan(np.radians(FOV_X) / 2)
    record = {
        "fl_x": focal, "fl_y": focal, "cx": resolution / 2, "cy": resolution / 2, "w": resolution,
        "h": resolution,
        "frames": [
            {"file_path": f"{i:03d}.png", "time": i / (FRAMES - 1), "transform_matrix": _c2w(position)}
            for i, position in enumerate(positions(path))
        ],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    rig.write_text(json.dumps(record))
    dataset = folder / f"{path}-dataset"
    words = ["render", *map(str, assets), "--out", str(dataset), "--rigs", str(rig)]
    words += ["--frames", str(FRAMES), "--resolution", str(resolution)]
    subprocess.run([sys.executable, "-P", "-m", "orbit4d.app", *words], check=True)
    first: dict[str, str] = {}
    for _, table in Index(str(dataset)).read(["uid", "action"]):
        for row in table.to_pylist():
            first.setdefault(row["uid"], row["action"])
    found = []
    for uid, action in ((asset.stem, first[asset.stem]) for asset in assets):
        found.append(folder / f"{uid}-{path}")
        if not (found[-1] / "transforms_train.json").is_file():
            clip = read_clip(str(dataset), uid, rig=path, action=action)
            write(found[-1], clip.pixels(), clip.cameras, clip.time)
    return found


def _c2w(position: np.ndarray) -> list[list[float]]:
    return look_at_origin(position).tolist()


def write(folder: Path, pixels: np.ndarray, cameras: Sequence[Camera], times: Sequence[float]) -> None:
    """RGBA frames [F, H, W, 4] as a D-NeRF scene; val is test, as nothing is chosen by it."""
    angle = float(2 * np.arctan(cameras[0].w / (2 * cameras[0].fl_x)))
    held = [i % EVERY == EVERY // 2 for i in range(len(times))]
    for split, own in (("test", True), ("val", True), ("train", False)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames = []
        for i in (i for i, test in enumerate(held) if test is own):
            name = f"{split}/r_{len(frames):03d}"
            (folder / f"{name}.png").write_bytes(encode_png(pixels[i]))
            frames.append(
                {
                    "file_path": f"./{name}",
                    "rotation": 0.0,
                    "time": times[i],
                    "transform_matrix": cameras[i].c2w.tolist(),
                }
            )
        record = {"camera_angle_x": angle, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(record, indent=1))


def rows(
    scenes: Sequence[Path], settings: ReconstructionSettings, fields: dict[str, ReconstructionSettings],
    scratch: Path,
    show: Callable[[dict[str, Any]], dict[str, Any]], seed: int = 0, threads: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per scene and field, and its baselines: static Gaussians and the nearest training frame."""
    found = []
    variants = {**fields, "static Gaussians": replace(settings, fine_steps=0, deform_from=2.0)}
    for place in scenes:
        nearest: dict[str, Any] = {}
        for label, chosen in variants.items():
            wall, cpu = time.monotonic(), time.process_time()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                out = scratch / f"{place.name}, {label}"
                scene = reconstruct(str(place), out, settings=chosen, seed=seed, threads=threads)
            row: dict[str, Any] = {
                "asset": place.name, "what": label, "seconds": round(time.monotonic() - wall, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }  # fmt: skip
            kept = scene.metrics
            row |= {"train": kept["psnr_train"], "train_ssim": kept["ssim_train"]}
            row |= {"held out": kept["psnr_heldout"], "held out_ssim": kept["ssim_heldout"]}
            if "stopped" in kept:
                row["stopped"] = kept["stopped"]
            nearest = kept["baselines"]["nearest_training_frame"]
            found.append(show(row))
        scores = [(each["psnr"], each["ssim"]) for each in nearest.values()]
        mean = np.mean(scores, axis=0).tolist()
        row = {"asset": place.name, "what": "nearest training frame"}
        found.append(show({**row, "held out": mean[0], "held out_ssim": mean[1]}))
    return found
