"""How much GPU memory a training step will need, computed without allocating any of it.

The network is built on the meta device and run forward once; what autograd keeps for the backward pass is
counted by its own hooks, in the dtype of the run. Scaled-dot-product attention is counted as the fused
kernels keep it (inputs, output and one number per row, not the attention matrix).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orbit4d.model.config.settings import OptimSettings, TrainConfig
from orbit4d.model.network.build import make_trainable
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.training.muon import split

GIB = 1024**3
CARDS_GIB = (24, 40, 80)
#: CUDA context, cuDNN and cuBLAS workspaces, and what the allocator loses to fragments: a tenth, and 1 GiB.
_OVERHEAD_SHARE, _OVERHEAD_BYTES = 0.10, 1 * GIB
#: Parameters of the published parts around the UNet: SD's f8 VAE and the two towers of OpenCLIP ViT-H/14, the
#: text tower without its last layer.
FROZEN_PARAMETERS = {"autoencoder": 83_700_000, "text_encoder": 340_400_000, "image_encoder": 632_100_000}
_MINILM_PARAMETERS = 22_700_000


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process at the peak of a training step."""

    parameters: int
    """Number of parameters of the network."""
    trained: int
    """How many of them are trained."""
    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    """What the backward pass of one micro-batch needs."""
    frozen: int
    """Autoencoder and encoders: float32, and on the device whether latents come from a cache or not. What
    encoding needs beside them is less than the backward pass needs later, and free by then."""
    buckets: int = 0
    """Second copy of the gradients, which DistributedDataParallel exchanges; 0 with one process."""

    @property
    def total(self) -> int:
        """All of it, with an allowance for the CUDA context, workspaces and fragments."""
        parts = self.weights + self.gradients + self.optimizer + self.ema + self.activations
        return int((parts + self.frozen + self.buckets) * (1 + _OVERHEAD_SHARE)) + _OVERHEAD_BYTES


def estimate(config: TrainConfig, latent_channels: int, downscale: int, processes: int = 1) -> MemoryEstimate:
    """Memory of one of `processes` with the settings of `config`; `downscale` is pixels per latent pixel."""
    o = config.optim
    with torch.device("meta"):
        channels = {"in_channels": latent_channels, "out_channels": latent_channels}
        unet = OrbitUNet(variant=config.model.variant, **(channels | dict(config.model.unet)))
    total = sum(p.numel() for p in unet.parameters())
    with torch.device("meta"):
        make_trainable(unet, replace(config, optim=replace(o, checkpointing=False)))
    trained = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    half = o.precision != "no"
    return MemoryEstimate(
        parameters=total,
        trained=trained,
        # Autocast keeps a half-precision copy of the weights through a step.
        weights=total * (4 + (2 if half else 0)),
        gradients=trained * 4,
        optimizer=_optimizer_bytes(unet, o.optimizer),
        ema=trained * 4 if o.ema else 0,
        activations=_activations(unet, config, downscale, o.checkpointing),
        frozen=4 * sum(_frozen(getattr(config.model, name), n) for name, n in FROZEN_PARAMETERS.items()),
        buckets=trained * 4 if processes > 1 else 0,
    )


def _frozen(source: str, published: int) -> int:
    """Parameters of a part: pixels have none, and any file or name is taken for the published network."""
    if not source or source.startswith("unshuffle"):
        return 0
    return _MINILM_PARAMETERS if source == "minilm" else published


def _activations(unet: OrbitUNet, config: TrainConfig, downscale: int, checkpointing: bool) -> int:
    """Bytes that autograd keeps for one micro-batch of `optim.batch` clips."""
    dtype = torch.float32 if config.optim.precision == "no" else torch.bfloat16
    # diffusers' own `to` would warn about modules kept in float32, of which there are none.
    torch.nn.Module.to(unet, dtype)
    b, f, c = config.optim.batch, config.data.frames, unet.config.in_channels
    edge = config.data.resolution // downscale
    shape = (b, c, f, edge, edge)
    inputs: dict[str, Any] = {
        "camera": torch.empty(b, f, unet.config.camera_dim, device="meta", dtype=dtype),
        "motion": torch.empty(b, device="meta"),
    }
    text = torch.empty(b, 77, unet.config.cross_attention_dim, device="meta", dtype=dtype)
    if config.model.variant == "image":
        inputs["image_latents"] = torch.empty(b, c, edge, edge, device="meta", dtype=dtype)
    if config.model.variant == "static3d":
        inputs["static_latents"] = torch.empty(shape, device="meta", dtype=dtype)
    counter = _Counter()
    blocks: list[tuple[int, int]] = []
    run = unet._run

    def counted(layer: Callable[..., Tensor], *args: Any) -> Tensor:
        before = counter.bytes
        out = run(layer, *args)
        blocks.append((counter.bytes - before, sum(_bytes(a) for a in args if isinstance(a, Tensor))))
        return out

    unet._run = counted  # type: ignore[method-assign]  # counts blocks in this one pass
    parameters = {id(p.untyped_storage()) for p in unet.parameters()}
    counter.ignore = parameters
    try:
        with _fused_attention(), torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t):
            unet(
                torch.empty(shape, device="meta", dtype=dtype), torch.zeros(b, device="meta"), text, **inputs
            )
    finally:
        del unet._run
    if not checkpointing:
        return counter.bytes
    inside = sum(saved for saved, _ in blocks)
    # Every block keeps its inputs; one at a time is recomputed and keeps all.
    return counter.bytes - inside + sum(kept for _, kept in blocks) + max(saved for saved, _ in blocks)


def _optimizer_bytes(unet: OrbitUNet, name: str) -> int:
    """AdamW keeps two numbers a weight, in 8 bits or 32; Muon one for each weight of a matrix."""
    matrices, others = split(unet)
    count = sum(p.numel() for p in matrices), sum(p.numel() for p in others)
    return {"adamw8bit": 2 * sum(count), "muon": 4 * count[0] + 8 * count[1]}.get(name, 8 * sum(count))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Counter:
    """Adds up the storages that autograd saves, each once."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ignore: set[int] = set()
        self._seen: dict[int, Any] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if not isinstance(tensor, torch.nn.Parameter) and key not in self._seen:
            # Kept alive: a freed storage's address would be used again.
            self._seen[key] = storage
            self.bytes += storage.nbytes()
        return tensor


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


@contextmanager
def _fused_attention() -> Iterator[None]:
    original = F.scaled_dot_product_attention

    def stand_in(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _Fused.apply(query, key, value)

    F.scaled_dot_product_attention = stand_in
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def report(config: TrainConfig, latent_channels: int, downscale: int, processes: int = 1) -> str:
    """Table for `--dry-run`: the settings as given, and the usual ways to save, against 24, 40 and 80 GiB."""
    o = config.optim
    half = replace(o, precision="bf16" if o.precision == "no" else o.precision)
    saving = replace(half, checkpointing=True)
    rows: list[tuple[str, OptimSettings]] = [
        ("as set", o),
        ("bf16, all activations kept", replace(half, checkpointing=False)),
        ("bf16, checkpointing", saving),
        ("the same, 8-bit AdamW", replace(saving, optimizer="adamw8bit")),
        ("the same, LoRA 16, AdamW", replace(saving, lora=16)),
    ]
    width = 1 + max(len(name) for name, _ in rows)
    head = f"{'per process, GiB':{width}} weights  grads  optim    ema frozen  activ  total   fits"
    lines = [head]
    parameters = 0
    for name, optim in rows:
        e = estimate(replace(config, optim=optim), latent_channels, downscale, processes)
        parameters = parameters or e.parameters
        fits = [str(card) for card in CARDS_GIB if e.total <= card * GIB]
        gradients = e.gradients + e.buckets
        numbers = (e.weights, gradients, e.optimizer, e.ema, e.frozen, e.activations, e.total)
        cells = " ".join(f"{value / GIB:6.1f}" for value in numbers)
        lines.append(
            f"{name:{width}} {cells}   {', '.join(fits) + ' GiB' if fits else 'none of 24, 40, 80 GiB'}"
        )
    shape = f"{config.data.frames} x {config.data.resolution} x {config.data.resolution}"
    lines.insert(
        0, f"{parameters / 1e6:.1f} M parameters, micro-batch {o.batch} of {shape}, precision {o.precision}"
    )
    lines.append(
        "frozen: autoencoder and encoders in float32, which stay on the card with a latent cache too"
    )
    lines.append(
        f"{processes} processes: grads twice, since gradients are exchanged from a second copy"
        if processes > 1
        else "one process; with several, gradients are exchanged from a second copy: grads twice"
    )
    return "\n".join(lines)
