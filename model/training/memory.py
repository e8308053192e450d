"""How much GPU memory a training step will need, computed without allocating any of it.

The network is built on the meta device and run forward once; what autograd keeps for the backward pass is
counted by its own hooks, with the casts of the run (compute/saved.py). What is estimated is what torch
reserves; the CUDA context beside it takes about half a GiB more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from orbit4d.model.compute.half import half_dtype
from orbit4d.model.compute.micro_step import cannot_be_recorded
from orbit4d.model.compute.saved import Region, Saved, saved_by_a_pass, saved_by_views
from orbit4d.model.config.settings import OptimSettings, TrainConfig
from orbit4d.model.network.build import make_trainable, train_only
from orbit4d.model.network.cameras import shown_frames
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.orbits.network import WanOrbit
from orbit4d.model.training.muon import split

GIB = 1024**3
CARDS_GIB = (24, 40, 80)
#: Workspaces of cuBLAS and cuDNN, what a backward pass makes for a moment, and what the allocator loses to
#: fragments; and the CUDA context, which no allocator counts.
_OVERHEAD_SHARE, _OVERHEAD_BYTES, CONTEXT_BYTES = 0.02, GIB // 2, GIB // 2
_CUDA = torch.device("cuda")
#: Parameters of the published parts around the UNet: SD's f8 VAE and the two towers of OpenCLIP ViT-H/14, the
#: text tower without its last layer.
FROZEN_PARAMETERS = {"autoencoder": 83_700_000, "text_encoder": 340_400_000, "image_encoder": 632_100_000}
#: The same of Wan 2.1: its video VAE and the encoder of UMT5-XXL.
WAN_PARAMETERS = {"autoencoder": 126_900_000, "text_encoder": 5_680_000_000}
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
    """Autoencoder and encoders: float32 (UMT5 bf16), and on the device whether latents come from a cache or
    not. What encoding needs beside them is less than the backward pass needs later, and free by then."""
    buckets: int = 0
    """Second copy of the gradients, which DistributedDataParallel exchanges; 0 with one process."""
    together: int = 0
    """The most that gradients and activations take at one time: less than their sum where a step is one
    micro-batch, whose activations go as its gradients come. 0: their sum."""

    @property
    def reserved(self) -> int:
        """All of it, with an allowance for workspaces and fragments: what torch reserves."""
        together = self.together or self.gradients + self.activations
        parts = self.weights + self.optimizer + self.ema + self.frozen + self.buckets + together
        return int(parts * (1 + _OVERHEAD_SHARE)) + _OVERHEAD_BYTES

    @property
    def total(self) -> int:
        """What the card needs to have free: `reserved`, and the CUDA context."""
        return self.reserved + CONTEXT_BYTES


def estimate(config: TrainConfig, latent_channels: int, downscale: int, processes: int = 1) -> MemoryEstimate:
    """Memory of one of `processes` on a GPU with the settings of `config`; `downscale` is pixels per latent
    pixel. A micro-batch that is to be chosen counts as one clip."""
    batch = config.optim.batch if isinstance(config.optim.batch, int) else 1
    return estimate_of(config, *measured(config, latent_channels, downscale, batch), 1, processes)


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters, and what an optimizer keeps of them."""

    total: int
    trained: int
    optimizer: int
    """Bytes."""


def measured(
    config: TrainConfig, latent_channels: int, downscale: int, batch: int = 1
) -> tuple[Weights, Saved]:
    """What does not depend on how a step is cut: the network's weights, and what `batch` clips keep."""
    o = config.optim
    if config.synchronised:
        return _measured_views(config, latent_channels, downscale, batch)
    channels, variant = (
        {"in_channels": latent_channels, "out_channels": latent_channels},
        config.model.variant,
    )
    wan = config.model.base == "wan"
    unet: Any
    with torch.device("meta"):
        if wan:
            own = {"orbit_camera": True, "motion": True, "condition": variant != "text", "variant": variant}
            unet = WanOrbit(**(channels | dict(config.model.wan) | own))
        else:
            unet = OrbitUNet(variant=variant, **(channels | dict(config.model.unet)))
    total = sum(p.numel() for p in unet.parameters())
    with torch.device("meta"):
        make_trainable(unet, replace(config, optim=replace(o, checkpointing=False, compile=False)))
    trained = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    if wan:
        weights = Weights(total, trained, 2 * trained if o.optimizer == "adamw8bit" else 8 * trained)
        grid = _grid(config, downscale)
        return weights, saved_by_views(unet, config, grid, batch, half_dtype(o, _CUDA) is not None)
    weights = Weights(total, trained, _optimizer_bytes(unet, o.optimizer))
    return weights, saved_by_a_pass(unet, config, downscale, batch, half_dtype(o, _CUDA) is not None)


def _measured_views(
    config: TrainConfig, latent_channels: int, downscale: int, batch: int
) -> tuple[Weights, Saved]:
    """`measured` of the last stage of a run on synchronised views, whose scenes are what counts."""
    channels = {"in_channels": latent_channels, "out_channels": latent_channels}
    wan = config.model.base == "wan"
    net: Any
    with torch.device("meta"):
        if wan:
            own = {"view_blocks": "all", "motion": config.views.motion}
            net = OrbitWan(**(own | channels | dict(config.model.wan)))
        else:
            net = OrbitUNet(**(channels | dict(config.model.unet)), variant="text", view_sync=True)
    train_only(net, config.stages[-1].name, keep=False)
    if not wan:
        net.eval()
    total = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    weights = Weights(total, trained, 2 * trained if config.optim.optimizer == "adamw8bit" else 8 * trained)
    grid = _grid(config, downscale)
    return weights, saved_by_views(net, config, grid, batch, half_dtype(config.optim, _CUDA) is not None)


def _grid(config: TrainConfig, downscale: int) -> tuple[int, int, int]:
    """Frames, rows and columns of a latent; Wan's autoencoder takes four frames at a time."""
    frames, edge = config.data.frames, config.data.resolution
    if config.model.base == "wan" and not config.model.autoencoder.startswith("unshuffle"):
        frames = (shown_frames(frames) - 1) // 4 + 1
    return frames, edge // downscale, (config.views.width or edge) // downscale


def estimate_of(
    config: TrainConfig, weights: Weights, saved: Saved, clips: int = 1, processes: int = 1
) -> MemoryEstimate:
    """The estimate where `saved` is what one clip keeps, and a micro-batch has `clips` of them (or where it
    is what the whole micro-batch keeps, and `clips` is 1)."""
    o = config.optim
    half = half_dtype(o, _CUDA) is not None
    around = FROZEN_PARAMETERS if config.model.base == "unet" else WAN_PARAMETERS
    recompute = o.recompute if o.checkpointing else ""
    gradients, activations = weights.trained * 4, clips * saved.bytes(recompute)
    batch = clips if clips > 1 or not isinstance(o.batch, int) else o.batch
    one = o.effective_batch == batch * processes and processes == 1
    recorded = o.graphs != "off" and not cannot_be_recorded(config, processes, half)
    together = gradients + activations
    if one and not recorded:
        together = max(_scaled(saved, clips).peak(recompute, 4), gradients)
    return MemoryEstimate(
        parameters=weights.total,
        trained=weights.trained,
        # Autocast keeps a half-precision copy of the weights through a step; half weights are one.
        weights=weights.total * (4 + (2 if o.precision != "no" else 0)),
        gradients=gradients,
        optimizer=weights.optimizer,
        ema=weights.trained * 4 if o.ema else 0,
        activations=activations,
        frozen=sum(
            _bytes_a_weight(config, name) * _frozen(getattr(config.model, name), n)
            for name, n in around.items()
            if not (name == "text_encoder" and text_stays_off(config))
        ),
        buckets=weights.trained * 4 if processes > 1 and not half else 0,
        together=together,
    )


def _bytes_a_weight(config: TrainConfig, name: str) -> int:
    """UMT5 is bf16 on a card (`Umt5TextEncoder.place`), the other frozen parts float32."""
    umt5 = config.model.base == "wan" and config.model.text_encoder != "minilm"
    return 2 if umt5 and name == "text_encoder" else 4


def text_stays_off(config: TrainConfig) -> bool:
    """Whether the text encoder of a Wan base stays on the CPU: where its tokens are cached."""
    return config.model.base == "wan" and config.data.latents == "cache"


def _scaled(saved: Saved, clips: int) -> Saved:
    """What `clips` times as many clips keep."""

    def more(regions: tuple[Region, ...]) -> tuple[Region, ...]:
        return tuple(Region(clips * r.saved, clips * r.inputs, r.parameters) for r in regions)

    return Saved(clips * saved.total, more(saved.blocks), more(saved.attention))


def _frozen(source: str, published: int) -> int:
    """Parameters of a part: pixels have none, and any file or name is taken for the published network."""
    if not source or source.startswith("unshuffle"):
        return 0
    return _MINILM_PARAMETERS if source == "minilm" else published


def _optimizer_bytes(unet: OrbitUNet, name: str) -> int:
    """AdamW keeps two numbers a weight, in 8 bits or 32; Muon one for each weight of a matrix."""
    matrices, others = split(unet)
    count = sum(p.numel() for p in matrices), sum(p.numel() for p in others)
    return {"adamw8bit": 2 * sum(count), "muon": 4 * count[0] + 8 * count[1]}.get(name, 8 * sum(count))


def report(config: TrainConfig, latent_channels: int, downscale: int, processes: int = 1) -> str:
    """Table for `--dry-run`: the settings as given, and the usual ways to save, against 24, 40 and 80 GiB."""
    o = config.optim
    half = replace(o, precision="bf16" if o.precision == "no" else o.precision)
    saving = replace(half, checkpointing=True, recompute="blocks")
    rows: list[tuple[str, OptimSettings]] = [
        ("as set", o),
        ("bf16, all activations kept", replace(half, checkpointing=False)),
        ("bf16, attention recomputed", replace(saving, recompute="attention")),
        ("bf16, checkpointing", saving),
        ("the same, 8-bit AdamW", replace(saving, optimizer="adamw8bit")),
    ]
    if not config.synchronised:
        rows.append(("the same, LoRA 16, AdamW", replace(saving, lora=16)))
    configs = {name: replace(config, optim=optim) for name, optim in rows}
    if config.model.base == "wan":
        configs = {name: row for name, row in configs.items() if "attention" not in name}
        if config.model.text_encoder and not text_stays_off(config):
            cached = replace(config.data, latents="cache")
            configs["as set, latents cached"] = replace(config, data=cached)
    width = 1 + max(map(len, configs))
    head = f"{'per process, GiB':{width}} weights  grads  optim    ema frozen  activ  total   fits"
    lines = [head]
    parameters = 0
    passes: dict[tuple[object, ...], tuple[Weights, Saved]] = {}
    for name, row in configs.items():
        e = _of_row(row, passes, latent_channels, downscale, processes)
        parameters = parameters or e.parameters
        fits = [str(card) for card in CARDS_GIB if e.total <= card * GIB]
        gradients = e.gradients + e.buckets
        numbers = (e.weights, gradients, e.optimizer, e.ema, e.frozen, e.activations, e.total)
        cells = " ".join(f"{value / GIB:6.1f}" for value in numbers)
        lines.append(
            f"{name:{width}} {cells}   {', '.join(fits) + ' GiB' if fits else 'none of 24, 40, 80 GiB'}"
        )
    shape = f"{config.data.frames} x {config.data.resolution} x {config.data.resolution}"
    if config.synchronised:
        wide = config.views.width or config.data.resolution
        shape = f"{config.views.count} views of {config.data.frames} x {config.data.resolution} x {wide}"
    lines.insert(
        0,
        f"{parameters / 1e6:.1f} M parameters, micro-batch {o.batch}{' (here 1)' * (o.batch == 'auto')} of "
        f"{shape}, precision {o.precision}",
    )
    lines.append(_frozen_line(config))
    lines.append(
        f"{processes} processes: grads twice, since gradients are exchanged from a second copy"
        if processes > 1
        else "one process; with several, gradients are exchanged from a second copy: grads twice"
    )
    return "\n".join(lines)


def _frozen_line(config: TrainConfig) -> str:
    """What of the frozen parts is on the card."""
    if config.model.base != "wan" or not config.model.text_encoder:
        return "frozen: autoencoder and encoders in float32, which stay on the card with a latent cache too"
    count = _frozen(config.model.text_encoder, WAN_PARAMETERS["text_encoder"])
    size = _bytes_a_weight(config, "text_encoder") * count / GIB
    kind = "bf16" if config.model.text_encoder != "minilm" else "float32"
    if text_stays_off(config):
        return (
            f"frozen: autoencoder in float32; the text encoder ({4 * count / GIB:.1f} GiB) stays on the CPU"
        )
    return (
        f"frozen: autoencoder in float32 and text encoder ({size:.1f} GiB) in {kind}; with cached latents "
        "(`orbit4d encode`) the text encoder stays on the CPU"
    )


def _of_row(
    config: TrainConfig,
    passes: dict[tuple[object, ...], tuple[Weights, Saved]],
    latent_channels: int,
    downscale: int,
    processes: int,
) -> MemoryEstimate:
    """The estimate of one row; rows that compute alike share the pass that is counted."""
    o = config.optim
    key = (o.precision, half_dtype(o, _CUDA), o.lora, o.optimizer)
    if key not in passes:
        batch = o.batch if isinstance(o.batch, int) else 1
        passes[key] = measured(config, latent_channels, downscale, batch)
    return estimate_of(config, *passes[key], 1, processes)
