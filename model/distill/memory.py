"""What a step of score distillation needs of a card, before anything is downloaded.

Networks are built on the meta device, in half precision, with attention counted as the fused kernels keep it.
A storage counts once: views of weights are not new memory (counting them adds 0.5 GiB to each of the 2D
networks, the sum of their linear layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from orbit4d.model.compute.live import peak_of
from orbit4d.model.compute.saved import Kept, as_on_a_gpu
from orbit4d.model.distill.lora import injected
from orbit4d.model.distill.scores import layouts
from orbit4d.model.distill.scores.offload import Offload, blocks_of, bytes_of
from orbit4d.model.distill.scores.published import PUBLISHED

GIB = 1024**3
CARDS_GIB = (24, 40, 80)
#: Workspaces, fragments and the CUDA context.
_SHARE, _BYTES = 1.1, GIB
#: Gaussian and its Adam state: value, gradient and two moments of four bytes each.
_BYTES_A_NUMBER, _NUMBERS_A_GAUSSIAN = 16, 14
#: The backward pass of the encoder needs this much of its graph at the peak.
_BACKWARD = 1.2

#: Height and width that the priors of a slot are asked at, where they say none of their own.
_SIZES = {"2d": (512, 512), "3d": (256, 256), "video": (256, 256), "tile": (1024, 1024)}


@dataclass(frozen=True)
class PriorMemory:
    """Bytes of one prior at what it is asked."""

    name: str
    weights: int
    """Network, ControlNet and autoencoder in half precision; text and image towers are dropped once used."""
    peak: int
    """Of a pass without a graph, both branches in one batch."""
    staying: int
    """Of `weights`, those that offload leaves on the card: the autoencoder, which has a graph."""
    block: int
    """The largest block of the networks, which offload "sequential" brings at one time."""
    encoder_graph: int
    """What the encoder keeps of one frame for its backward pass, bfloat16."""
    frames: int
    lora: int = 0
    """Of the copy that `vsd` and `msd` train: its weights, gradients and moments."""
    lora_graph: int = 0
    """What one training pass of it keeps of the network."""

    @property
    def trains(self) -> bool:
        """Whether a copy of it is trained: then the network stays on the card under offload too."""
        return self.lora > 0

    def needs(self, two_pass: bool) -> int:
        """Weights with the larger of pass and encoder's backward."""
        graph = int(_BACKWARD * self.encoder_graph * (1 if two_pass else self.frames))
        return self.weights + self.lora + max(self.peak, graph, int(_BACKWARD * self.lora_graph))


@dataclass(frozen=True)
class StagePlan:
    """One stage with all its priors on the card."""

    stage: str
    priors: tuple[PriorMemory, ...]
    gaussians: int
    """Bytes of Gaussians, gradients and moments."""

    def total(self, two_pass: bool, offload: Offload = "none") -> int:
        """Bytes that a card needs to have, x 1.1 + 1 GiB: every prior's weights and the most that one turn
        adds. Under offload the autoencoders, and the largest network ("idle") or block ("sequential")."""
        turns = [prior.needs(two_pass) - prior.weights - prior.lora for prior in self.priors]
        held = sum(prior.weights + prior.lora for prior in self.priors)
        if offload != "none":
            held = sum(p.weights + p.lora if p.trains else p.staying for p in self.priors)
            idle = offload == "idle"
            leaving = [p for p in self.priors if not p.trains]
            held += max((p.weights - p.staying if idle else p.block for p in leaving), default=0)
        return int((held + max(turns, default=0) + self.gaussians) * _SHARE) + _BYTES

    @property
    def moved(self) -> int:
        """Bytes that offload brings to the card in a step which asks every prior, both branches of each."""
        return sum(2 * (prior.weights - prior.staying) for prior in self.priors if not prior.trains)

    def mode(self, card_gib: float) -> str:
        """The first of one graph, two-pass, and two-pass with offload idle or sequential that fits."""
        modes: tuple[tuple[str, bool, Offload], ...] = (
            ("one graph", False, "none"),
            ("two-pass", True, "none"),
            ("two-pass, offload idle", True, "idle"),
            ("two-pass, offload sequential", True, "sequential"),
        )
        for words, two_pass, offload in modes:
            if self.total(two_pass, offload) <= card_gib * GIB:
                return words
        return "does not fit"

    def row(self) -> str:
        """One line for `--dry-run`."""
        parts = ", ".join(
            f"{p.name} {p.weights / GIB:.2f} + {p.peak / GIB:.2f} (a frame {p.encoder_graph / GIB:.2f})"
            + (f" and its LoRA {p.lora / GIB:.2f} (a pass {p.lora_graph / GIB:.2f})" if p.trains else "")
            for p in self.priors
        )
        cards = "; ".join(f"{card} GiB: {self.mode(card)}" for card in CARDS_GIB)
        totals = f"{self.total(False) / GIB:.1f} GiB one graph, {self.total(True) / GIB:.1f} two-pass, "
        totals += f"{self.total(True, 'idle') / GIB:.1f} offload idle, "
        totals += (
            f"{self.total(True, 'sequential') / GIB:.1f} sequential (moves {self.moved / GIB:.1f} a step)"
        )
        return f"{self.stage}: {parts}: {totals}; {cards}"


def prior_memory(name: str, images: int, size: tuple[int, int] | None = None) -> PriorMemory:
    """Memory of a published prior (short name) asked for `images` images or a clip of as many frames.

    size: height and width in pixels; None: its own.
    """
    published = PUBLISHED[name]
    network: Any = layouts.network(name)
    size = size or published.size or _SIZES[published.slot]
    h, w = size[0] // 8, size[1] // 8
    staying = bytes_of(layouts.autoencoder())
    networks = [network]
    tokens, width = layouts.TOKENS[name]
    clips = published.slot == "video"
    # Both branches of guidance go in one batch.
    batch = 2 if clips else 2 * images
    channels = network.config["in_channels"]
    z = _empty(batch, channels, *((images,) if clips else ()), h, w)
    t, given = torch.zeros(batch, device="meta"), _empty(batch, tokens, width)
    if published.slot == "tile":
        steering = layouts.control()
        networks.append(steering)
        image = _empty(batch, 3, *size)
        peak = peak_of(lambda: _steered(network, steering, z, t, given, image))
    else:
        peak = peak_of(lambda: network(z, t, given))
    weights = staying + sum(bytes_of(part) for part in networks)
    block = max(bytes_of(part) for whole in networks for part in blocks_of(whole).values())
    return PriorMemory(name, weights, peak, staying, block, encoder_graph(size), images)


def with_lora(prior: PriorMemory, images: int, rank: int, size: tuple[int, int] | None = None) -> PriorMemory:
    """A prior of which `vsd` or `msd` trains a copy: adapters in float32 with gradient and two moments, and
    the graph of one pass of the conditioned branch."""
    name = prior.name
    network: Any = layouts.network(name)
    with torch.device("meta"):
        injected(network, rank)
    adapters = [w for key, w in network.named_parameters() if ".lora_" in key]
    counter = Kept()
    counter.ignore = {p.untyped_storage()._cdata for p in network.parameters()}
    for weight in adapters:
        weight.requires_grad_(True)
    h, w = (edge // 8 for edge in size or PUBLISHED[name].size or _SIZES[PUBLISHED[name].slot])
    clips = PUBLISHED[name].slot == "video"
    batch = 1 if clips else images
    z = _empty(batch, network.config["in_channels"], *((images,) if clips else ()), h, w)
    given = _empty(batch, *layouts.TOKENS[name])
    with as_on_a_gpu(), torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t):
        network(z, torch.zeros(batch, device="meta"), given)
    numbers = sum(weight.numel() for weight in adapters)
    return replace(prior, lora=_BYTES_A_NUMBER * numbers, lora_graph=counter.bytes)


@cache
def encoder_graph(size: tuple[int, int]) -> int:
    """Bytes that Stable Diffusion's encoder keeps of one image for its backward pass, bfloat16."""
    encoder: Any = layouts.autoencoder(torch.bfloat16)
    encoder.requires_grad_(False)
    counter = Kept()
    counter.ignore = {p.untyped_storage()._cdata for p in encoder.parameters()}
    image = torch.empty(1, 3, *size, device="meta", dtype=torch.bfloat16, requires_grad=True)
    with as_on_a_gpu(), torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t):
        encoder.encode(image)
    return counter.bytes


def stage_plan(stage: str, priors: Sequence[PriorMemory], gaussians: int) -> StagePlan:
    """The plan of a stage with `gaussians` Gaussians (positions, rotations, scales, opacity, colour)."""
    return StagePlan(stage, tuple(priors), gaussians * _NUMBERS_A_GAUSSIAN * _BYTES_A_NUMBER)


def _steered(network: Any, steering: Any, z: Any, t: Any, given: Any, image: Any) -> Any:
    down, middle = steering(z, t, given, image, return_dict=False)
    return network(z, t, given, down_block_additional_residuals=down, mid_block_additional_residual=middle)


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=torch.float16)
