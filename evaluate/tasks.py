"""What is held against what: each task yields pairs, one at a time, and never holds two.

video: a generated orbit against ground truth renders. scene: a 4D scene filmed at ground-truth cameras and
times. run: a trained model over a list of assets, generated first. dataset: see `quality.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras import Camera, orbit
from orbit4d.datasets.clips import Clip
from orbit4d.datasets.errors import InputError
from orbit4d.datasets.index import Index
from orbit4d.datasets.reader import read_clip
from orbit4d.datasets.reference import is_reference, open_reference
from orbit4d.evaluate.suite import Pair

#: Views of the paper's CLIP-O protocol (arXiv 2405.16645, section 4.1).
CLIP_ORBIT_VIEWS = 36


@dataclass(frozen=True)
class Frames:
    """RGB on white [F, 3, H, W] and alpha [F, 1, H, W], float32 in [0, 1]."""

    rgb: Tensor
    alpha: Tensor | None

    def __len__(self) -> int:
        return len(self.rgb)


def on_white(rgba: np.ndarray) -> Frames:
    """Straight RGBA [F, H, W, 4], uint8 or float in [0, 1], composited on white."""
    values = rgba.astype(np.float32) / 255 if rgba.dtype == np.uint8 else rgba.astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2)
    alpha = pixels[:, 3:4]
    return Frames(pixels[:, :3] * alpha + 1 - alpha, alpha)


def clip_frames(clip: Clip) -> Frames:
    """Frames of a dataset's clip."""
    return on_white(clip.pixels())


def load_frames(source: str, rig: str = "dynamic_orbit", orbit_index: int = 0) -> tuple[Frames, Clip | None]:
    """Frames of a video file, a folder of images, or DATASET:uid[:action] (then also its clip)."""
    path = Path(source)
    if not path.exists() and is_reference(source):
        dataset, uid, action = open_reference(source)
        clip = read_clip(dataset, uid, action, rig, orbit_index)
        return clip_frames(clip), clip
    if path.is_dir():
        from PIL import Image

        files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".webp", ".jpg", ".jpeg"))
        if not files:
            raise InputError(f"{source}: no image in this folder; give a video or a folder of frames")
        images = [np.asarray(Image.open(file).convert("RGBA")) for file in files]
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{source}: frames of different sizes")
        return on_white(np.stack(images)), None
    if not path.exists():
        raise InputError(f"{source}: no such video, folder or DATASET:uid[:action]")
    from orbit4d.datasets.video import read_video

    frames = read_video(path).frames
    if frames.shape[-1] == 4:
        return on_white(frames), None
    rgb = torch.from_numpy(frames.astype(np.float32) / 255).permute(0, 3, 1, 2)
    return Frames(rgb, None), None


def _optional_clip(dataset: str, clip: Clip, rig: str, orbit_index: int) -> Clip | None:
    try:
        return read_clip(dataset, clip.uid, clip.action_index, rig, orbit_index)
    except InputError:
        return None


def video_pairs(
    generated: str, truth: str, rig: str = "dynamic_orbit", orbit_index: int = 0, caption: str = ""
) -> Iterator[Pair]:
    """One generated video against its ground truth."""
    made, _ = load_frames(generated, rig, orbit_index)
    real, clip = load_frames(truth, rig, orbit_index)
    static = None
    if clip is not None and rig == "dynamic_orbit":
        still = _optional_clip(open_reference(truth)[0], clip, "static_orbit", orbit_index)
        static = clip_frames(still).rgb if still is not None else None
    yield Pair(
        name=truth if clip is not None else Path(truth).stem,
        rig=rig,
        rgb=made.rgb,
        truth=real.rgb,
        alpha=made.alpha,
        truth_alpha=real.alpha,
        condition=caption or real.rgb[0],
        static=static,
    )


def film(scene: Any, cameras: Sequence[Camera], times: Sequence[float]) -> Frames:
    """A scene rendered at cameras and times (`load_scene(dir).render(camera, time)`)."""
    return on_white(np.stack([np.asarray(scene.render(c, t)) for c, t in zip(cameras, times)]))


def scene_pairs(
    folder: str, truth: str, protocols: Sequence[str] = ("front", "orbit", "clip36"), held_out_orbit: int = 1
) -> Iterator[Pair]:
    """A reconstructed scene against ground truth renders of its asset.

    front: the front-view clip (time runs, camera fixed). orbit: a dynamic orbit the fit did not see
    (`held_out_orbit`), else orbit 0, which is then named as seen in training. clip36: 36 uniform orbit views
    at times running over the clip, scored by CLIP similarity alone, beside the truth of orbit 0 resampled.
    """
    from orbit4d.recon4d import load_scene

    if not is_reference(truth):
        raise InputError(f"--truth {truth}: give DATASET:uid[:action], the renders of the scene's asset")
    scene = load_scene(folder)
    dataset, uid, action = open_reference(truth)
    base = read_clip(dataset, uid, action)
    condition = clip_frames(base).rgb[0]
    if "front" in protocols:
        front = _optional_clip(dataset, base, "front_view", 0)
        if front is not None:
            yield _filmed(f"{uid}/front", scene, front, condition, {"seen_in_training": False})
    if "orbit" in protocols:
        held_out = _optional_clip(dataset, base, "dynamic_orbit", held_out_orbit)
        clip = held_out or base
        extra = {"seen_in_training": held_out is None}
        # CLIP-O is what the 36 views are for.
        asked = None if "clip36" in protocols else condition
        yield _filmed(f"{uid}/orbit{clip.orbit}", scene, clip, asked, extra)
    if "clip36" in protocols:
        size = (base.cameras[0].w, base.cameras[0].h)
        n = CLIP_ORBIT_VIEWS
        views = orbit(n, base.radius, base.elevation_deg, base.cameras[0].fov_x_deg, size=size)
        made = film(scene, views, [i / (n - 1) for i in range(n)])
        nearest = torch.linspace(0, len(base.cameras) - 1, n).round().long()
        real = clip_frames(base)
        yield Pair(
            f"{uid}/clip36", "clip36", made.rgb, real.rgb[nearest], condition=condition, similarity_only=True
        )


def _filmed(name: str, scene: Any, clip: Clip, condition: Tensor | None, extra: dict[str, Any]) -> Pair:
    made, real = film(scene, clip.cameras, clip.time), clip_frames(clip)
    return Pair(
        name, clip.rig, made.rgb, real.rgb, made.alpha, real.alpha, condition=condition, extra=dict(extra)
    )


def run_assets(dataset: str, split: str | None, ids: Path | None) -> list[tuple[str, int]]:
    """(uid, action_index) of every dynamic orbit 0 in a split, or of the uids that a text file lists."""
    wanted = None
    if ids is not None:
        if not ids.is_file():
            raise InputError(f"--ids {ids}: no such file; give a text file with one uid a line")
        wanted = {line.strip() for line in ids.read_text().splitlines() if line.strip()}
    index = Index(dataset)
    found = []
    for _, table in index.read(["uid", "action_index", "rig", "orbit", "split"]):
        for row in table.to_pylist():
            kept = row["uid"] in wanted if wanted is not None else split in (None, row["split"])
            if kept and row["rig"] == "dynamic_orbit" and row["orbit"] == 0:
                found.append((row["uid"], row["action_index"]))
    if not found:
        what = f"uid of {ids}" if ids else f"asset of the split {split!r}"
        raise InputError(f"{dataset}: no {what} has a dynamic orbit; look at `orbit4d stats {dataset}`")
    return sorted(found)


def run_pairs(
    run: str, dataset: str, assets: Sequence[tuple[str, int]], task: str, out: Path, **settings: Any
) -> Iterator[Pair]:
    """A trained model over assets: image-, text- or static-to-4D, generated into `out`/generated.

    Motion is the ground truth's own m unless `motion` says otherwise, so that the question is whether the
    request is met. A video that is already there is not generated again: an interrupted evaluation goes on.
    """
    from PIL import Image

    from orbit4d.model.data import even_frames
    from orbit4d.model.generate import Request, generate

    generated = out / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    motion = settings.pop("motion", None)
    for uid, action_index in assets:
        clip = read_clip(dataset, uid, action_index)
        static = _optional_clip(dataset, clip, "static_orbit", clip.orbit)
        path = generated / f"{uid}__a{action_index}.mp4"
        seconds = path.with_suffix(".seconds")
        if not seconds.exists():
            given: dict[str, str] = {}
            if task == "image":
                first = path.with_suffix(".first.png")
                Image.fromarray(clip.pixels()[0]).save(first)
                given = {"image": str(first)}
            elif task == "text":
                given = {"text": clip.caption or uid}
            else:
                given = {"static": f"{dataset}:{uid}:{clip.action}"}
            own = clip.measures.get("motion_magnitude")
            asked = motion or ("q0.5" if own is None else repr(float(own)))
            start = time.perf_counter()
            generate(run, path, Request(**given, motion=asked, **settings))
            seconds.write_text(str(time.perf_counter() - start))
        made, _ = load_frames(str(path.with_suffix("") / "frames"))
        chosen = even_frames(len(clip.frames), len(made))
        size = made.rgb.shape[-1]
        real = _resized(clip_frames(clip).rgb[chosen], size)
        yield Pair(
            name=f"{uid}:{clip.action}",
            rig=clip.rig,
            rgb=made.rgb,
            truth=real,
            condition=(clip.caption or uid) if task == "text" else real[0],
            static=_resized(clip_frames(static).rgb[chosen], size) if static is not None else None,
            extra={"seconds": float(seconds.read_text())},
        )


def _resized(video: Tensor, size: int) -> Tensor:
    if video.shape[-1] == size:
        return video
    return torch.nn.functional.interpolate(video, (size, size), mode="area")
