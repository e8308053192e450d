"""What is minimised: the base's own prediction target, and the motion reconstruction loss.

Functions take a scheduler for its noising table alone, and latents [B, C, F, h, w] with t [B]. Arithmetic is
float32 whatever the latents are: 1 - alphas_cumprod has no digits left in half precision at small t.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from orbit4d.model.diffusion.flow import TRAIN_STEPS, flow_target, is_flow


def signal_and_noise(scheduler: DDIMScheduler, t: Tensor, ndim: int = 5) -> tuple[Tensor, Tensor]:
    """sqrt(alphas_cumprod[t]) and sqrt(1 - alphas_cumprod[t]), float32 [B, 1, ..] with `ndim` axes; of flow
    matching, where t is 1000 sigma, 1 - sigma and sigma."""
    if is_flow(scheduler):
        level = t.float().view(-1, *(1,) * (ndim - 1)) / TRAIN_STEPS
        return 1 - level, level
    roots = _roots(scheduler, t.device)
    signal, noise = roots[:, t].view(2, -1, *(1,) * (ndim - 1))
    return signal, noise


#: Both tables of a scheduler on each device they were asked for on, and the table they were made from.
_tables: WeakKeyDictionary[DDIMScheduler, dict[torch.device, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def _roots(scheduler: DDIMScheduler, device: torch.device) -> Tensor:
    """[2, T] float32 on `device`. The whole table goes to t's device, not t to the table's, and stays there:
    either way at every step would stall a GPU, and a recorded step copies nothing from the host."""
    held, table = _tables.setdefault(scheduler, {}), scheduler.alphas_cumprod
    if device not in held or held[device][0] is not table:
        alphas_cumprod = table.cpu().double()
        roots = torch.stack([alphas_cumprod, 1.0 - alphas_cumprod]).sqrt().float().to(device)
        held[device] = table, roots
    return held[device][1]


def add_noise(scheduler: DDIMScheduler, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Forward noising x_t = sqrt(ac) x0 + sqrt(1 - ac) noise, float32."""
    a, s = signal_and_noise(scheduler, t, x0.ndim)
    return a * x0.float() + s * noise.float()


def prediction_target(scheduler: DDIMScheduler, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network should output: noise, velocity sqrt(ac) noise - sqrt(1 - ac) x0, or x0; float32."""
    if is_flow(scheduler):
        return flow_target(x0.float(), noise.float())
    kind = scheduler.config["prediction_type"]
    if kind == "epsilon":
        return noise.float()
    if kind == "sample":
        return x0.float()
    a, s = signal_and_noise(scheduler, t, x0.ndim)
    return a * noise.float() - s * x0.float()


def clean_estimate(scheduler: DDIMScheduler, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """One-step estimate of x0 from the network's output [B, ...] at t [B], float32, like `x_t`.

    From noise it divides by sqrt(ac), which is 0 at a zero-SNR last step: velocity has no such pole.
    """
    return convert_prediction(scheduler, output, x_t, t, "sample")


def convert_prediction(scheduler: DDIMScheduler, output: Tensor, x_t: Tensor, t: Tensor, to: str) -> Tensor:
    """The same prediction said as `to`: "epsilon", "v_prediction" or "sample" (x0); float32.

    At fixed t and x_t each is affine in the others (x_t = a x0 + s eps, v = a eps - s x0, a^2 + s^2 = 1).
    """
    if is_flow(scheduler):
        return _converted_flow(scheduler, output.float(), x_t.float(), t, to)
    source, output, x_t = scheduler.config["prediction_type"], output.float(), x_t.float()
    if source == to:
        return output
    a, s = signal_and_noise(scheduler, t, x_t.ndim)
    if source == "v_prediction":
        return a * x_t - s * output if to == "sample" else a * output + s * x_t
    if source == "epsilon":
        x0, eps = (x_t - s * output) / a, output
    else:
        x0, eps = output, (x_t - a * output) / s
    return {"sample": x0, "epsilon": eps}[to] if to != "v_prediction" else a * eps - s * x0


def _converted_flow(scheduler: DDIMScheduler, velocity: Tensor, x_t: Tensor, t: Tensor, to: str) -> Tensor:
    signal, level = signal_and_noise(scheduler, t, x_t.ndim)
    if to == "sample":
        return x_t - level * velocity
    if to == "epsilon":
        return x_t + signal * velocity
    raise ValueError(f"a velocity of flow matching is no {to}")


def residual_estimate(
    scheduler: DDIMScheduler, output: Tensor, source: Tensor, x_t: Tensor, t: Tensor, spread: float
) -> Tensor:
    """Clean estimate of a network whose output is what is left after the best linear guess, float32.

    The guess takes x0 - source as normal with standard deviation `spread`; the output then has unit variance
    at every noise level, and counts for little where x_t shows x0 already (Karras et al. 2022, arXiv
    2206.00364, section 5, with `source` in place of 0). Without signal it is source + spread * output.
    """
    a, s = signal_and_noise(scheduler, t, x_t.ndim)
    variance = (a * spread).square() + s.square()
    guess = source + (a * spread**2 / variance) * (x_t.float() - a * source)
    return guess + (spread * s / variance.sqrt()) * output.float()


def diffusion_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, float32 [B]."""
    return (output.float() - target.float()).square().flatten(1).mean(1)


def motion_of_latents(z: Tensor, z_static: Tensor, per_element: bool = False) -> Tensor:
    """m(z) = (1/T) ||z - z_static||^2 of each clip, float32 [B], over latents [B, C, T, h, w].

    Diffusion4D (arXiv 2405.16645) eq. 2: a squared norm, hence a sum over channels and pixels. `per_element`
    divides by their number C h w, so that the value does not grow with the resolution.
    """
    squared = (z.float() - z_static.float()).square().flatten(1)
    return squared.mean(1) if per_element else squared.sum(1) / z.shape[2]


def motion_reconstruction_loss(
    z0: Tensor, z0_estimate: Tensor, z_static: Tensor, per_element: bool = False, weight: Tensor | None = None
) -> Tensor:
    """L_mr = ||m(z0) - m(z0_estimate)||^2 of each clip, float32 [B] (arXiv 2405.16645, eq. 2).

    z0: clean latents; z0_estimate: the one-step clean estimate (`clean_estimate`), which gradients flow
        through;
    z_static: latents of the static orbit at the same cameras.
    `per_element`: measure m per latent element; the published sum is (C h w)^2 times larger, a factor that
    the unpublished weight omega takes up. `weight` [B] scales each clip's term, say by alphas_cumprod[t],
    since an estimate made from predicted noise carries the error of that noise times sqrt((1 - ac) / ac).
    """
    error = motion_of_latents(z0, z_static, per_element) - motion_of_latents(
        z0_estimate, z_static, per_element
    )
    loss = error.square()
    return loss if weight is None else loss * weight.to(loss)


def offset_noise(noise: Tensor, weight: float, generator: torch.Generator | None = None) -> Tensor:
    """Add a constant per sample, channel and frame to `noise` [B, C, F, h, w] (VideoMV's image base: 0.1)."""
    if weight == 0:
        return noise
    shape = (*noise.shape[:3], 1, 1)
    device = noise.device if generator is None else generator.device
    constant = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    return noise + weight * constant.to(noise)
