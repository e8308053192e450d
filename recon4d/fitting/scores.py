"""How well a scene shows its training views and what it never saw: PSNR, SSIM and LPIPS on white."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.images.measures import READ_CEILING, psnr, ssim
from orbit4d.recon4d.fitting.fused_loss import TAPS, Comparison
from orbit4d.recon4d.fitting.losses import Perceptual, why_no_lpips
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.scene import Scene

if TYPE_CHECKING:
    from orbit4d.recon4d.fitting.inputs import Inputs

Float = npt.NDArray[np.float32]


def measure(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """PSNR and SSIM on white: training views, the static orbit, and every held-out set of views.

    LPIPS of the same images where its weights are present; `lpips` is then a number per set.
    """
    record: dict[str, Any] = {"split": {"train": inputs.dynamic.name}}
    train = renders(scene, inputs.dynamic)
    record["psnr_train"], record["ssim_train"] = compared(train, inputs.dynamic)
    still = None
    if inputs.static is not None and inputs.views is None:
        still = renders(scene, inputs.static)
        record["split"]["train_static"] = inputs.static.name
        record["psnr_static"], record["ssim_static"] = compared(still, inputs.static)
    unseen = {name: renders(scene, frames) for name, frames in inputs.held_out.items()}
    each = {name: compared(unseen[name], frames) for name, frames in inputs.held_out.items()}
    record["split"]["heldout"] = {name: frames.name for name, frames in inputs.held_out.items()}
    record["heldout"] = {name: {"psnr": p, "ssim": s} for name, (p, s) in each.items()}
    for name, gain in inputs.gains.items():
        # Known where a held-out set and the video took one view at one time; it is not fitted.
        frames = inputs.held_out[name]
        with_gain = compared(unseen[name], frames, [gain] * len(frames))[0]
        record["heldout"][name] |= {"gain": gain, "psnr_with_gain": with_gain}
    if (gains := scene.info.get("exposure")) is not None:
        record["exposure"] = {"psnr_train": compared(train, inputs.dynamic, gains["video"])[0]}
        if inputs.static is not None and still is not None:
            record["exposure"]["psnr_static"] = compared(still, inputs.static, gains["static"])[0]
    if inputs.views is not None:
        record |= by_view({"train": (train, inputs.dynamic)} | {
            name: (unseen[name], frames) for name, frames in inputs.held_out.items()
        })  # fmt: skip
    record["psnr_heldout"] = float(np.mean([p for p, _ in each.values()])) if each else None
    record["ssim_heldout"] = float(np.mean([s for _, s in each.values()])) if each else None
    if why_no_lpips() is None:
        net = Perceptual().net
        sets = {"train": (train, inputs.dynamic)}
        sets |= {name: (unseen[name], frames) for name, frames in inputs.held_out.items()}
        record["lpips"] = {name: lpips(drawn, frames, net) for name, (drawn, frames) in sets.items()}
    nearest = {name: nearest_frame(inputs.dynamic, frames) for name, frames in inputs.held_out.items()}
    record["baselines"] = {
        "nearest_training_frame": {name: {"psnr": p, "ssim": s} for name, (p, s) in nearest.items()}
    }
    return record


#: A fit is called failed when its views are no more than this above those of nothing, or this below those of
#: the object as if it stood still, dB: what losses of single views are uncertain by.
DOUBT = 1.0


def failure(psnr_train: float, train: Frames, still: float | None) -> str | None:
    """One line on a fit that shows its training views no better than nothing, or worse than without motion.

    `still` is the PSNR in dB that the coarse stage reached on the same views as if the object stood still.
    """
    nothing = float(np.mean(each_compared(np.zeros_like(train.rgba), train)[0]))
    seen, fix = f"the fit failed: training views are at {psnr_train:.1f} dB", "try another --seed"
    if psnr_train < nothing + DOUBT:
        return f"{seen}, where an empty image is at {nothing:.1f} dB; {fix}"
    if still is not None and psnr_train < still - DOUBT:
        return f"{seen}, and were at {still:.1f} dB as if the object stood still; {fix}"
    return None


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
        ours, theirs = (image[..., :3] + 1 - image[..., 3:] for image in (train.rgba[order[0]], truth))
        psnrs.append(min(psnr(ours, theirs), READ_CEILING))
        ssims.append(quick_ssim(ours, theirs))
    return float(np.mean(psnrs)), float(np.mean(ssims))


def renders(scene: Scene, frames: Frames) -> Float:
    """Straight RGBA [F, H, W, 4] of the scene where frames were taken."""
    return np.stack([scene.render(camera, t) for camera, t in zip(frames.cameras, frames.time)])


def score(scene: Scene, frames: Frames, gains: Sequence[float] | None = None) -> tuple[float, float]:
    """Mean PSNR in dB (of each frame at most 60) and mean SSIM over frames, on white.

    `gains`, one per frame, are those that the scene's colours are multiplied by first.
    """
    return compared(renders(scene, frames), frames, gains)


def compared(drawn: Float, frames: Frames, gains: Sequence[float] | None = None) -> tuple[float, float]:
    """`score` of what was drawn, straight RGBA [F, H, W, 4]."""
    psnrs, ssims = each_compared(drawn, frames, gains)
    return float(np.mean(psnrs)), float(np.mean(ssims))


def by_view(sets: dict[str, tuple[Float, Frames]]) -> dict[str, Any]:
    """Mean PSNR and SSIM per camera and per time, of what is trained on and of what is held out.

    `sets` are straight RGBA and frames by name, the training views under `train`.
    """
    rows: dict[tuple[str, str, bool], list[tuple[float, float]]] = {}
    for name, (drawn, frames) in sets.items():
        psnrs, ssims = each_compared(drawn, frames)
        for label, t, p, s in zip(frames.labels, frames.time, psnrs, ssims):
            rows.setdefault(("camera", label, name != "train"), []).append((p, s))
            rows.setdefault(("time", f"{t:.6f}", name != "train"), []).append((p, s))
    record: dict[str, Any] = {"per_camera": [], "per_time": []}
    for (kind, value, held), scores in sorted(rows.items()):
        p, s = np.mean(scores, axis=0).tolist()
        what = {"camera": value} if kind == "camera" else {"time": float(value)}
        record[f"per_{kind}"].append({**what, "held_out": held, "images": len(scores), "psnr": p, "ssim": s})
    return record


def each_compared(
    drawn: Float, frames: Frames, gains: Sequence[float] | None = None
) -> tuple[list[float], list[float]]:
    """PSNR in dB, at most 60, and SSIM of each frame, on white."""
    psnrs, ssims = [], []
    for i, (truth, straight) in enumerate(zip(frames.rgba, drawn)):
        color, alpha = straight[..., :3], straight[..., 3:]
        if gains is not None:
            color = (color * np.float32(gains[i])).clip(0, 1)
        ours = color * alpha + 1 - alpha
        wanted = truth[..., :3] + 1 - truth[..., 3:]
        psnrs.append(min(psnr(ours, wanted), READ_CEILING))
        ssims.append(quick_ssim(ours, wanted))
    return psnrs, ssims


def quick_ssim(a: Float, b: Float) -> float:
    """`datasets.images.measures.ssim` of images [H, W, 3] by the loss's kernels, to about 1e-6."""
    h, w = a.shape[:2]
    if min(h, w) < TAPS:
        return ssim(a, b)
    opaque = np.ones((h, w, 1), np.float32)
    images = [np.ascontiguousarray(image, np.float32) for image in (a, np.dstack([b, opaque]))]
    background = np.zeros(3, np.float32)
    return Comparison(h, w, differentiate=False).terms(images[0], opaque, images[1], background)[2]


@torch.no_grad()
def lpips(drawn: Float, frames: Frames, net: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Mean distance over frames, on white, of straight RGBA [F, H, W, 4]; `net` compares [B, 3, H, W]."""
    found = []
    for truth, straight in zip(frames.rgba, drawn):
        ours = straight[..., :3] * straight[..., 3:] + 1 - straight[..., 3:]
        wanted = truth[..., :3] + 1 - truth[..., 3:]
        pair = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in (ours, wanted)]
        found.append(float(net(*pair)))
    return float(np.mean(found))
