"""The second fit: from the first one, on its own frames and on completed views with their confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.recon4d.fitting import optimize
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.scores import score
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit, new_fit
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.scene import Scene
from orbit4d.recon4d.world import World

#: Share of the first fit's fine steps that the second one takes.
SHARE = 0.3
#: Held-out views this far from every training view show what one orbit leaves unseen.
FAR_DEG = 30.0


def refitted(
    first: Scene,
    fitted: Inputs,
    made: Frames,
    settings: ReconstructionSettings,
    seed: int,
    device: torch.device,
) -> tuple[Fit, ReconstructionSettings]:
    """Continue from a scene's Gaussians and field with completed views among the video's.

    `fitted` and `made` are in the world of the fit. Gains of views are not fitted again: where the first fit
    found some, the images are divided by them.
    """
    steps = max(1, round(SHARE * settings.fine_steps))
    # The motion is known: all times are there at once, and several cameras see its depth.
    again = replace(
        settings, coarse_steps=0, fine_steps=steps, warmup_share=0.0, unroll_share=0.0, depth_shares=(),
        exposure=False, patience=0,
    )  # fmt: skip
    fit = new_fit(first.gaussians.to("cpu"), again, seed, None, device)
    fit.field.load_state_dict({name: t.to(device) for name, t in first.field.state_dict().items()})
    fit.field.bind(fit.gaussians.means)
    fit.stage = "fine"
    gains = first.info.get("exposure")
    dynamic = _without_gains(fitted.dynamic, gains["video"] if gains else None)
    static = fitted.static
    if static is not None:
        static = _without_gains(static, gains["static"] if gains else None)
    optimize.optimise(fit, _joined(dynamic, made), static, again)
    return fit, again


def in_fit(scene: Scene) -> Scene:
    """A scene as it stands in the world of its fit."""
    inside = replace(scene, cameras=tuple(map(scene.world.camera, scene.cameras)))
    inside.world = World()
    return inside


def far_scores(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """PSNR and SSIM over all held-out views, and over those far from every training view."""
    held = list(inputs.held_out.values())
    if not held:
        return {}
    train = [inputs.dynamic, *([inputs.static] if inputs.static is not None else [])]
    cameras = [camera for frames in train for camera in frames.cameras]
    found: dict[str, Any] = {}
    for name, limit in (("all", -1.0), ("far", FAR_DEG)):
        scores, count = [], 0
        for frames in held:
            keep = [i for i, c in enumerate(frames.cameras) if nearest_deg(c, cameras, scene.world) > limit]
            if keep:
                scores.append((len(keep), score(scene, subset(frames, keep))))
                count += len(keep)
        if count:
            psnr, ssim = (sum(n * s[k] for n, s in scores) / count for k in (0, 1))
            found[name] = {"views": count, "psnr": psnr, "ssim": ssim}
    return found


def nearest_deg(camera: Camera, others: Sequence[Camera], world: World) -> float:
    """Smallest angle between the directions in which cameras lie from the object."""
    centre = np.array(world.centre)
    ways = [(c.position - centre) / np.linalg.norm(c.position - centre) for c in (camera, *others)]
    return float(np.degrees(np.arccos(np.clip(np.stack(ways[1:]) @ ways[0], -1, 1))).min())


def subset(frames: Frames, keep: list[int]) -> Frames:
    """Some of the frames."""
    return replace(
        frames,
        rgba=frames.rgba[keep],
        cameras=tuple(frames.cameras[i] for i in keep),
        time=tuple(frames.time[i] for i in keep),
    )


def _joined(given: Frames, made: Frames) -> Frames:
    """Given frames at confidence 1 (or theirs, of a novel view), then made ones at theirs."""
    h, w = given.rgba.shape[1:3]
    assert made.confidence is not None
    sure = np.ones((len(given), h, w), np.float32) if given.confidence is None else given.confidence
    return replace(
        given,
        rgba=np.concatenate([given.rgba, made.rgba]),
        cameras=(*given.cameras, *made.cameras),
        time=(*given.time, *made.time),
        confidence=np.concatenate([sure, made.confidence]),
    )


def _without_gains(frames: Frames, gains: Sequence[float] | None) -> Frames:
    if gains is None:
        return frames
    rgba = frames.rgba.copy()
    rgba[..., :3] /= np.array(gains, np.float32)[:, None, None, None]
    return replace(frames, rgba=rgba)
