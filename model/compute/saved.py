"""What autograd keeps of one micro-step for its backward pass, counted without a GPU and without memory.

The network runs forward once on the meta device; autograd's own hooks see each tensor that it keeps. CUDA's
autocast does not reach meta tensors, so its casts are made here: products and convolutions in half, norms and
softmax in float32, whose inputs and outputs are then kept at four bytes, twice what the weights' precision
says. Scaled-dot-product attention is counted as the fused kernels keep it (inputs, output and one number per
row, not the attention matrix).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.network.unet import OrbitUNet

#: Functions that CUDA's autocast runs in half, and those it runs in float32, of those a network here calls.
_HALF = {
    torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d, F.linear, torch.matmul,
    torch.bmm, torch.baddbmm, Tensor.matmul, Tensor.__matmul__,
}  # fmt: skip
_FULL = {F.group_norm, F.layer_norm, F.softmax, torch.softmax, Tensor.softmax}


@dataclass(frozen=True)
class Region:
    """A part of the forward pass that can be recomputed as one: a block, or the attention of one."""

    saved: int
    """Bytes it keeps."""
    inputs: int
    """Bytes of what it would start from again."""
    parameters: int
    """Trained parameters in it."""


@dataclass(frozen=True)
class Saved:
    """Bytes that a forward pass keeps, in the order of the pass."""

    total: int
    """With nothing recomputed."""
    blocks: tuple[Region, ...]
    attention: tuple[Region, ...]

    def bytes(self, recompute: str = "") -> int:
        """Bytes at the peak when the regions "blocks" or "attention" are recomputed, or nothing is: each
        keeps its inputs, and one at a time is recomputed and keeps all."""
        regions: tuple[Region, ...] = {"": (), "blocks": self.blocks, "attention": self.attention}[recompute]
        if not regions:
            return self.total
        kept = self.total - sum(region.saved for region in regions)
        return kept + sum(region.inputs for region in regions) + max(region.saved for region in regions)

    def peak(self, recompute: str, gradient_bytes: int) -> int:
        """The same with the gradients that are there by then, where none is there before: the backward pass
        lets go of the blocks last to first, and leaves their gradients, `gradient_bytes` a parameter."""
        held = peak = self.bytes(recompute)
        for block in reversed(self.blocks):
            held += gradient_bytes * block.parameters - (
                block.inputs if recompute == "blocks" else block.saved * held // max(held, self.total)
            )
            peak = max(peak, held)
        return peak


def saved_by_a_pass(unet: OrbitUNet, config: TrainConfig, downscale: int, batch: int, half: bool) -> Saved:
    """What the pass of `batch` clips through `unet`, which is on the meta device, keeps.

    half: the weights are half, without autocast. `unet` is changed: give one that is not used afterwards.
    """
    mixed = config.optim.precision != "no" and not half
    dtype = torch.bfloat16 if config.optim.precision != "no" and half else torch.float32
    # diffusers' own `to` would warn about modules kept in float32, of which there are none.
    nn.Module.to(unet, dtype)
    f, c = config.data.frames, unet.config.in_channels
    edge = config.data.resolution // downscale
    given: dict[str, Any] = {
        "camera": torch.empty(batch, f, unet.config.camera_dim, device="meta"),
        "motion": torch.empty(batch, device="meta"),
    }
    text = torch.empty(batch, 77, unet.config.cross_attention_dim, device="meta", dtype=dtype)
    if config.model.variant == "image":
        given["image_latents"] = torch.empty(batch, c, edge, edge, device="meta", dtype=dtype)
    if config.model.variant == "static3d":
        given["static_latents"] = torch.empty(batch, c, f, edge, edge, device="meta", dtype=dtype)
    counter = Kept()
    blocks: list[Region] = []
    attention: list[Region] = []
    run, attend = unet._run, unet._attend

    def counted(into: list[Region], inner: Callable[..., Tensor], *args: Any) -> Tensor:
        before = counter.bytes
        out = inner(*args)
        tensors = [a for a in args if isinstance(a, Tensor)]
        inputs = sum(a.numel() * a.element_size() for a in tensors)
        into.append(Region(counter.bytes - before, inputs, _trained(args)))
        return out

    # Counts the parts of this one pass.
    unet._run = lambda *args: counted(blocks, run, *args)  # type: ignore[method-assign]
    unet._attend = lambda *args: counted(attention, attend, *args)  # type: ignore[method-assign]
    counter.ignore = {p.untyped_storage()._cdata for p in unet.parameters()}
    sample = torch.empty(batch, c, f, edge, edge, device="meta", dtype=dtype)
    with ExitStack() as stack:
        stack.enter_context(as_on_a_gpu())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t))
        if mixed:
            stack.enter_context(_Autocast(counter))
        try:
            unet(sample, torch.zeros(batch, device="meta"), text, **given)
        finally:
            del unet._run, unet._attend
    return Saved(counter.bytes, tuple(blocks), tuple(attention))


def saved_by_views(
    net: Any, config: TrainConfig, grid: tuple[int, int, int], batch: int, half: bool
) -> Saved:
    """The same of `batch` scenes through a network with a view module (OrbitWan or OrbitUNet), or of `batch`
    clips through a WanOrbit, on the meta device; `grid` is frames, rows and columns of a latent."""
    mixed = config.optim.precision != "no" and not half
    dtype = torch.bfloat16 if config.optim.precision != "no" and half else torch.float32
    nn.Module.to(net, dtype)
    rows, wan = batch * config.views.count, config.model.base == "wan"
    with torch.device("meta"):
        camera, t = torch.empty(rows, grid[0], 12), torch.zeros(rows)
        width = net.config.text_dim if wan else net.config.cross_attention_dim
        text = torch.empty(rows, 512 if wan else 77, width, dtype=dtype)
        sample = torch.empty(rows, net.config.in_channels, *grid, dtype=dtype)
    counter = Kept()
    blocks: list[Region] = []
    attention: list[Region] = []

    def counted(into: list[Region], inner: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        before = counter.bytes
        out = inner(*args, **kwargs)
        tensors = [a for a in args if isinstance(a, Tensor)]
        inputs = sum(a.numel() * a.element_size() for a in tensors)
        modules = [a for a in args if isinstance(a, nn.Module)]
        trained = sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad)
        into.append(Region(counter.bytes - before, inputs, trained if wan else _trained(args)))
        return out

    run = net._run
    net._run = lambda *args: counted(blocks, run, *args)
    if not wan:
        attend = net._attend
        net._attend = lambda *args, **kwargs: counted(attention, attend, *args, **kwargs)
    counter.ignore = {p.untyped_storage()._cdata for p in net.parameters()}
    with ExitStack() as stack:
        stack.enter_context(as_on_a_gpu())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t))
        if mixed:
            stack.enter_context(_Autocast(counter))
        if config.synchronised:
            given = {"views": config.views.count, "camera" if wan else "view_camera": camera}
        else:
            given = _of_orbit(net, rows, grid)
        net(sample, t, text, **given)
    return Saved(counter.bytes, tuple(blocks), tuple(attention))


def _of_orbit(net: Any, rows: int, grid: tuple[int, int, int]) -> dict[str, Any]:
    """Conditions of a `WanOrbit`, on the meta device."""
    with torch.device("meta"):
        given = {"camera": torch.empty(rows, grid[0], 16), "motion": torch.empty(rows)}
        if net.condition_embedding is not None:
            channels = net.condition_embedding.in_channels
            given["image_latents"] = torch.empty(rows, channels, *grid)
    return given


def _trained(args: tuple[Any, ...]) -> int:
    """Trained parameters of a block's layer (block, i, ..) or of two transformers."""
    modules: list[nn.Module] = [a for a in args if isinstance(a, nn.Module)]
    number = next((a for a in args if isinstance(a, int)), None)
    if len(modules) == 1 and callable(args[0]) and args[0].__name__ == "_layer" and number is not None:
        block = modules[0]
        lists = [
            getattr(block, name, None) for name in ("resnets", "temp_convs", "attentions", "temp_attentions")
        ]
        modules = [parts[number] for parts in lists if parts is not None and len(parts) > number]
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


class Kept:
    """Adds up the storages that autograd saves, each once."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ignore: set[int] = set()
        self._seen: dict[int, Any] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.ignore and key not in self._seen:
            # Kept alive: a freed storage's address would be used again.
            self._seen[key] = storage
            self.bytes += storage.nbytes()
        return tensor


class _Autocast(TorchFunctionMode):
    """The casts of CUDA's autocast; half-precision copies of weights are made once and count as weights."""

    def __init__(self, counter: Kept) -> None:
        super().__init__()
        self._counter = counter
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _HALF:
            cast = self._to_half
        elif func in _FULL:
            cast = _to_full
        else:
            return func(*args, **kwargs)
        return func(*(cast(a) for a in args), **{name: cast(a) for name, a in kwargs.items()})

    def _to_half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(torch.bfloat16)
        if id(value) not in self._weights:
            copy = self._weights[id(value)] = value.to(torch.bfloat16)
            self._counter.ignore.add(copy.untyped_storage()._cdata)
        return self._weights[id(value)]


def _to_full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


class _Fused(torch.autograd.Function):
    """What flash attention saves: query, key, value, output, and the log-sum-exp of each row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        rows = torch.empty(query.shape[:-1], device=query.device, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError("this stand-in only counts memory")


class _Dropped(torch.autograd.Function):
    """What dropout saves on a GPU: a byte a number; elsewhere it is the factor itself."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(torch.empty(value.shape, device=value.device, dtype=torch.bool))
        return torch.empty_like(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError("this stand-in only counts memory")


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    attention, dropout = F.scaled_dot_product_attention, F.dropout

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _Fused.apply(query, key, value)

    def drop(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return _Dropped.apply(input) if training and p else input

    F.scaled_dot_product_attention, F.dropout = attend, drop
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.dropout = attention, dropout
