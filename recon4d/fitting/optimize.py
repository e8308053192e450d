"""The two-stage optimiser: coarse finds the shape, fine its motion.

Coarse: the static orbit at its time when one is given, else the dynamic orbit as if it stood still; late in
the stage the field begins to move and the video joins in. Fine: the video through the deformation field, the
static orbit mixed in at its time. With a field of paths the video's times join in outwards from the times
of rest. After Diffusion4D section 2.2 (arXiv 2405.16645) and hustvl/4DGaussians (train.py). Nothing is
decided by the view of one step: `passes.py`.

An update takes the mean gradient of `views_per_step` views, each of which counts as a step; on two threads
they are drawn side by side. A view's gradient comes from kernels (`fused_view.py`), from autograd where those
do not know a term.

One seed makes a CPU run repeatable bit for bit, interrupted or not, on any number of threads: every draw
comes from one generator whose state is in the checkpoint, pieces of work are fixed by the problem, and what
they give is added up in order. (What autograd computes is so within `threads.alone`, as `reconstruct` does.)
"""

from __future__ import annotations

import json
import math
import time as clock
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from orbit4d.datasets.core.atomic import write_text
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.fitting.density import Density, DensityState
from orbit4d.recon4d.fitting.fused_view import Activated, FusedView, is_fused
from orbit4d.recon4d.fitting.losses import (
    Outcome,
    Perceptual,
    Task,
    View,
    by_autograd,
    by_graphs,
    is_graphable,
)
from orbit4d.recon4d.fitting.passes import judged_from
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit, replace_gaussians, restart_field, save_checkpoint
from orbit4d.recon4d.graphs import Graphs
from orbit4d.recon4d.inputs.loading import Frames
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.scene import place

STAGES = ("coarse", "fine")
#: Steps between two times that the gains of the views are made again.
SETTLE_EVERY = 10
#: Steps between two times that the centres are skinned again.
REBIND_EVERY = 250
#: Steps of the fine stage over which the field's rate rises.
FIELD_RISE = 200
#: Views that joined in last and are looked at more often.
FRONTIER = 6
#: Times that a field may be begun again, at half the rate of the time before.
MOST_RESTARTS = 3


def views(frames: Frames, first: int = 0, device: torch.device | str = "cpu") -> list[View]:
    """Images of frames as tensors on a device; their indices count from `first`."""
    found = [
        View(torch.from_numpy(image).to(device), place(camera, device), t, first + i)
        for i, (image, camera, t) in enumerate(zip(frames.rgba, frames.cameras, frames.time))
    ]
    if frames.confidence is not None:
        for view, sure in zip(found, frames.confidence):
            # What counts fully takes the way it always took.
            view.confidence = None if (sure == 1).all() else torch.from_numpy(sure.copy()).to(device)
    return found


def optimise(
    fit: Fit,
    dynamic: Frames,
    static: Frames | None,
    settings: ReconstructionSettings,
    checkpoint: Path | None = None,
    log: Path | None = None,
) -> Fit:
    """Run what is left of both stages. Writes a checkpoint every `settings.checkpoint_seconds`.

    Raises WorkError when the loss stops being a number.
    """
    density = Density(settings.density)
    device = fit.gaussians.means.device
    perceptual = Perceptual(device) if settings.weights.lpips else None
    steps = {"coarse": settings.coarse_steps, "fine": settings.fine_steps}
    done = fit.step + (steps["coarse"] if fit.stage == "fine" else 0)
    started = last_saved = clock.monotonic()
    spent = fit.seconds
    with Progress("recon4d", sum(steps.values()), "step") as progress:
        progress.update(done)
        for stage in STAGES[STAGES.index(fit.stage) :]:
            _enter(fit, stage)
            warm = settings.warmup_share * steps[stage]
            # Synchronised cameras have their time of rest among the video's images.
            still = static if stage == "coarse" or settings.static_share > 0 else None
            pools = {half: _pools(dynamic, still, half, device) for half in (True, False)}
            n_frames = len(dict.fromkeys(dynamic.time))
            was_half = fit.step - settings.views_per_step < warm
            while fit.step < steps[stage]:
                half, before = fit.step < warm, fit.step
                if half != was_half:
                    # Losses at half and at full resolution do not compare.
                    read_pending(fit)
                    fit.passes, was_half = fit.passes.begun_anew(), half
                loss = take_step(fit, pools[half], settings, density, steps[stage], n_frames, perceptual)
                noted = _crossed(50, before, fit.step) or before == 0 or fit.step == steps[stage]
                loss = _sound(fit, loss) if noted else loss
                if not math.isfinite(loss):
                    raise WorkError(
                        f"recon4d: the loss is {loss} at {stage} step {fit.step}; "
                        "try another --seed or lower rates"
                    )
                fit.seconds = spent + clock.monotonic() - started
                if noted:
                    _write_down(fit, steps["coarse"] if stage == "fine" else 0, log)
                progress.update(
                    fit.step - before,
                    loss=f"{fit.passes.loss:.4f}",
                    psnr=f"{fit.passes.psnr:.1f}",
                    gaussians=len(fit.gaussians),
                )
                if stage == "fine" and fit.passes.lost and len(fit.restarts) < MOST_RESTARTS:
                    restart_field(fit, settings)
                if settings.patience and stage == "fine" and fit.passes.stalled > settings.patience:
                    break
                if checkpoint and clock.monotonic() - last_saved > settings.checkpoint_seconds:
                    read_pending(fit)
                    save_checkpoint(fit, checkpoint)
                    last_saved = clock.monotonic()
    return fit


def _enter(fit: Fit, stage: str) -> None:
    """Begin a stage, where the fit is not in it already."""
    if stage != fit.stage:
        read_pending(fit)
        fit.stage, fit.step = stage, 0
        fit.passes = fit.passes.begun_anew()
        fit.density = DensityState.empty(len(fit.gaussians), fit.gaussians.means.device)
    if fit.step == 0:
        fit.field.bind(fit.gaussians.means)


def _write_down(fit: Fit, earlier: int, log: Path | None) -> None:
    """A row of the history and of `log`; `earlier` steps were taken in the stage before."""
    row = {
        "stage": fit.stage,
        "step": fit.step + earlier,
        "loss": fit.passes.loss,
        "psnr": fit.passes.psnr,
        "n_gaussians": len(fit.gaussians),
        "seconds": round(fit.seconds, 2),
    }
    fit.history.append(row)
    if log is not None:
        write_text(log, "".join(json.dumps(r) + "\n" for r in fit.history))


def _crossed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` was reached on the way."""
    return now // every > before // every


def _pools(
    dynamic: Frames, static: Frames | None, half: bool, device: torch.device | str = "cpu"
) -> tuple[list[View], list[View]]:
    """Views of the video and of the static orbit, at full or half resolution."""
    size = max(dynamic.rgba.shape[1:3])
    chosen = [frames for frames in (dynamic, static) if frames is not None]
    if half:
        chosen = [frames.resized(max(size // 2, 1)) for frames in chosen]
    video = views(chosen[0], 0, device)
    return video, views(chosen[1], len(video), device) if static is not None else []


def _choose(
    fit: Fit,
    pools: tuple[list[View], list[View]],
    settings: ReconstructionSettings,
    progress: float,
    moving: bool,
) -> View:
    """Draw the view of a step."""
    dynamic, static = pools
    rests = settings.deformation.get("rests", [])
    joined = progress if fit.stage == "fine" else 0.0
    if rests and joined < settings.unroll_share:
        dynamic = _within_reach(dynamic, rests, joined / settings.unroll_share)
        if joined and float(torch.rand((), generator=fit.generator)) < settings.frontier_share:
            last = sorted(dynamic, key=lambda view: _since(rests, view.time))[-FRONTIER:]
            return last[int(torch.randint(len(last), (), generator=fit.generator))]
    share = settings.static_share if moving else 1.0
    pool = static if static and float(torch.rand((), generator=fit.generator)) < share else dynamic
    return pool[int(torch.randint(len(pool), (), generator=fit.generator))]


def _within_reach(pool: list[View], rests: Sequence[float], progress: float) -> list[View]:
    """The views near enough to a time of rest: motion is followed outwards from what is known.

    A limb that has moved further than its own width gives no gradient towards where it is; one frame on from
    a time that already fits, it has not.
    """
    reach = max(_since(rests, view.time) for view in pool) * (0.1 + progress)
    return [view for view in pool if _since(rests, view.time) <= reach] or pool


def _since(rests: Sequence[float], time: float) -> float:
    """How far a time is from the nearest time of rest."""
    return min(abs(time - rest) for rest in rests)


def take_step(
    fit: Fit,
    pools: tuple[list[View], list[View]],
    settings: ReconstructionSettings,
    density: Density,
    steps: int,
    n_frames: int,
    perceptual: Perceptual | None = None,
) -> float:
    """One update by the mean gradient of a few views. Returns their mean loss; `fit.passes` notes each view.

    `pools` are the views of the video and of the static orbit, `steps` the length of the stage, of which each
    view is one. On a GPU the loss is 0 here, and known after `read_pending`.
    """
    before, n_views = fit.step, len(pools[0]) + len(pools[1])
    progress = before / max(steps - 1, 1)
    moving = fit.stage == "fine" or progress >= settings.deform_from
    count = min(settings.views_per_step, max(steps - before, 1))
    tasks = [
        _task(fit, pools, settings, before + i, progress, moving, n_frames, perceptual) for i in range(count)
    ]
    _set_rates(fit, settings, progress)
    outcomes = _gradients(fit, settings, tasks)
    fit.adam.step(count, [name for name in fit.adam.groups if moving or name != "field"])
    for task, outcome in zip(tasks, outcomes):
        fit.step += 1
        fit.pending.append((task.view, fit.step, n_views, moving, outcome))
        if settings.density.every:
            camera = task.view.camera
            density.note(fit.density, outcome.grad_means2d, outcome.radii, camera.width, camera.height)
    if fit.capture is None:
        read_pending(fit)
    if fit.exposure is not None and moving and _crossed(SETTLE_EVERY, before, fit.step):
        fit.exposure.settle()
    _renew(fit, density, before, steps, n_views, moving)
    if fit.stage == "fine" and isinstance(fit.field, PathField):
        _settle_depths(fit.field, pools[0], settings, before / steps, fit.step / steps)
    return sum(outcome.loss for outcome in outcomes) / count if fit.capture is None else 0.0


def _settle_depths(
    field: PathField, video: list[View], settings: ReconstructionSettings, before: float, now: float
) -> None:
    """Settle how deep the paths run, where one of the shares is reached and one camera sees each time."""
    if not any(before < share <= now for share in settings.depth_shares):
        return
    if len({view.time for view in video}) < len(video):
        return
    joined = now / settings.unroll_share if settings.unroll_share else 1.0
    reached = _within_reach(video, field.config["rests"], joined) if field.config["rests"] else video
    views = sorted(video, key=lambda view: view.time)
    poses = torch.stack([view.camera.viewmats[0] for view in views]).cpu().double()
    field.settle_depths(
        torch.tensor([view.time for view in views], device=field.table.device),
        torch.linalg.inv(poses)[:, :3, 3],
        torch.tensor([any(view is one for one in reached) for view in views]),
    )


def read_pending(fit: Fit) -> float:
    """Take down what the views of the last steps gave, on a GPU by one wait for it. Their mean loss."""
    pending, fit.pending = fit.pending, []
    outcomes = [outcome for *_, outcome in pending]
    on_device = [outcome for outcome in outcomes if outcome.numbers is not None]
    if on_device:
        table = torch.stack([outcome.numbers for outcome in on_device]).tolist()
        for outcome, (loss, *rest) in zip(on_device, table):
            outcome.loss, outcome.judged = loss, judged_from(rest)
    for view, step, n_views, moving, outcome in pending:
        index, judged = view.index, outcome.judged
        fit.passes.note(index, judged.loss, judged.psnr, step, n_views)
        fit.passes.meet(judged.solid, view.truth)
        if fit.exposure is not None and moving:
            # Earlier the colours are not settled, and what a side lacks in colour would be taken for light.
            ours = judged.ours / fit.exposure.gain(index)
            fit.exposure.note(index, ours, judged.theirs, judged.solid)
    return sum(outcome.loss for outcome in outcomes) / max(len(outcomes), 1)


def _sound(fit: Fit, loss: float) -> float:
    """The loss, NaN where a parameter is none any more: what is NaN is not drawn, and its loss looks well."""
    loss = read_pending(fit) if fit.pending else loss
    return loss if math.isfinite(float(fit.adam.values.sum())) else math.nan


def _task(
    fit: Fit, pools: tuple[list[View], list[View]], settings: ReconstructionSettings, step: int,
    progress: float,
    moving: bool, n_frames: int, perceptual: Perceptual | None,
) -> Task:  # fmt: skip
    """Draw what step `step` compares, and by what."""
    view = _choose(fit, pools, settings, progress, moving)
    background = torch.rand(3, generator=fit.generator)
    due = moving and step % settings.regularise_every == 0
    return Task(
        view,
        background,
        moving,
        1 / max(n_frames - 1, 1) if due else None,
        perceptual if step % settings.lpips_every == 0 else None,
    )


def _gradients(fit: Fit, settings: ReconstructionSettings, tasks: list[Task]) -> list[Outcome]:
    """Each task's gradient in a row of Adam's; those that kernels know side by side."""
    shared = None
    found: dict[int, Outcome] = {}
    jobs = []
    for i, task in enumerate(tasks):
        row = fit.adam.row(i)
        if fit.capture is not None and is_graphable(fit, settings, task):
            graphs = fit.kept.setdefault("graphs", Graphs(fit.capture))
            found[i] = by_graphs(fit, settings, task, row, graphs)
            continue
        if not is_fused(fit, settings, task):
            found[i] = by_autograd(fit, settings, task, row)
            continue
        shared = shared or Activated(fit.gaussians)
        h, w = task.view.truth.shape[:2]
        if (i, h, w) not in fit.kept:
            fit.kept[i, h, w] = FusedView(fit, h, w, settings.eps2d)
        jobs.append((i, partial(fit.kept[i, h, w], fit, settings, task, row, shared)))
    for (i, _), outcome in zip(jobs, threads.each([job for _, job in jobs])):
        found[i] = outcome
    return [found[i] for i in range(len(tasks))]


def _renew(fit: Fit, density: Density, before: int, steps: int, n_views: int, moving: bool) -> None:
    """After an update: density control, skinning again, fading, each where one of its steps is due."""
    done = range(before + 1, fit.step + 1)
    if any(density.due(step, steps, n_views) for step in done):
        grown, origin = density.round(fit.gaussians, fit.density, fit.generator)
        replace_gaussians(fit, grown, origin)
    elif moving and _crossed(REBIND_EVERY, before, fit.step):
        # Centres have drifted: skin them again.
        fit.field.bind(fit.gaussians.means)
    if any(density.fades(step, steps) for step in done):
        density.fade(fit.gaussians)


def _set_rates(fit: Fit, settings: ReconstructionSettings, progress: float) -> None:
    """Rates fall within each stage; the field's own only in the fine one, where most of its work is.

    There it starts gently: at its full rate from the first step the network is thrown far off now and then.
    """
    fine = fit.stage == "fine"
    more = math.sqrt(settings.views_per_step)
    for name, group in fit.adam.groups.items():
        if name == "field":
            since = fit.step - (fit.restarts[-1] if fit.restarts else 0)
            rise = min(1.0, (since + 1) / FIELD_RISE) / 2 ** len(fit.restarts) if fine else 0.2
            group.rate = more * group.base * rise * (settings.rates.final**progress if fine else 1.0)
        else:
            own = settings.rates.fine if fine else 1.0
            group.rate = more * group.base * own * settings.rates.final**progress
