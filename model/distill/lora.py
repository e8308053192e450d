"""A copy of a learned prior that follows a run: the prior's own network under LoRA adapters (Hu et al. 2022).

`vsd` trains it on what is drawn now (ProlificDreamer, Wang et al. 2023), `msd` on the object held still
(Animus3D 2025). The network is not copied: adapters are switched on for the copy's estimates alone, so the
prior itself stays what it was to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.distill.score_model import coefficients, noisy

#: What is adapted: every attention projection of diffusers' blocks.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
RANK, RATE = 4, 1e-4
#: Power of two that lifts the gradients of a 16-bit network into its range; they are divided by it again.
_LIFT = 1024.0


class LoraCopy:
    """The trained copy of one prior; see `ScoreModel` for what it is asked.

    `score` is a learned one: a `LatentScore`, or a run of orbit4d.
    """

    def __init__(self, score: Any, rank: int = RANK, rate: float = RATE, seed: int = 0) -> None:
        """Adapters are put into the network of `score` and stay switched off.

        Raises:
            InputError: peft is not installed, or the network has nothing to adapt.
        """
        self.score, self.rank, self.steps = score, rank, 0
        """`steps`: training passes so far."""
        self.loss = float("nan")
        """Of the last pass."""
        network = score.network_of_estimates
        injected(network, rank)
        self.layers = _layers(network)
        self.weights: dict[str, nn.Parameter] = {
            name: weight for name, weight in network.named_parameters() if ".lora_" in name
        }
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.weights.items():
            # Their own precision: a rate of 1e-4 is lost in 16 bits.
            weight.data = torch.zeros(weight.shape, device=weight.device)
            if ".lora_A." in name:
                bound = 1 / math.sqrt(weight.shape[1])
                drawn = torch.rand(weight.shape, generator=generator)
                weight.data.copy_((2 * drawn - 1) * bound)
        self.adam = torch.optim.Adam(self.weights.values(), rate)
        self._switch(False)

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None) -> Tensor:
        """The copy's noise estimate like z_t of the conditioned branch; no graph."""
        with self._on(), torch.no_grad():
            return self.score.noise(z_t, t, conditions)  # type: ignore[no-any-return]

    def learn(self, z: Tensor, conditions: Any, generator: torch.Generator | None) -> float:
        """One update by the plain denoising loss of clean samples z [B, ...], which it returns.

        No guidance; t is uniform over the whole table. Draws t, then the noise.

        Raises:
            WorkError: a loss that is not finite.
        """
        loss = self.denoising_loss(z, conditions, generator)
        self.loss, self.steps = float(loss.detach()), self.steps + 1
        if not math.isfinite(self.loss):
            raise WorkError(
                f"{self.score.name}: the loss of its LoRA copy is no number at its step {self.steps}"
            )
        self.adam.step()
        return self.loss

    def denoising_loss(self, z: Tensor, conditions: Any, generator: torch.Generator | None) -> Tensor:
        """The loss [] with its gradients left in the adapters."""
        table, score = self.score.alphas_cumprod, self.score
        t = torch.randint(len(table), (len(z),), generator=generator)
        noise = torch.randn(z.shape, generator=generator).to(z)
        z_t = noisy(table, z.detach(), noise, t)
        alpha, sigma = coefficients(table, t, z_t)
        kind = getattr(score, "predicts", score.prediction)
        target = {"epsilon": noise, "sample": z.detach()}.get(kind, alpha * noise - sigma * z.detach())
        lift = _LIFT if next(score.network_of_estimates.parameters()).dtype == torch.float16 else 1.0
        calls = score.calls
        self.adam.zero_grad()
        with self._on(), torch.enable_grad():
            loss = functional.mse_loss(score.predicted(z_t, t, conditions, "cond"), target)
            (loss * lift).backward()  # type: ignore[no-untyped-call]
        for weight in self.weights.values():
            if weight.grad is not None:
                weight.grad /= lift
        # A training pass is no question to the prior.
        score.calls = calls
        return loss

    def record(self) -> dict[str, Any]:
        """All that a checkpoint must hold: weights, moments, count."""
        return {
            "rank": self.rank,
            "steps": self.steps,
            "loss": self.loss,
            "weights": {name: w.detach().cpu().clone() for name, w in self.weights.items()},
            "adam": self.adam.state_dict(),
        }

    def restore(self, held: dict[str, Any]) -> None:
        """Inverse of `record`. ValueError for one of another network or rank."""
        shapes = {name: w.shape for name, w in self.weights.items()}
        if {name: w.shape for name, w in held["weights"].items()} != shapes:
            raise ValueError("the LoRA weights are those of another network")
        for name, weight in self.weights.items():
            weight.data.copy_(held["weights"][name])
        self.adam.load_state_dict(held["adam"])
        self.steps, self.loss = held["steps"], held["loss"]

    @contextmanager
    def _on(self) -> Iterator[None]:
        self._switch(True)
        try:
            yield
        finally:
            self._switch(False)

    def _switch(self, on: bool) -> None:
        for layer in self.layers:
            layer.enable_adapters(on)
        for weight in self.weights.values():
            weight.requires_grad_(on)


def injected(network: nn.Module, rank: int = RANK) -> nn.Module:
    """`network` with adapters in its attention projections, in place. InputError without peft."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError(
            "estimators vsd and msd need peft to train a copy: pip install 'orbit4d[lora]'"
        ) from error
    # Of a run that was itself trained by LoRA nothing is left: its adapters are folded in.
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS))
    try:
        inject_adapter_in_model(config, network, adapter_name="copy")
    except ValueError as error:
        raise InputError(f"{type(network).__name__}: holds no attention to adapt by LoRA") from error
    network.requires_grad_(False)
    return network


def _layers(network: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
