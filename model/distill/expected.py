"""The expected gradient of score distillation, where it has a closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orbit4d.model.distill.analytic import GaussianScore, MixtureScore
from orbit4d.model.distill.guiding import weight as weight_of
from orbit4d.model.distill.score_model import coefficients

#: Nodes of Gauss-Hermite quadrature over a noise of one dimension; enough for 1e-4 at three narrow modes.
NODES = 20_001
WIDEST = 9.0


def expected_gradient(
    z: Tensor, t: Tensor, model: GaussianScore | MixtureScore, weight: str = "sigma2"
) -> Tensor:
    """Mean over the noise of the gradient `sds` without guidance, like z [B, ...]; t is int64 [B].

    A Gaussian: w sigma alpha (z - m) / V. A mixture in one dimension ([B] or [B, 1]): by quadrature.

    Raises:
        NotImplementedError: for a mixture of more dimensions.
    """
    ac = model.alphas_cumprod[t].to(z.device, z.dtype).view(-1, *([1] * (z.ndim - 1)))
    alpha, sigma = coefficients(model.alphas_cumprod, t, z)
    w = weight_of(weight, ac)
    if isinstance(model, GaussianScore):
        variance = alpha.square() * model.std**2 + sigma.square()
        return w * sigma * alpha * (z - model.mean.to(z.device, z.dtype)) / variance
    if z[0].numel() != 1:
        raise NotImplementedError("the expected gradient of a mixture is known in one dimension")
    nodes = np.linspace(-WIDEST, WIDEST, NODES)
    share = np.exp(-(nodes**2) / 2)
    share /= share.sum()
    noise = torch.from_numpy(nodes).to(z.dtype)
    out = torch.empty_like(z)
    for b in range(len(z)):
        at = t[b].expand(NODES)
        a, s = (float(c.flatten()[b]) for c in (alpha, sigma))
        estimate = model.noise((a * z[b].reshape(1) + s * noise).view(NODES, *z[b].shape), at)
        out[b] = (torch.from_numpy(share).to(z.dtype) * (estimate.flatten() - noise)).sum().view(z[b].shape)
    return w * out
