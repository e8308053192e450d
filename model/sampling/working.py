"""What the networks of a pipeline compute with on a GPU: half-precision weights, recorded passes.

The pipeline keeps its own weights, in float32; sampling works with copies of theirs whose weights are half,
made at the first call. fp16 is the default: with 10 bits of mantissa it comes nearer to float32 than bf16
with 7 (0.4 % against 2.8 % of the output, one H100), and what overflows it is noticed and done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from orbit4d.model.compute.graphs import Graphs
from orbit4d.model.compute.half import half_copy
from orbit4d.model.compute.micro_step import recorder_of
from orbit4d.model.network.unet import OrbitUNet

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def sampling_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What sampling computes in under `sample.precision`; None: float32, as a CPU does."""
    if device.type != "cuda" or precision == "no":
        return None
    return _DTYPES["fp16" if precision == "auto" else precision]


class Working(nn.Module):
    """A network with weights of `dtype` in place of `network`, whose passes are recorded where they can be.

    It answers as an OrbitUNet does where sampling asks it: `config`, `dtype`, and a pass by keywords.
    """

    def __init__(self, network: OrbitUNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = (network if network.dtype == dtype else half_copy(network, dtype)).eval()
        self.dtype = dtype
        device = next(network.parameters()).device
        # A Wan base is not recorded.
        recorder = recorder_of(device) if isinstance(network, OrbitUNet) else None
        self._graphs = None if recorder is None else Graphs(self._pass, recorder)

    @property
    def config(self) -> Any:
        """Of the network."""
        return self.network.config

    def forward(self, sample: Tensor, **conditions: Tensor | None) -> SimpleNamespace:
        """OrbitUNet's forward, without gradients."""
        given = {name: value for name, value in conditions.items() if value is not None}
        given["sample"] = sample.to(self.dtype)
        result = self._pass(given) if self._graphs is None else self._graphs(given)
        return SimpleNamespace(sample=result["sample"])

    @torch.no_grad()
    def _pass(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"sample": self.network(**given).sample}


class WorkingNetworks:
    """The working copies of a pipeline's networks, made once for their weights and a precision."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Any, Working]] = {}
        self.used = True
        """False once a result was no number."""
        self.instead = ""
        """What float32 weights are run in then; empty: what training did."""

    def of(self, name: str, network: OrbitUNet | None, dtype: torch.dtype | None) -> Any:
        """What works in place of `network`: itself where `dtype` is None."""
        if network is None or dtype is None:
            return network
        first = next(network.parameters())
        # A network that was moved, loaded into or trained further is another one.
        state = (id(network), dtype, first.device, sum(p._version for p in network.parameters()))
        if name not in self._made or self._made[name][0] != state:
            self._made.pop(name, None)
            self._made[name] = state, Working(network, dtype)
        return self._made[name][1]

    def holds(self, output: Tensor) -> bool:
        """Whether a result is one; the first that is not is reported, and ends the use of the copies."""
        if bool(torch.isfinite(output).all()):
            return True
        print(
            "note: fp16 overflows with these weights, so the rest is sampled in bf16 (sample.precision=bf16)"
        )
        self.used, self.instead = False, "bf16"
        self._made.clear()
        return False


def cast(network: OrbitUNet | None, dtype: torch.dtype | None) -> None:
    """Give up the float32 weights of a network that is only sampled from, in place; buffers keep theirs."""
    if network is not None and dtype is not None:
        for parameter in network.parameters():
            parameter.data = parameter.data.to(dtype)
