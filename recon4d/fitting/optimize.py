"""The two-stage optimiser: coarse finds the shape, fine its motion.

Coarse: the static orbit at its time when one is given, else the dynamic orbit as if it stood still; late in
the stage the field begins to move and the video joins in. Fine: the video through the deformation field, the
static orbit mixed in at its time. With an anchored field the video's moments join in outwards from the
static orbit's. After Diffusion4D section 2.2 (arXiv 2405.16645) and hustvl/4DGaussians (train.py). Nothing is
decided by the view of one step: `passes.py`.

One seed makes a CPU run repeatable bit for bit, interrupted or not, on one number of threads: every draw
comes from one generator whose state is in the checkpoint. (The kernels' sums do not depend on the threads;
those of torch's matrix products in the field do, in the last digit.)
"""

from __future__ import annotations

import json
import math
import time as clock
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.recon4d.fitting.density import Density, DensityState
from orbit4d.recon4d.fitting.losses import Perceptual, depth_smoothness, image_terms, weigh
from orbit4d.recon4d.fitting.passes import Passes, compare
from orbit4d.recon4d.fitting.settings import Settings
from orbit4d.recon4d.fitting.state import Fit, replace_gaussians, save_checkpoint
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.scene import Placed, draw, place

STAGES = ("coarse", "fine")
#: Steps between two times that the gains of the views are made anew.
SETTLE_EVERY = 10
#: Steps of the fine stage over which the field's rate rises.
FIELD_RISE = 200


@dataclass
class View:
    """One image to fit."""

    truth: Tensor
    """[H, W, 4] premultiplied."""
    camera: Placed
    time: float
    index: int
    """Among all training views; the video's come first."""


def views(frames: Frames, first: int = 0) -> list[View]:
    """Images of frames as tensors; their indices count from `first`."""
    return [
        View(torch.from_numpy(image), place(camera), t, first + i)
        for i, (image, camera, t) in enumerate(zip(frames.rgba, frames.cameras, frames.time))
    ]


def optimise(
    fit: Fit,
    dynamic: Frames,
    static: Frames | None,
    settings: Settings,
    checkpoint: Path | None = None,
    log: Path | None = None,
) -> Fit:
    """Run what is left of both stages. Writes a checkpoint every `settings.checkpoint_seconds`.

    Raises WorkError when the loss stops being a number.
    """
    density = Density(settings.density)
    perceptual = Perceptual() if settings.weights.lpips else None
    steps = {"coarse": settings.coarse_steps, "fine": settings.fine_steps}
    total = sum(steps.values())
    done = fit.step + (steps["coarse"] if fit.stage == "fine" else 0)
    started = last_saved = clock.monotonic()
    spent = fit.seconds
    with Progress("recon4d", total, "step") as progress:
        progress.update(done)
        for stage in STAGES[STAGES.index(fit.stage) :]:
            if stage != fit.stage:
                fit.stage, fit.step = stage, 0
                fit.passes = Passes()
                fit.density = DensityState.empty(len(fit.gaussians))
            if fit.step == 0:
                fit.field.bind(fit.gaussians.means)
            pools = {half: _pools(dynamic, static, half) for half in (True, False)}
            while fit.step < steps[stage]:
                half = fit.step < settings.warmup_share * steps[stage]
                if half != (fit.step - 1 < settings.warmup_share * steps[stage]):
                    # Losses at half and at full resolution do not compare.
                    fit.passes = Passes()
                loss = take_step(fit, pools[half], settings, density, steps[stage], len(dynamic), perceptual)
                if not math.isfinite(loss):
                    raise WorkError(
                        f"recon4d: the loss is {loss} at {stage} step {fit.step}; "
                        "try another --seed or lower rates"
                    )
                fit.seconds = spent + clock.monotonic() - started
                if fit.step % 50 == 0 or fit.step in (1, steps[stage]):
                    row = {
                        "stage": stage,
                        "step": fit.step + (steps["coarse"] if stage == "fine" else 0),
                        "loss": fit.passes.loss,
                        "psnr": fit.passes.psnr,
                        "n_gaussians": len(fit.gaussians),
                        "seconds": round(fit.seconds, 2),
                    }
                    fit.history.append(row)
                    if log is not None:
                        log.write_text("".join(json.dumps(r) + "\n" for r in fit.history), encoding="utf-8")
                progress.update(
                    loss=f"{fit.passes.loss:.4f}",
                    psnr=f"{fit.passes.psnr:.1f}",
                    gaussians=len(fit.gaussians),
                )
                if settings.patience and stage == "fine" and fit.passes.stalled > settings.patience:
                    break
                if checkpoint and clock.monotonic() - last_saved > settings.checkpoint_seconds:
                    save_checkpoint(fit, checkpoint)
                    last_saved = clock.monotonic()
    return fit


def _pools(dynamic: Frames, static: Frames | None, half: bool) -> tuple[list[View], list[View]]:
    """Views of the video and of the static orbit, at full or half resolution."""
    size = max(dynamic.rgba.shape[1:3])
    chosen = [frames for frames in (dynamic, static) if frames is not None]
    if half:
        chosen = [frames.resized(max(size // 2, 1)) for frames in chosen]
    video = views(chosen[0])
    return video, views(chosen[1], len(video)) if static is not None else []


def _choose(
    fit: Fit, pools: tuple[list[View], list[View]], settings: Settings, progress: float, moving: bool
) -> View:
    """Draw the view of a step."""
    dynamic, static = pools
    share = settings.static_share if moving else 1.0
    if static and float(torch.rand((), generator=fit.generator)) < share:
        pool = static
    else:
        pool = _within_reach(dynamic, settings, progress if fit.stage == "fine" else 0.0)
    return pool[int(torch.randint(len(pool), (), generator=fit.generator))]


def _within_reach(pool: list[View], settings: Settings, progress: float) -> list[View]:
    """The views near enough to the anchored moment: motion is followed outwards from what is known.

    A limb that has moved further than its own width gives no gradient towards where it is; one frame on from
    a moment that already fits, it has not.
    """
    anchor = settings.deformation.get("anchor")
    if anchor is None or progress >= settings.unroll_share:
        return pool
    farthest = max(abs(view.time - anchor) for view in pool)
    reach = farthest * (0.1 + progress / settings.unroll_share)
    return [view for view in pool if abs(view.time - anchor) <= reach] or pool


def take_step(
    fit: Fit,
    pools: tuple[list[View], list[View]],
    settings: Settings,
    density: Density,
    steps: int,
    n_frames: int,
    perceptual: Perceptual | None = None,
) -> float:
    """One view, one update. Returns the loss that was descended; `fit.passes` notes how the view stood.

    `pools` are the views of the video and of the static orbit, `steps` the length of the stage.
    """
    fine = fit.stage == "fine"
    progress = fit.step / max(steps - 1, 1)
    moving = fine or progress >= settings.deform_from
    view = _choose(fit, pools, settings, progress, moving)
    background = torch.rand(3, generator=fit.generator)
    moved = fit.field.move(fit.gaussians, view.time) if moving else fit.gaussians
    weights = settings.weights
    with_depth = weights.depth_smoothness > 0
    mode = "RGB+ED" if with_depth else "RGB"
    drawn, alpha, meta = draw(moved, view.camera, render_mode=mode, eps2d=settings.eps2d)
    color = drawn[..., :3]
    if fit.exposure is not None:
        color = color * fit.exposure.gain(view.index)
    terms = image_terms(color, alpha, view.truth, background)
    if perceptual is not None and fit.step % settings.lpips_every == 0:
        terms["lpips"] = perceptual(color, alpha, view.truth, background)
    if with_depth:
        terms["depth_smoothness"] = depth_smoothness(drawn[..., 3:], alpha)
    if moving and fit.step % settings.regularise_every == 0:
        penalties = fit.field.regularisers(view.time, 1 / max(n_frames - 1, 1))
        terms |= {name: value * settings.regularise_every for name, value in penalties.items()}
    loss = weigh(terms, weights)

    _set_rates(fit, settings, progress)
    fit.adam.zero_grad(set_to_none=True)
    loss.backward()
    fit.adam.step()
    fit.step += 1
    n_views = len(pools[0]) + len(pools[1])
    fit.passes.note(view.index, *compare(color, alpha, view.truth), fit.step, n_views)
    if fit.exposure is not None and moving:
        # Earlier the colours are not settled, and what a side lacks in colour would be taken for light.
        fit.exposure.observe(view.index, drawn[..., :3], alpha, view.truth)
        if fit.step % SETTLE_EVERY == 0:
            fit.exposure.settle()

    if settings.density.every:
        density.observe(fit.density, meta["means2d"], meta["radii"], view.camera.width, view.camera.height)
    if density.due(fit.step, steps, n_views):
        grown, origin = density.round(fit.gaussians, fit.density, fit.generator)
        replace_gaussians(fit, grown, origin)
    elif moving and fit.step % 250 == 0:
        # Centres have drifted: skin them anew.
        fit.field.bind(fit.gaussians.means)
    if density.fades(fit.step, steps):
        density.fade(fit.gaussians)
    return loss.item()


def _set_rates(fit: Fit, settings: Settings, progress: float) -> None:
    """Rates fall within each stage; the field's own only in the fine one, where most of its work is.

    There it starts gently: at its full rate from the first step the network is thrown far off now and then.
    """
    fine = fit.stage == "fine"
    for group in fit.adam.param_groups:
        if group["name"] == "field":
            rise = min(1.0, (fit.step + 1) / FIELD_RISE) if fine else 0.2
            group["lr"] = group["base"] * rise * (settings.rates.final**progress if fine else 1.0)
        else:
            own = settings.rates.fine if fine else 1.0
            group["lr"] = group["base"] * own * settings.rates.final**progress
