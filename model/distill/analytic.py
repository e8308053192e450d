"""Priors in closed form: a Gaussian, and a mixture of Gaussians around given points.

They are exact for every t, so that laws of the estimators can be tested and a run can be proven without
weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orbit4d.model.distill.score_model import Branch, Kind, coefficients

#: Points of a mixture that are compared at a time.
CHUNK = 64


class GaussianScore:
    """The prior N(mean, std^2), and N(uncond_mean, uncond_std^2) where no condition is given.

    `mean` is [...] without batch; `alphas_cumprod` [T]. Without an unconditional mean there is one branch.
    ValueError for a negative std.
    """

    kind: Kind = "analytic"

    def __init__(
        self,
        mean: Tensor,
        std: float | Tensor,
        alphas_cumprod: Tensor,
        uncond_mean: Tensor | None = None,
        uncond_std: float | Tensor | None = None,
        name: str = "gaussian",
    ) -> None:
        self.mean, self.std, self.name = mean, _deviation(std), name
        self.alphas_cumprod = alphas_cumprod.double()
        self.unconditional = uncond_mean is not None
        self.uncond_mean = mean if uncond_mean is None else uncond_mean
        self.uncond_std = self.std if uncond_std is None else _deviation(uncond_std)
        self.calls = 0

    def parameters_of(self, branch: Branch) -> tuple[Tensor, float]:
        """(mean [C, ...], standard deviation) of a branch."""
        return (self.mean, self.std) if branch == "cond" else (self.uncond_mean, self.uncond_std)

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """sigma (z_t - alpha m) / V with V = alpha^2 s^2 + sigma^2, like z_t [B, C, ...]."""
        self.calls += len(z_t)
        mean, std = self.parameters_of(branch)
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        mean = mean.to(z_t.device, z_t.dtype)
        return sigma * (z_t - alpha * mean) / (alpha.square() * std**2 + sigma.square())

    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond"
    ) -> Tensor:
        """m + alpha s^2 (z_t - alpha m) / V, like z_t [B, C, ...]."""
        self.calls += len(z_t)
        mean, std = self.parameters_of(branch)
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        mean = mean.to(z_t.device, z_t.dtype)
        return mean + alpha * std**2 * (z_t - alpha * mean) / (alpha.square() * std**2 + sigma.square())


class MixtureScore:
    """The prior of samples around given points: sum of w_i N(points_i, std_i^2).

    `points` [M, ...], `std` one number or [M], `weights` [M] (equal by default). One branch.
    ValueError for weights that are negative or all 0, or a negative std.
    """

    kind: Kind = "analytic"
    unconditional = False

    def __init__(
        self,
        points: Tensor,
        std: float | Tensor,
        alphas_cumprod: Tensor,
        weights: Tensor | None = None,
        name: str = "mixture",
    ) -> None:
        self.points, self.name, self.calls = points, name, 0
        self.alphas_cumprod = alphas_cumprod.double()
        self.std = torch.as_tensor(std, dtype=torch.float64).expand(len(points))
        w = torch.ones(len(points)) if weights is None else weights
        self.weights = w.double() / w.double().sum()
        if not len(points) or not (self.weights >= 0).all() or not (self.std >= 0).all():
            raise ValueError("a mixture needs points, weights of at least 0 and deviations of at least 0")

    def responsibilities(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Share of each point in z_t [B, ...]: [B, M]."""
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t.reshape(len(z_t), -1))
        std = self.std.to(z_t.device, z_t.dtype)[None]
        variance = alpha.square() * std.square() + sigma.square()
        flat, points = (
            z_t.reshape(len(z_t), -1),
            self.points.to(z_t.device, z_t.dtype).reshape(len(self.points), -1),
        )
        apart = torch.cat(
            [
                (flat[:, None] - alpha[:, None] * points[None, i : i + CHUNK]).square().sum(2)
                for i in range(0, len(points), CHUNK)
            ],
            dim=1,
        )
        log = self.weights.to(z_t.device, z_t.dtype).log()[None] - apart / (2 * variance)
        return torch.softmax(log - flat.shape[1] / 2 * variance.log(), dim=1)

    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond"
    ) -> Tensor:
        """The mean of the clean sample given z_t, like z_t [B, C, ...]."""
        self.calls += len(z_t)
        return self._clean(z_t, t)

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """(z_t - alpha x0) / sigma, like z_t [B, C, ...]."""
        self.calls += len(z_t)
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t)
        return (z_t - alpha * self._clean(z_t, t)) / sigma

    def _clean(self, z_t: Tensor, t: Tensor) -> Tensor:
        share = self.responsibilities(z_t, t)
        alpha, sigma = coefficients(self.alphas_cumprod, t, z_t.reshape(len(z_t), -1))
        std = self.std.to(z_t.device, z_t.dtype)[None]
        # x0 = sum r_i (mu_i + k_i (z_t - alpha mu_i)), k_i = alpha s_i^2 / V_i.
        k = alpha * std.square() / (alpha.square() * std.square() + sigma.square())
        points = self.points.to(z_t.device, z_t.dtype).reshape(len(self.points), -1)
        mixed = (share * (1 - k * alpha)) @ points + (share * k).sum(1, keepdim=True) * z_t.reshape(
            len(z_t), -1
        )
        return mixed.view_as(z_t)


def _deviation(std: float | Tensor) -> float:
    value = float(std)
    if not value >= 0:
        raise ValueError(f"std: needs a number of at least 0, got {value}")
    return value
