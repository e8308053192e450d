"""Flow matching: levels, noising, weights of training (KwaiVGI/SynCamMaster 43ea4d9; Wan 2.1).

    x = (1 - sigma) x0 + sigma noise,  target = noise - x0,  the network is given t = 1000 sigma

Levels of n steps: u = 1 - k / n, sigma = shift u / (1 + (shift - 1) u), k = 0 .. n - 1, then 0. Steps between
them are `guided.schedules.FlowEuler`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

#: t that the network is given at sigma = 1, and the number of levels that training draws from.
TRAIN_STEPS = 1000
#: Shift of Wan's schedule, in training and sampling.
SHIFT = 5.0


def flow_levels(steps: int, shift: float = SHIFT) -> npt.NDArray[np.float64]:
    """Levels sigma [steps + 1], falling from 1 to 0. ValueError for no steps or a shift that is not positive.

    diffusers' `FlowMatchEulerDiscreteScheduler(shift=5)` gives them with
    `set_timesteps(sigmas=linspace(1, 0, n + 1)[:-1])`, not with `set_timesteps(n)`.
    """
    if steps < 1 or not shift > 0:
        raise ValueError(f"a schedule needs steps and a positive shift, got {steps} and {shift}")
    u = 1 - np.arange(steps + 1, dtype=np.float64) / steps
    return shift * u / (1 + (shift - 1) * u)


@dataclass(frozen=True)
class FlowTable:
    """What training draws from: TRAIN_STEPS levels, one of which a scene's views share."""

    sigmas: Tensor
    """[1000] float32, falling from 1 to nearly 0."""
    timesteps: Tensor
    """[1000] float32, 1000 sigma."""
    weights: Tensor
    """[1000] float32, mean 1: largest at t = 500, 0 at t = 1000."""

    @classmethod
    def make(cls, shift: float = SHIFT) -> FlowTable:
        """The table of a shift."""
        sigmas = flow_levels(TRAIN_STEPS, shift)[:-1]
        timesteps = TRAIN_STEPS * sigmas
        y = np.exp(-2 * ((timesteps - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
        weights = (y - y.min()) * (TRAIN_STEPS / (y - y.min()).sum())
        return cls(*(torch.from_numpy(values).float() for values in (sigmas, timesteps, weights)))

    def to(self, device: torch.device) -> FlowTable:
        """The same on a device."""
        return FlowTable(*(values.to(device) for values in (self.sigmas, self.timesteps, self.weights)))


class FlowMatchScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """diffusers' Euler steps of flow matching at Wan's levels, and what training draws from."""

    def set_timesteps(  # type: ignore[override]  # the number of steps alone, as DDIM takes it
        self, num_inference_steps: int, device: str | torch.device | None = None, **kwargs: Any
    ) -> None:
        """Levels of `flow_levels(num_inference_steps, shift)`."""
        sigmas = np.linspace(1.0, 0.0, num_inference_steps + 1)[:-1].tolist()
        super().set_timesteps(sigmas=sigmas, device=device)  # type: ignore[arg-type]  # None is its default

    def drawn(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps 1000 sigma and weights [B] float32 of uniform draws `u` [B] in [0, 1): more is
        noisier."""
        table = FlowTable.make(self.config["shift"])
        k = TRAIN_STEPS - 1 - (u * TRAIN_STEPS).long().clamp(0, TRAIN_STEPS - 1)
        return table.timesteps[k], table.weights[k]


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler is one of flow matching, not of variance-preserving diffusion."""
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler)


def flow_noised(x0: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """(1 - sigma) x0 + sigma noise; `sigma` [] or one per row of [n, ...]."""
    level = _per_row(sigma, x0)
    return (1 - level) * x0 + level * noise


def flow_target(x0: Tensor, noise: Tensor) -> Tensor:
    """The velocity that the network learns."""
    return noise - x0


def flow_clean(velocity: Tensor, x_t: Tensor, sigma: Tensor | float) -> Tensor:
    """The one-step clean estimate z_0 = z_t - sigma v, float32; gradients flow through `velocity`."""
    return x_t.float() - _per_row(sigma, velocity.float()) * velocity.float()


def _per_row(sigma: Tensor | float, like: Tensor) -> Tensor:
    level = torch.as_tensor(sigma, device=like.device).to(like.dtype)
    return level.reshape(-1, *[1] * (like.ndim - 1)) if level.ndim else level
