"""The loss of one view and its gradient by autograd.

Everything is premultiplied: images are compared on a background drawn per step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from orbit4d.datasets.images.lpips import LPIPS
from orbit4d.datasets.images.metric_weights import LPIPS_ALEX, NotMeasured, locate
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.recon4d.deformation.field import MovingNodes, NodeField
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.deformation.placing import Placing
from orbit4d.recon4d.fitting.fused_loss import TAPS, Judged, terms, terms_reference
from orbit4d.recon4d.fitting.passes import judge, judge_sums
from orbit4d.recon4d.fitting.settings import LossWeights, ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit
from orbit4d.recon4d.graphs import Graphs
from orbit4d.recon4d.raster.api import trusted
from orbit4d.recon4d.scene import Placed, draw


def depth_smoothness(depth: Tensor, alpha: Tensor) -> Tensor:
    """Charbonnier penalty on neighbouring depths [H, W, 1], where both pixels lie inside the object [].

    After RegNeRF (Niemeyer et al. 2022), with sqrt(d^2 + 1e-6) in place of d^2.
    """
    inside = (alpha > 0.5).to(depth.dtype)
    total = depth.new_zeros(())
    for axis in (0, 1):
        n = depth.shape[axis]
        difference = depth.narrow(axis, 1, n - 1) - depth.narrow(axis, 0, n - 1)
        both = inside.narrow(axis, 1, n - 1) * inside.narrow(axis, 0, n - 1)
        total = total + ((difference.square() + 1e-6).sqrt() * both).sum() / both.sum().clamp(min=1)
    return total


def image_terms(color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor) -> dict[str, Tensor]:
    """Terms of premultiplied color [H, W, 3] and alpha [H, W, 1] against truth [H, W, 4], premultiplied."""
    if min(color.shape[:2]) < TAPS:
        drawn = over_premultiplied(color, alpha, background)
        wanted = over_premultiplied(truth[..., :3], truth[..., 3:], background)
        return {"l1": F.l1_loss(drawn, wanted), "alpha": F.l1_loss(alpha, truth[..., 3:])}
    l1, alpha_l1, ssim = terms(color, alpha, truth, background)
    return {"l1": l1, "alpha": alpha_l1, "ssim": 1 - ssim}


class Perceptual:
    """LPIPS (AlexNet) as a term of the loss. Raises NotMeasured where its weights are absent."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.net = LPIPS.from_weights("alex")
        if torch.device(device).type != "cpu":
            self.net.to(device)

    def __call__(self, color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor) -> Tensor:
        """Distance [] of the images that `image_terms` compares; H and W at least 32."""
        drawn = over_premultiplied(color, alpha, background)
        wanted = over_premultiplied(truth[..., :3], truth[..., 3:], background)
        images = [image.permute(2, 0, 1)[None] for image in (drawn, wanted)]
        return self.net(*images)[0]


def why_no_lpips() -> str | None:
    """What keeps LPIPS from being computed here, None when nothing does."""
    try:
        locate(LPIPS_ALEX)
    except NotMeasured as error:
        return str(error)
    return None


def weigh(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Weighted sum of terms by name; a term of weight 0 is left out."""
    total = None
    for name, value in terms.items():
        weight = getattr(weights, name)
        if weight:
            total = value * weight if total is None else total + value * weight
    if total is None:
        raise ValueError("every term of the loss has weight 0")
    return total


@dataclass
class View:
    """One image to fit."""

    truth: Tensor
    """[H, W, 4] premultiplied."""
    camera: Placed
    time: float
    index: int
    """Among all training views; the video's come first."""
    confidence: Tensor | None = None
    """[H, W] by which the gradients of its image and alpha terms are multiplied; None is 1."""


@dataclass
class Task:
    """What one view of an update is to be compared by."""

    view: View
    background: Tensor
    """[3]"""
    moving: bool
    """Whether the field takes part."""
    frame_step: float | None = None
    """Time between two frames where the field's penalties are due, else None."""
    perceptual: Perceptual | None = None
    """Where LPIPS is due."""


@dataclass
class Outcome:
    """What one view of an update gave beside its gradient."""

    grad_means2d: Tensor
    """[N, 2] by the projected centres, pixels."""
    radii: Tensor
    """[N, 2]"""
    loss: float = math.nan
    judged: Judged | None = None
    numbers: Tensor | None = None
    """[6] in place of loss and judged where they lie on a device: loss, mean absolute and mean squared
    difference, and the last three of `Judged`. Reading them waits for it."""


def by_autograd(fit: Fit, settings: ReconstructionSettings, task: Task, row: Tensor) -> Outcome:
    """Loss of one view, and its gradient by every parameter into `row` (see `Adam.row`): the slow twin."""
    view, weights = task.view, settings.weights
    moved = fit.field.move(fit.gaussians, view.time) if task.moving else fit.gaussians
    with_depth = weights.depth_smoothness > 0
    mode = "RGB+ED" if with_depth else "RGB"
    drawn, alpha, meta = draw(moved, view.camera, False, render_mode=mode, eps2d=settings.eps2d)
    gain = fit.exposure.gain(view.index) if fit.exposure is not None else 1.0
    color = drawn[..., :3] * gain if fit.exposure is not None else drawn[..., :3]
    color, alpha = (_counted(plane, view.confidence) for plane in (color, alpha))
    terms = image_terms(color, alpha, view.truth, task.background)
    if task.perceptual is not None:
        terms["lpips"] = task.perceptual(color, alpha, view.truth, task.background)
    if with_depth:
        terms["depth_smoothness"] = depth_smoothness(drawn[..., 3:], alpha)
    if task.frame_step is not None:
        penalties = fit.field.regularisers(view.time, task.frame_step)
        terms |= {name: value * settings.regularise_every for name, value in penalties.items()}
    loss = weigh(terms, weights)
    names = [name for name in fit.adam.groups if task.moving or name != "field"]
    leaves = [leaf for name in names for leaf in fit.adam.leaves[name]]
    *found, by_centre = torch.autograd.grad(loss, [*leaves, meta["means2d"]], allow_unused=True)
    for name in names:
        own = len(fit.adam.leaves[name])
        fit.adam.put(row, name, found[:own])
        found = found[own:]
    judged = judge(color.detach(), alpha.detach(), view.truth)
    return Outcome(by_centre[0], meta["radii"][0], loss.item(), judged)


def _counted(plane: Tensor, confidence: Tensor | None) -> Tensor:
    """A plane [H, W, C] as it is, whose gradient is multiplied by the confidence [H, W]."""
    if confidence is None:
        return plane
    kept = plane.detach()
    return kept + (plane - kept) * confidence[..., None]


def is_graphable(fit: Fit, settings: ReconstructionSettings, task: Task) -> bool:
    """Whether `by_graphs` knows everything that this view's loss is made of."""
    plain = task.perceptual is None and not settings.weights.depth_smoothness
    plain = plain and task.view.confidence is None
    known = type(fit.field) in (NodeField, PathField) and not fit.gaussians.sh_degree
    return plain and known and min(task.view.truth.shape[:2]) >= TAPS


def by_graphs(fit: Fit, settings: ReconstructionSettings, task: Task, row: Tensor, graphs: Graphs) -> Outcome:
    """`by_autograd` with the field and the loss as CUDA graphs around the rasteriser; waits for nothing."""
    g, view, weights = fit.gaussians, task.view, settings.weights
    device = g.means.device
    raw = (g.means, g.quats, g.log_scales, g.logits, g.colors)
    loss = g.means.new_zeros(())
    if task.moving:
        times = [view.time]
        if (step := task.frame_step) is not None:
            times += [max(view.time - step, 0.0), min(view.time + step, 1.0)]
        at = torch.tensor(times).to(device, non_blocking=True)
        field = fit.field
        assert isinstance(field, MovingNodes)
        placed = graphs(f"placing {len(times)}", lambda: Placing(field), *raw, at)
        spread = placed[:5]
        for value, weight in zip(placed[5:], (weights.rigidity, weights.smoothness)):
            loss = loss + value * (weight * settings.regularise_every)
    else:
        spread = (g.means, g.quats, g.scales, g.opacities, g.colors.clamp(0, 1))
    camera = view.camera
    means, quats, scales, opacities, colors = spread
    drawn, alphas, meta = trusted(
        means, quats, scales, opacities, colors, camera.viewmats, camera.Ks, camera.width, camera.height,
        eps2d=settings.eps2d,
    )  # fmt: skip
    gain = g.means.new_full((), fit.exposure.gain(view.index) if fit.exposure is not None else 1.0)
    compared = graphs(
        "loss", lambda: _compared, drawn[0], alphas[0], view.truth, task.background.to(device), gain
    )
    for value, weight in zip(compared[:3], (weights.l1, weights.alpha, weights.ssim)):
        loss = loss + value * weight
    names = [name for name in fit.adam.groups if task.moving or name != "field"]
    leaves = [leaf for name in names for leaf in fit.adam.leaves[name]]
    *found, by_centre = torch.autograd.grad(loss, [*leaves, meta["means2d"]], allow_unused=True)
    for name in names:
        own = len(fit.adam.leaves[name])
        fit.adam.put(row, name, found[:own])
        found = found[own:]
    numbers = torch.cat([loss.detach().reshape(1), compared[3].detach()])
    return Outcome(by_centre[0], meta["radii"][0], numbers=numbers)


def _compared(
    color: Tensor, alpha: Tensor, truth: Tensor, background: Tensor, gain: Tensor
) -> tuple[Tensor, ...]:
    """L1, alpha, 1 - SSIM, and five numbers for `judged_from`."""
    lit = color * gain
    l1, alpha_l1, ssim = terms_reference(lit, alpha, truth, background)
    return l1, alpha_l1, 1 - ssim, judge_sums(lit, alpha, truth)
