"""What a prior is to score distillation: noise and clean estimates of noisy samples, and where it comes
from.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

Branch = Literal["cond", "uncond"]
Kind = Literal["pretrained", "trained-here", "random", "analytic"]


@runtime_checkable
class ScoreModel(Protocol):
    """A diffusion prior. Images are [B, C, h, w], clips [B, C, F, h, w]; t is int64 [B], an index of the
    table.

    Nothing here is differentiated, and nothing is guided: one branch, one estimate.
    """

    name: str
    """Short name, say "zero123-xl"; errors and logs name it."""
    kind: Kind
    """Where its weights come from; printed, and stored with results."""
    alphas_cumprod: Tensor
    """float64 [T]"""
    calls: int
    """Evaluations so far, of one branch of one sample each."""
    unconditional: bool
    """Whether there is a branch without conditions; else guidance is the conditioned branch."""

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """Noise estimate like z_t [B, C, ...] at timesteps t [B]."""

    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond"
    ) -> Tensor:
        """Clean estimate like z_t [B, C, ...] at timesteps t [B]."""


def coefficients(alphas_cumprod: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at t [B], broadcastable to `like` [B, ...], computed in float64."""
    ac = alphas_cumprod.double()[t.to(alphas_cumprod.device)]
    shape = (-1, *([1] * (like.ndim - 1)))
    alpha, sigma = ac.sqrt().to(like.device, like.dtype), (1 - ac).sqrt().to(like.device, like.dtype)
    return alpha.view(shape), sigma.view(shape)


def noisy(alphas_cumprod: Tensor, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """alpha z + sigma noise at t [B], like z."""
    alpha, sigma = coefficients(alphas_cumprod, t, z)
    return alpha * z + sigma * noise
