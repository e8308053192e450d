"""Synchronised views against each other, by a dataset's true depth: matched pixels and features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets import Index
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.reader import pick_action, read_clip
from orbit4d.datasets.index.reference import split_reference
from orbit4d.datasets.layouts.scenes import camera_label
from orbit4d.datasets.store.clip import RIGS, Clip
from orbit4d.evaluate.geometry.consistency import feature_consistency, matched_pixels
from orbit4d.evaluate.metrics.features import PatchFeatures
from orbit4d.evaluate.tasks.frames import VIDEOS, clip_frames, load_frames


def rig_clips(reference: str, rig: str | None) -> list[Clip]:
    """The clips of a synchronised rig of DATASET:uid[:action], with depth. Raises InputError."""
    dataset, uid, action = split_reference(reference)
    if uid is None:
        raise InputError(f"{reference}: name the asset, DATASET:uid or DATASET:uid:action")
    index = Index(dataset)
    rows = [row for row in pick_action(index, uid, action) if row["light"] == 0]
    rigs = sorted({row["rig"] for row in rows} - {*RIGS, "view_set"})
    if rig is None and len(rigs) != 1:
        raise InputError(
            f"{reference}: name one of its rigs with --sync ({', '.join(rigs) or 'it has none'})"
        )
    name = rig or rigs[0]
    wanted = sorted(row["orbit"] for row in rows if row["rig"] == name)
    if len(wanted) < 2:
        raise InputError(
            f"--sync {name}: {len(wanted)} cameras of it; {', '.join(rigs) or 'no rig'} is there"
        )
    clips = [read_clip(index, uid, rows[0]["action_index"], name, k) for k in wanted]
    if missing := [clip for clip in clips if "depth" not in clip.passes]:
        raise InputError(
            f"{reference}: {camera_label(missing[0])} has no depth; render it with --add-passes depth"
        )
    return clips


def given_views(folder: Path, clips: Sequence[Clip]) -> list[torch.Tensor]:
    """RGB [F, 3, H, W] of every camera, `<label>.mp4` or `<label>/` of a folder. Raises InputError."""
    found = []
    for clip in clips:
        label = camera_label(clip)
        places = [*(folder / f"{label}{suffix}" for suffix in VIDEOS), folder / label]
        place = next((path for path in places if path.exists()), None)
        if place is None:
            raise InputError(f"{folder}: holds no {label}.mp4 or {label}/; every camera of the rig needs one")
        rgb, (w, h) = load_frames(str(place)).rgb, (clip.cameras[0].w, clip.cameras[0].h)
        if tuple(rgb.shape) != (len(clip.time), 3, h, w):
            raise InputError(
                f"{place}: {len(rgb)} frames of {rgb.shape[-1]}x{rgb.shape[-2]} where the truth has "
                f"{len(clip.time)} of {w}x{h}"
            )
        found.append(rgb)
    return found


def measure_views(
    clips: Sequence[Clip], views: Sequence[torch.Tensor] | None = None, network: PatchFeatures | None = None
) -> dict[str, Any]:
    """Agreement of views [F, 3, H, W] (None: the clips' own), mean over times at which two share a pixel.

    `matched`, `difference`, `valid` of `matched_pixels`, and with a network `unlike` of
    `feature_consistency`.
    """
    shown = [clip_frames(clip).rgb for clip in clips] if views is None else list(views)
    depths = [clip.pass_arrays("depth") for clip in clips]
    alphas = [clip.pixels()[..., 3].astype(np.float32) / 255 for clip in clips]
    rows: list[dict[str, float]] = []
    for t in range(len(clips[0].time)):
        images = torch.stack([one[t] for one in shown])
        cameras = [clip.cameras[t] for clip in clips]
        z, alpha = (np.stack([one[t] for one in every]) for every in (depths, alphas))
        row = matched_pixels(images.permute(0, 2, 3, 1).numpy(), z, alpha, cameras)
        if network is not None:
            row["unlike"] = feature_consistency(network(images).numpy(), z, alpha, cameras)["unlike"]
        rows.append(row)
    if not any(row["valid"] for row in rows):
        raise InputError("no two of these cameras see one surface point; take cameras that stand nearer")
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    means["valid"] = float(sum(row["valid"] for row in rows))
    return {"cameras": len(clips), "frames": len(rows), **means}
