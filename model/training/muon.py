"""Muon for the weights that are matrices, AdamW for all others, as one optimizer.

    optimizer = MuonAdamW(matrices, others, lr=4e-3)

The momentum of a matrix is replaced by the nearest orthogonal one before it is subtracted, so that a step
moves all its directions alike, rare ones too (Jordan et al. 2024, kellerjordan.github.io/posts/muon). A step
is as large as AdamW's by its root mean square (Liu et al. 2025, arXiv 2502.16982, section 2.2), so both
halves share one learning rate. A convolution counts as the matrix [out, in * kernel].

`torch.optim.Muon` is the same for two axes, one matrix after the other, and is the oracle of the tests; here
matrices of one shape are orthogonalised together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from orbit4d.model.network.unet import OrbitUNet

#: Coefficients of the quintic iteration: steepest at 0, and all singular values end between 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
#: Root mean square of AdamW's steps, in units of the learning rate.
_ADAMW_RMS = 0.2
#: A matrix with a smaller side has too few directions to be worth it.
LEAST_SIDE = 16


def orthogonalised(matrices: Tensor) -> Tensor:
    """[n, a, b] to about U V^T of each one's singular value decomposition, by five Newton-Schulz steps.

    In bfloat16, as published: the iteration corrects itself, and it takes a third of the time.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / x.flatten(1).norm(dim=1).clamp_min(1e-7).view(-1, 1, 1)).bfloat16()
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices)


class MuonAdamW(torch.optim.Optimizer):
    """Muon on `matrices` (weights of two axes or more), AdamW on `others`.

    `lr` and `weight_decay` hold for both; `momentum` is Muon's, with Nesterov's look ahead.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        fused: bool = False,
    ) -> None:
        groups = [{"params": list(others)}]  # of which there may be none
        self._adamw = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=fused)
        groups = [{"params": list(matrices)}, *self._adamw.param_groups]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for p in self.param_groups[0]["params"]:
            if p.ndim < 2:
                raise ValueError(f"Muon takes weights of two axes or more, got {tuple(p.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; parameters without gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, *others = self.param_groups
        # load_state_dict replaces both, so the inner optimizer is given them again.
        self._adamw.state, self._adamw.param_groups = self.state, others
        self._adamw.step()
        self._step_matrices(matrices)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        # One call for all weights: a call each is most of a small network's step on a GPU.
        weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        gradients = [p.grad.float() for p in weights if p.grad is not None]
        averages = [self._average(p, gradient) for p, gradient in zip(weights, gradients)]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, p in enumerate(weights):
            alike[len(p), p[0].numel()].append(i)
        for shape, places in alike.items():
            updates = orthogonalised(torch.stack([ahead[i].reshape(shape) for i in places]))
            scale = group["lr"] * _ADAMW_RMS * max(shape) ** 0.5
            own = [weights[i] for i in places]
            torch._foreach_add_(
                own, [u.reshape(p.shape).to(p.dtype) for p, u in zip(own, updates)], alpha=-scale
            )

    def _average(self, p: Tensor, gradient: Tensor) -> Tensor:
        """Average of the gradients of a weight, float32; zero before the first."""
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average: Tensor = state["momentum_buffer"]
        return average


def split(unet: OrbitUNet) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trained weights of `unet` as (matrices, others).

    Among the others, as is usual with Muon, are embeddings and the last layer: their rows are a few numbers
    (time, camera, motion) or latents, and not features.
    """
    beside = {id(p) for module in (*unet.embeddings, unet.unet.conv_out) for p in module.parameters()}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for p in unet.parameters():
        if p.requires_grad:
            small = p.ndim < 2 or min(len(p), p[0].numel()) < LEAST_SIDE
            (others if small or id(p) in beside else matrices).append(p)
    return matrices, others
