"""The two-stage optimiser: coarse without deformation, then fine with it.

Coarse: the static orbit when one is given, else the dynamic orbit as if it stood still. Fine: the dynamic
orbit through the deformation field, the static orbit mixed in at its time.
After Diffusion4D section 2.2 (arXiv 2405.16645) and hustvl/4DGaussians (train.py).

One seed makes a CPU run repeatable bit for bit, interrupted or not, on one number of threads: every draw
comes from one generator whose state is in the checkpoint. (The kernels' sums do not depend on the threads;
those of torch's matrix products in the field do, in the last digit.)
"""

from __future__ import annotations

import json
import math
import time as clock
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.errors import WorkError
from orbit4d.datasets.progress import Progress
from orbit4d.recon4d.deformation import Deformation, build_field
from orbit4d.recon4d.density import Density, DensityState
from orbit4d.recon4d.frames import Frames
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.losses import depth_smoothness, image_terms, weigh
from orbit4d.recon4d.scene import Placed, draw, place
from orbit4d.recon4d.settings import Settings

STAGES = ("coarse", "fine")
#: Steps between two measurements of PSNR for the log.
PSNR_EVERY = 10


@dataclass
class View:
    """One image to fit."""

    truth: Tensor
    """[H, W, 4] premultiplied."""
    camera: Placed
    time: float


@dataclass
class Fit:
    """Everything that changes during a run; what a checkpoint holds."""

    gaussians: Gaussians
    field: Deformation
    adam: torch.optim.Adam
    generator: torch.Generator
    density: DensityState
    stage: str = "coarse"
    step: int = 0
    """Steps done in the stage."""
    seconds: float = 0.0
    """Time spent, over all runs."""
    best: tuple[float, int] = (math.inf, 0)
    """Lowest smoothed loss and its step, for early stopping."""
    smoothed: float = math.inf
    psnr: float = 0.0
    """Of the last view that was measured, on its drawn background, dB."""
    history: list[dict[str, Any]] = field(default_factory=list)


def views(frames: Frames) -> list[View]:
    """Images of frames as tensors."""
    return [
        View(torch.from_numpy(image), place(camera), t)
        for image, camera, t in zip(frames.rgba, frames.cameras, frames.time)
    ]


def new_fit(gaussians: Gaussians, settings: Settings, seed: int) -> Fit:
    """A fit at its first step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deformation = build_field(settings.deformation)
    leaves = _leaves(gaussians)
    return Fit(
        leaves, deformation, _adam(leaves, deformation, settings), generator, DensityState.empty(len(leaves))
    )


def _leaves(gaussians: Gaussians) -> Gaussians:
    return Gaussians(**{name: t.detach().clone().requires_grad_() for name, t in gaussians.tensors().items()})


def _adam(gaussians: Gaussians, deformation: Deformation, settings: Settings) -> torch.optim.Adam:
    rates = settings.rates
    groups: list[dict[str, Any]] = [
        {"params": [tensor], "lr": getattr(rates, name), "base": getattr(rates, name), "name": name}
        for name, tensor in gaussians.tensors().items()
    ]
    groups.append(
        {"params": list(deformation.parameters()), "lr": rates.field, "base": rates.field, "name": "field"}
    )
    return torch.optim.Adam(groups, eps=1e-15, fused=True)


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
                fit.best, fit.smoothed = (math.inf, 0), math.inf
                fit.density = DensityState.empty(len(fit.gaussians))
            if fit.step == 0:
                fit.field.bind(fit.gaussians.means)
            pools = {half: _pools(stage, dynamic, static, half) for half in (True, False)}
            while fit.step < steps[stage]:
                half = fit.step < settings.warmup_share * steps[stage]
                loss = take_step(fit, pools[half], settings, density, steps[stage], len(dynamic))
                if not math.isfinite(loss):
                    raise WorkError(
                        f"recon4d: the loss is {loss} at {stage} step {fit.step}; "
                        "try another --seed or lower rates"
                    )
                fit.smoothed = loss if math.isinf(fit.smoothed) else 0.98 * fit.smoothed + 0.02 * loss
                fit.seconds = spent + clock.monotonic() - started
                if fit.step % 50 == 0 or fit.step == steps[stage]:
                    row = {
                        "stage": stage,
                        "step": fit.step + (steps["coarse"] if stage == "fine" else 0),
                        "loss": fit.smoothed,
                        "psnr": fit.psnr,
                        "n_gaussians": len(fit.gaussians),
                        "seconds": round(fit.seconds, 2),
                    }
                    fit.history.append(row)
                    if log is not None:
                        log.write_text("".join(json.dumps(r) + "\n" for r in fit.history))
                progress.update(
                    loss=f"{fit.smoothed:.4f}", psnr=f"{fit.psnr:.1f}", gaussians=len(fit.gaussians)
                )
                if fit.smoothed < fit.best[0] * 0.999:
                    fit.best = (fit.smoothed, fit.step)
                if settings.patience and stage == "fine" and fit.step - fit.best[1] > settings.patience:
                    break
                if checkpoint and clock.monotonic() - last_saved > settings.checkpoint_seconds:
                    save_checkpoint(fit, checkpoint)
                    last_saved = clock.monotonic()
    return fit


def _pools(stage: str, dynamic: Frames, static: Frames | None, half: bool) -> tuple[list[View], list[View]]:
    """(views drawn mostly, views drawn sometimes) of a stage, at full or half resolution."""
    size = max(dynamic.rgba.shape[1:3])
    chosen = [dynamic, static] if static is not None else [dynamic]
    if half:
        chosen = [frames.resized(max(size // 2, 1)) for frames in chosen]
    sets = [views(frames) for frames in chosen]
    if static is None:
        return sets[0], []
    return (sets[1], []) if stage == "coarse" else (sets[0], sets[1])


def take_step(
    fit: Fit,
    pools: tuple[list[View], list[View]],
    settings: Settings,
    density: Density,
    steps: int,
    n_frames: int,
) -> float:
    """One view, one update. Returns the loss; every `PSNR_EVERY` steps `fit.psnr` becomes the view's."""
    draw_random = lambda *shape: torch.rand(*shape, generator=fit.generator)  # noqa: E731
    often, sometimes = pools
    pool = sometimes if sometimes and draw_random(()).item() < settings.static_share else often
    view = pool[int(torch.randint(len(pool), (), generator=fit.generator))]
    background = draw_random(3)
    fine = fit.stage == "fine"
    g = fit.gaussians
    moved = g
    if fine:
        means, quats, log_scales = fit.field(g.means, g.quats, g.log_scales, view.time)
        moved = Gaussians(means, log_scales, quats, g.logits, g.colors)
    weights = settings.weights
    with_depth = weights.depth_smoothness > 0
    color, alpha, meta = draw(moved, view.camera, render_mode="RGB+ED" if with_depth else "RGB")
    terms = image_terms(color[..., :3], alpha, view.truth, background)
    if with_depth:
        terms["depth_smoothness"] = depth_smoothness(color[..., 3:], alpha)
    if fine:
        terms |= fit.field.regularisers(view.time, 1 / max(n_frames - 1, 1))
    loss = weigh(terms, weights)

    progress = fit.step / max(steps - 1, 1)
    for group in fit.adam.param_groups:
        own = settings.rates.fine if fine and group["name"] != "field" else 1.0
        group["lr"] = group["base"] * own * settings.rates.final**progress
    fit.adam.zero_grad(set_to_none=True)
    loss.backward()
    fit.adam.step()
    fit.step += 1

    if settings.density.every:
        density.observe(fit.density, meta["means2d"], meta["radii"], view.camera.width, view.camera.height)
        if density.due(fit.step, steps):
            grown, origin = density.round(fit.gaussians, fit.density, fit.generator)
            _replace_gaussians(fit, grown, origin)
        if settings.density.reset_every and fit.step % settings.density.reset_every == 0:
            density.fade(fit.gaussians)
    elif fine and fit.step % 250 == 0:
        # Centres have drifted: skin them anew.
        fit.field.bind(fit.gaussians.means)
    if fit.step % PSNR_EVERY == 0:
        with torch.no_grad():
            wanted = view.truth[..., :3] + (1 - view.truth[..., 3:]) * background
            mse = (color[..., :3] + (1 - alpha) * background - wanted).square().mean().item()
        fit.psnr = -10 * math.log10(max(mse, 1e-10))
    return loss.item()


@torch.no_grad()
def _replace_gaussians(fit: Fit, grown: Gaussians, origin: Tensor) -> None:
    """Swap the Gaussians; survivors keep their moments in Adam, newcomers start with none."""
    leaves = _leaves(grown)
    for group in fit.adam.param_groups:
        if group["name"] == "field":
            continue
        old = group["params"][0]
        new = getattr(leaves, group["name"])
        state = fit.adam.state.pop(old, {})
        for key in ("exp_avg", "exp_avg_sq"):
            if key in state:
                moments = torch.zeros_like(new)
                moments[origin >= 0] = state[key][origin[origin >= 0]]
                state[key] = moments
        if state:
            fit.adam.state[new] = state
        group["params"] = [new]
    fit.gaussians = leaves
    fit.density = DensityState.empty(len(leaves))
    fit.field.bind(leaves.means)


def save_checkpoint(fit: Fit, path: Path) -> None:
    """Everything a resumed run needs, in one atomic put."""
    state = {
        "gaussians": {name: t.detach() for name, t in fit.gaussians.tensors().items()},
        "field": fit.field.state_dict(),
        "adam": fit.adam.state_dict(),
        "generator": fit.generator.get_state(),
        "density": {"gradient": fit.density.gradient, "seen": fit.density.seen},
        "bound": fit.field.bound_means,
        "plain": {
            "stage": fit.stage,
            "step": fit.step,
            "seconds": fit.seconds,
            "best": list(fit.best),
            "smoothed": fit.smoothed,
            "history": fit.history,
        },
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path, settings: Settings) -> Fit:
    """Inverse of `save_checkpoint`. Raises WorkError for a damaged file."""
    try:
        state = torch.load(path, weights_only=True)
        fit = new_fit(Gaussians(**state["gaussians"]), settings, 0)
        fit.field.load_state_dict(state["field"])
        fit.adam.load_state_dict(state["adam"])
        fit.generator.set_state(state["generator"])
        fit.density = DensityState(**state["density"])
        if state["bound"] is not None:
            fit.field.bind(state["bound"])
        plain = state["plain"]
        fit.stage, fit.step, fit.seconds = plain["stage"], plain["step"], plain["seconds"]
        fit.best, fit.smoothed = tuple(plain["best"]), plain["smoothed"]
        fit.history = plain["history"]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, TypeError) as error:
        raise WorkError(f"{path}: damaged checkpoint ({error}); delete it to start anew") from None
    return fit
