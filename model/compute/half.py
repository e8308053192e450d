"""Half-precision weights for the passes, float32 master copies for everything else.

    half = HalfNetwork(unet, torch.bfloat16)
    half(noisy, t, **conditions).sample    # float32; gradients arrive in unet's own parameters
    optimizer.step(); half.follow()        # the copy takes over what was learned

Under autocast every weight is cast at its first use in each pass, and norms come out in float32, which the
next convolution casts back: a quarter of a step on an H100. A network whose weights are half has neither.
What is learned stays float32: the master network holds the weights that the optimizer, the averages,
checkpoints and validation see, and its gradients are sums in float32 over the micro-batches.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from orbit4d.model.config.settings import OptimSettings
from orbit4d.model.network.unet import OrbitUNet

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Gradients are exchanged between processes in pieces of so many numbers.
_BUCKET = 16 * 2**20


def half_dtype(optim: OptimSettings, device: torch.device) -> torch.dtype | None:
    """What the weights of a step are stored in; None: float32, cast where autocast says so."""
    chosen = optim.weights == "half" or (optim.weights == "auto" and device.type == "cuda")
    return _DTYPES.get(optim.precision) if chosen else None


def half_copy(network: OrbitUNet, dtype: torch.dtype) -> OrbitUNet:
    """The network with parameters of `dtype`; buffers (statistics of motion) keep their digits."""
    double: OrbitUNet = copy.deepcopy(network)
    for parameter in double.parameters():
        parameter.data = parameter.data.to(dtype)
    return double


class HalfNetwork(nn.Module):
    """A copy of `master` with weights of `dtype`, whose gradients arrive in `master`.

    To be made before accelerate wraps the forward of `master`, on the device where `master` is.
    """

    def __init__(self, master: OrbitUNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.copy = half_copy(master, dtype)
        pairs = list(zip(master.parameters(), self.copy.parameters()))
        self._masters: list[Tensor] = [own for own, _ in pairs if own.requires_grad]
        self._halves: list[Tensor] = [half for own, half in pairs if own.requires_grad]
        for own, half in zip(self._masters, self._halves):
            half.register_post_accumulate_grad_hook(_handing_on(own))

    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> SimpleNamespace:
        """OrbitUNet's forward; the prediction in float32."""
        return SimpleNamespace(sample=self.copy(sample.to(self.dtype), *args, **kwargs).sample.float())

    @torch.no_grad()
    def follow(self) -> None:
        """Take over the master's weights."""
        torch._foreach_copy_(self._halves, self._masters)

    def exchange(self) -> None:
        """Mean of the gradients over all processes, once a step."""
        gradients = [p.grad for p in self._masters if p.grad is not None]
        world = torch.distributed.get_world_size()
        while gradients:
            bucket: list[Tensor] = []
            size = 0
            while gradients and (not bucket or size + gradients[-1].numel() <= _BUCKET):
                bucket.append(gradients.pop())
                size += bucket[-1].numel()
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            torch.distributed.all_reduce(flat)
            flat /= world
            for gradient, piece in zip(bucket, flat.split([g.numel() for g in bucket])):
                gradient.copy_(piece.view_as(gradient))


def _handing_on(master: Tensor) -> Any:
    """Hook of a half parameter: its gradient joins the master's, and is let go at once."""

    def hand_on(half: Tensor) -> None:
        assert half.grad is not None, "called once its gradient is there"
        if master.grad is None:
            master.grad = half.grad.float()
        else:
            master.grad.add_(half.grad)
        half.grad = None

    return hand_on
