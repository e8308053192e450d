"""Loss and gradient of one view without autograd: kernels one after the other in kept buffers (CPU).

What autograd and its small operations cost was half a step. `losses.by_autograd` is the slow twin and the way
of everything that has no kernels here: other fields, harmonics, LPIPS, depth, tiny images, GPUs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.recon4d.deformation.field import Deformation, NodeField
from orbit4d.recon4d.deformation.node_motion import NodeMotion, has_kernels
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.deformation.paths.path_motion import PathMotion
from orbit4d.recon4d.deformation.residual import ResidualField
from orbit4d.recon4d.deformation.residual_motion import ResidualMotion
from orbit4d.recon4d.fitting.fused_loss import TAPS, Comparison
from orbit4d.recon4d.fitting.losses import Outcome, Task
from orbit4d.recon4d.fitting.settings import LossWeights, ReconstructionSettings
from orbit4d.recon4d.fitting.state import Fit
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.raster.canvas import Canvas, Spread

Float = npt.NDArray[np.float32]
Motion = NodeMotion | PathMotion | ResidualMotion


def is_fused(fit: Fit, settings: ReconstructionSettings, task: Task) -> bool:
    """Whether kernels know everything that this view's loss is made of."""
    means, weights = fit.gaussians.means, settings.weights
    plain = task.perceptual is None and not weights.depth_smoothness and not fit.gaussians.sh_degree
    size = min(task.view.truth.shape[:2])
    return (
        plain
        and means.device.type == "cpu"
        and size >= TAPS
        and (not task.moving or _is_known(fit.field))
        and bool(weights.l1 or weights.ssim or weights.alpha)
    )


def _is_known(field: Deformation) -> bool:
    """Whether there are kernels for this field."""
    if isinstance(field, PathField):
        return field.table.device.type == "cpu" and field.table.dtype == torch.float32
    return has_kernels(field)


def _motion_of(field: Deformation, values: Float, n: int) -> Motion:
    """The kernels of a field, whose parameters are `values`, for N Gaussians."""
    if isinstance(field, PathField):
        return PathMotion(field, values, n)
    assert isinstance(field, NodeField)
    return (ResidualMotion if isinstance(field, ResidualField) else NodeMotion)(field, values, n)


class Activated:
    """What the views of an update share: the Gaussians as they are drawn, before they move."""

    def __init__(self, gaussians: Gaussians) -> None:
        self.raw = {name: tensor.detach().numpy() for name, tensor in gaussians.tensors().items()}
        self.scales = np.exp(self.raw["log_scales"])
        with np.errstate(over="ignore"):  # a logit of -90: exp is infinite, the opacity 0
            self.opacities = np.reciprocal(np.exp(-self.raw["logits"]) + np.float32(1.0))
        self.colors = self.raw["colors"].clip(0.0, 1.0)


class FusedView:
    """Buffers for views [H, W] of N Gaussians, one view at a time."""

    def __init__(self, fit: Fit, h: int, w: int, eps2d: float) -> None:
        n = len(fit.gaussians)
        self.canvas, self.comparison = Canvas(n, w, h, eps2d), Comparison(h, w)
        means, quats, scales, colors = (np.empty((n, columns), np.float32) for columns in (3, 4, 3, 3))
        self.grads = Spread(means, quats, scales, np.empty(n, np.float32), colors)
        self.lit = np.empty((h, w, 3), np.float32)
        self.motion: Motion | None = None
        self._to: dict[str, Float] = {}

    def __call__(
        self, fit: Fit, settings: ReconstructionSettings, task: Task, row: torch.Tensor, shared: Activated
    ) -> Outcome:
        """As `by_autograd`; always of the same fit, Adam and row."""
        view, raw = task.view, shared.raw
        means, quats, colors = raw["means"], raw["quats"], shared.colors
        motion = self._moved(fit, task, means, quats) if task.moving else None
        if motion is not None:
            means, quats = motion.means, motion.quats
        if isinstance(motion, ResidualMotion):
            colors = motion.lit(raw["colors"])
        spread = Spread(means, quats, shared.scales, shared.opacities, colors)
        color, alpha = self.canvas.draw(spread, view.camera.viewmats[0].numpy(), view.camera.Ks[0].numpy())
        gain = None if fit.exposure is None else np.float32(fit.exposure.gain(view.index))
        if gain is not None:
            color = np.multiply(color, gain, out=self.lit)
        weights = settings.weights
        terms = self.comparison.terms(color, alpha, view.truth.numpy(), task.background.numpy())
        grad_color, grad_alpha = self.comparison.pull(weights.l1, weights.alpha, -weights.ssim)
        if gain is not None:
            grad_color *= gain
        if view.confidence is not None:
            sure = view.confidence.numpy()[..., None]
            grad_color *= sure
            grad_alpha *= sure
        self.canvas.pull(spread, grad_color, grad_alpha, self.grads)
        penalties = self._put(fit, settings, task, row, shared)
        loss = weights.l1 * terms[0] + weights.alpha * terms[1] + weights.ssim * (1 - terms[2]) + penalties
        centres, radii = torch.from_numpy(self.canvas.grad_means2d), torch.from_numpy(self.canvas.radii)
        return Outcome(centres, radii, loss, self.comparison.judged())

    def _moved(self, fit: Fit, task: Task, means: Float, quats: Float) -> Motion:
        if self.motion is None:
            values = fit.adam.part(fit.adam.values, "field").numpy()
            self.motion = _motion_of(fit.field, values, len(means))
        self.motion.move(means, quats, task.view.time, task.frame_step)
        return self.motion

    def _put(
        self, fit: Fit, settings: ReconstructionSettings, task: Task, row: torch.Tensor, shared: Activated
    ) -> float:
        """Gradients by the parameters into `row`; the value of the field's penalties."""
        grads, to = self.grads, self._to
        if not to:
            for name in (*_NAMES, "field"):
                run = fit.adam.part(row, name).numpy()
                to[name] = run if name == "field" else run.reshape(shared.raw[name].shape)
        np.multiply(grads.scales, shared.scales, out=to["log_scales"])
        np.multiply(shared.opacities, grads.opacities, out=to["logits"])
        to["logits"] *= np.float32(1.0) - shared.opacities
        # A colour that is clamped has no slope; torch's clamp has one at its bounds.
        if task.moving and isinstance(self.motion, ResidualMotion):
            self.motion.pull_colors(grads.colors, to["colors"], to["field"])
        else:
            np.multiply(grads.colors, shared.raw["colors"] == shared.colors, out=to["colors"])
        if not task.moving or self.motion is None:
            to["means"][:] = grads.means
            to["quats"][:] = grads.quats
            return 0.0
        weights = penalty_weights(settings.weights, settings) if task.frame_step is not None else None
        self.motion.pull(
            shared.raw["means"], shared.raw["quats"], grads.means, grads.quats, to["means"], to["quats"],
            to["field"], weights,
        )  # fmt: skip
        if weights is None:
            return 0.0
        terms = self.motion.terms
        return weights[0] * terms["rigidity"] + weights[1] * terms.get("smoothness", 0.0)


_NAMES = ("means", "log_scales", "quats", "logits", "colors")


def penalty_weights(weights: LossWeights, settings: ReconstructionSettings) -> tuple[float, float]:
    """Of rigidity and smoothness in a step that pays for them."""
    return weights.rigidity * settings.regularise_every, weights.smoothness * settings.regularise_every
