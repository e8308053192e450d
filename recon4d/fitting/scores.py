"""How well a scene shows its training views and what it never saw: PSNR, SSIM and LPIPS on white."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.images.measures import READ_CEILING, psnr, ssim
from orbit4d.recon4d.fitting.losses import Perceptual, why_no_lpips
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.scene import Scene

if TYPE_CHECKING:
    from orbit4d.recon4d.fitting.inputs import Inputs


def measure(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """PSNR and SSIM on white: training views, the static orbit, and every held-out set of views.

    LPIPS of the same pictures where its weights are present; `lpips` is then a number per set.
    """
    record: dict[str, Any] = {"split": {"train": inputs.dynamic.name}}
    record["psnr_train"], record["ssim_train"] = score(scene, inputs.dynamic)
    if inputs.static is not None:
        record["split"]["train_static"] = inputs.static.name
        record["psnr_static"], record["ssim_static"] = score(scene, inputs.static)
    each = {name: score(scene, frames) for name, frames in inputs.held_out.items()}
    record["split"]["heldout"] = {name: frames.name for name, frames in inputs.held_out.items()}
    record["heldout"] = {name: {"psnr": p, "ssim": s} for name, (p, s) in each.items()}
    record |= under_gains(scene, inputs, record["heldout"])
    record["psnr_heldout"] = float(np.mean([p for p, _ in each.values()])) if each else None
    record["ssim_heldout"] = float(np.mean([s for _, s in each.values()])) if each else None
    if why_no_lpips() is None:
        net = Perceptual().net
        sets = {"train": inputs.dynamic, **inputs.held_out}
        record["lpips"] = {name: lpips(scene, frames, net) for name, frames in sets.items()}
    nearest = {name: nearest_frame(inputs.dynamic, frames) for name, frames in inputs.held_out.items()}
    record["baselines"] = {
        "nearest_training_frame": {name: {"psnr": p, "ssim": s} for name, (p, s) in nearest.items()}
    }
    return record


def under_gains(scene: Scene, inputs: Inputs, heldout: dict[str, dict[str, float]]) -> dict[str, Any]:
    """PSNR of the training views under their fitted gains, empty without any; adds those of held-out sets.

    A held-out set's gain is known where it and the video took one view at one time, and is not fitted.
    """
    for name, gain in inputs.gains.items():
        frames = inputs.held_out[name]
        psnr_with_gain = score(scene, frames, [gain] * len(frames))[0]
        heldout[name] |= {"gain": gain, "psnr_with_gain": psnr_with_gain}
    gains = scene.info.get("exposure")
    if gains is None:
        return {}
    found = {"psnr_train": score(scene, inputs.dynamic, gains["video"])[0]}
    if inputs.static is not None:
        found["psnr_static"] = score(scene, inputs.static, gains["static"])[0]
    return {"exposure": found}


def nearest_frame(train: Frames, wanted: Frames) -> tuple[float, float]:
    """Mean PSNR and SSIM, on white, of answering with the training frame of the nearest view.

    Nearest is the smallest angle between the cameras' directions from the origin, and of these the nearest
    in time. PSNR of each frame counts at most 60 dB.
    """
    ways = np.stack([camera.position / np.linalg.norm(camera.position) for camera in train.cameras])
    times = np.asarray(train.time)
    psnrs, ssims = [], []
    for truth, camera, t in zip(wanted.rgba, wanted.cameras, wanted.time):
        cosine = (ways @ (camera.position / np.linalg.norm(camera.position))).clip(-1, 1)
        order = np.lexsort((np.abs(times - t), np.degrees(np.arccos(cosine)).round(3)))
        pictures = [image[..., :3] + 1 - image[..., 3:] for image in (train.rgba[order[0]], truth)]
        psnrs.append(min(psnr(*pictures), READ_CEILING))
        ssims.append(ssim(*pictures))
    return float(np.mean(psnrs)), float(np.mean(ssims))


def score(scene: Scene, frames: Frames, gains: Sequence[float] | None = None) -> tuple[float, float]:
    """Mean PSNR in dB (of each frame at most 60) and mean SSIM over frames, on white.

    `gains`, one per frame, are those that the scene's colours are multiplied by first.
    """
    psnrs, ssims = [], []
    for i, (truth, camera, t) in enumerate(zip(frames.rgba, frames.cameras, frames.time)):
        straight = scene.render(camera, t)
        if gains is not None:
            straight[..., :3] = (straight[..., :3] * gains[i]).clip(0, 1)
        ours = straight[..., :3] * straight[..., 3:] + 1 - straight[..., 3:]
        wanted = truth[..., :3] + 1 - truth[..., 3:]
        psnrs.append(min(psnr(ours, wanted), READ_CEILING))
        ssims.append(ssim(ours, wanted))
    return float(np.mean(psnrs)), float(np.mean(ssims))


@torch.no_grad()
def lpips(scene: Scene, frames: Frames, net: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Mean distance over frames, on white; `net` compares images [B, 3, H, W]."""
    found = []
    for truth, camera, t in zip(frames.rgba, frames.cameras, frames.time):
        straight = scene.render(camera, t)
        ours = straight[..., :3] * straight[..., 3:] + 1 - straight[..., 3:]
        wanted = truth[..., :3] + 1 - truth[..., 3:]
        pair = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in (ours, wanted)]
        found.append(float(net(*pair)))
    return float(np.mean(found))
