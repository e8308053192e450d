"""Networks small enough for seconds, and the published VideoMV layout written out from its description."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.model import OrbitWan, view_cameras
from orbit4d.model.network.unet import OrbitUNet

#: Four levels as published, everything else small.
SMALL = {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "attention_head_dim": 8,
    "norm_num_groups": 16,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and sums come out in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_unet() -> Callable[..., OrbitUNet]:
    """`small_unet("image", loud=True, **kwargs)`: a seeded network; loud: no MLP of ours is zero any more."""

    def make(variant: str = "text", loud: bool = False, seed: int = 0, **kwargs: Any) -> OrbitUNet:
        torch.manual_seed(seed)
        unet = OrbitUNet(variant=variant, **{**SMALL, **kwargs}).eval()
        for mlp in (unet.camera_embedding, unet.motion_embedding.mlp):
            if loud:
                torch.nn.init.normal_(mlp[2].weight, std=0.2)
                torch.nn.init.normal_(mlp[2].bias, std=0.2)
        return unet

    return make


@pytest.fixture(scope="session")
def small_inputs() -> Callable[..., dict[str, Any]]:
    """`small_inputs("image", batch=2, frames=3, size=8)`: arguments of OrbitUNet for one pass."""

    def make(
        variant: str = "text",
        batch: int = 2,
        frames: int = 3,
        size: int = 8,
        channels: int = 4,
        dim: int = 48,
        seed: int = 0,
    ) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        inputs: dict[str, Any] = {
            "sample": draw(batch, channels, frames, size, size),
            "timestep": torch.arange(batch) * 300 + 21,
            "encoder_hidden_states": draw(batch, 5, dim),
            "camera": draw(batch, frames, 16),
            "motion": torch.linspace(0.001, 0.1, batch),
        }
        if variant != "text":
            inputs["image_embeddings"] = draw(batch, dim)
        if variant == "image":
            inputs["image_latents"] = draw(batch, channels, size, size)
        if variant == "static3d":
            inputs["static_latents"] = draw(batch, channels, frames, size, size)
        return inputs

    return make


def published_layout(
    variant: str, dim: int = 320, mult: tuple[int, ...] = (1, 2, 4, 4), head: int = 64, context: int = 1024
) -> dict[str, tuple[int, ...]]:
    """Every key and shape of a VideoMV UNet, from the description of its blocks and not from our rules.

    Two residual blocks a level; attention on all levels but the lowest; upstream's numbering of one flat list
    of blocks on the way down and one on the way up.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    embed = 4 * dim

    def put(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def residual(name: str, into: int, out: int) -> None:
        put(f"{name}.in_layers.0", into)
        put(f"{name}.in_layers.2", out, into, 3, 3)
        put(f"{name}.emb_layers.1", out, embed)
        put(f"{name}.out_layers.0", out)
        put(f"{name}.out_layers.3", out, out, 3, 3)
        if into != out:
            put(f"{name}.skip_connection", out, into, 1, 1)
        for k, position in ((1, 2), (2, 3), (3, 3), (4, 3)):
            put(f"{name}.temopral_conv.conv{k}.0", out)
            put(f"{name}.temopral_conv.conv{k}.{position}", out, out, 3, 1, 1)

    def transformer(name: str, width: int, inner: int, text: bool) -> None:
        last = () if text else (1,)
        put(f"{name}.norm", width)
        put(f"{name}.proj_in", inner, width, *last)
        put(f"{name}.proj_out", width, inner, *last)
        block = f"{name}.transformer_blocks.0"
        for attention, keys in (("attn1", inner), ("attn2", context if text else inner)):
            put(f"{block}.{attention}.to_q", inner, inner, bias=False)
            put(f"{block}.{attention}.to_k", inner, keys, bias=False)
            put(f"{block}.{attention}.to_v", inner, keys, bias=False)
            put(f"{block}.{attention}.to_out.0", inner, inner)
        put(f"{block}.ff.net.0.proj", 8 * inner, inner)
        put(f"{block}.ff.net.2", inner, 4 * inner)
        for i in (1, 2, 3):
            put(f"{block}.norm{i}", inner)

    def attentions(name: str, width: int) -> None:
        transformer(f"{name}.1", width, width, text=True)
        transformer(f"{name}.2", width, width, text=False)

    for name, width in (("time_embed", dim), ("camera_embedding", 16)):
        put(f"{name}.0", embed, width)
        put(f"{name}.2", embed, embed)
    put("input_blocks.0.0", dim, 4 if variant == "text" else 8, 3, 3)
    transformer("input_blocks.0.1", dim, 8 * head, text=False)
    widths, skips, index, now = [dim * m for m in mult], [dim], 0, dim
    for level, width in enumerate(widths):
        for _ in range(2):
            index += 1
            residual(f"input_blocks.{index}.0", now, width)
            if level < 3:
                attentions(f"input_blocks.{index}", width)
            now = width
            skips.append(now)
        if level < 3:
            index += 1
            put(f"input_blocks.{index}.op", width, width, 3, 3)
            skips.append(now)
    residual("middle_block.0", now, now)
    transformer("middle_block.1", now, now, text=True)
    transformer("middle_block.2", now, now, text=False)
    residual("middle_block.3", now, now)
    index = -1
    for level, width in reversed(list(enumerate(widths))):
        for i in range(3):
            index += 1
            residual(f"output_blocks.{index}.0", now + skips.pop(), width)
            now = width
            if level < 3:
                attentions(f"output_blocks.{index}", width)
            if i == 2 and level > 0:
                put(f"output_blocks.{index}.{3 if level < 3 else 1}.conv", width, width, 3, 3)
    put("out.0", dim)
    put("out.2", 4, dim, 3, 3)
    if variant == "text":
        return shapes
    put("fps_embedding.0", embed, dim)
    put("fps_embedding.2", embed, embed)
    put("context_embedding.0", embed, context)
    put("context_embedding.2", 4 * context, embed)
    for position, into, out in ((0, 4, 16), (2, 16, 16), (4, 16, 4)):
        put(f"local_image_concat.{position}", out, into, 3, 3)
    for position, into, out in ((0, 4, 32), (3, 32, 64), (5, 64, context)):
        put(f"local_image_embedding.{position}", out, into, 3, 3)
    encoder = "local_temporal_encoder.layers.0"
    put(f"{encoder}.0.norm", 4)
    put(f"{encoder}.0.fn.to_qkv", 24, 4, bias=False)
    put(f"{encoder}.0.fn.to_out.0", 4, 8)
    put(f"{encoder}.1.net.0.0", 16, 4)
    put(f"{encoder}.1.net.2", 4, 16)
    return shapes


@pytest.fixture(scope="session")
def videomv_layout() -> Callable[..., dict[str, tuple[int, ...]]]:
    return published_layout


@pytest.fixture(scope="session")
def micro_config() -> Callable[..., Any]:
    """`micro_config("optim.lr=1e-3", ...)`: the tiny preset shrunk to a network of seconds; 3 static and 4
    dynamic steps.
    """
    import json

    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import override

    unet = {
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "camera_harmonics": 1,
        "camera_zero_init": False,
        "temporal_dropout": 0.1,
        "latent_token_grid": 1,
    }
    stages = [{"name": "static", "steps": 3}, {"name": "dynamic", "steps": 4, "static_share": 0.3}]

    def make(*assignments: str) -> Any:
        return override(
            preset("tiny"),
            [
                f"model.unet={json.dumps(unet)}",
                f"stages={json.dumps(stages)}",
                "model.autoencoder=unshuffle:4",
                "data.resolution=16",
                "data.frames=4",
                "data.static_condition=0.5",
                "optim.effective_batch=2",
                "optim.batch=2",
                "checkpoint_every=2",
                "validate_every=3",
                *assignments,
            ],
        )

    return make


#: Arguments of a Wan network of 25 thousand weights.
SMALL_WAN = {
    "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "text_dim": 10, "freq_dim": 16,
    "num_layers": 3,
}  # fmt: skip


def _network(loud: bool = False, seed: int = 0, **kwargs: Any) -> OrbitWan:
    torch.manual_seed(seed)
    net = OrbitWan(**{**SMALL_WAN, "view_blocks": "all", **kwargs}).eval()
    if loud:
        for name, parameter in net.view_sync.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3 if "norm" not in name else 1.0)
    return net


def _inputs(scenes: int = 1, views: int = 2, frames: int = 2, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    rows = scenes * views
    angles = torch.rand(scenes, views, generator=generator) * 360
    c2w = np.array([[[orbit_c2w(float(a), 10.0, 2.0)] * frames for a in row] for row in angles])
    return {
        "hidden_states": torch.randn(rows, 16, frames, 4, 6, generator=generator),
        "timestep": torch.linspace(900.0, 300.0, rows),
        "encoder_hidden_states": torch.randn(scenes, 5, 10, generator=generator).repeat_interleave(views, 0),
        "camera": view_cameras(c2w).flatten(0, 1),
        "views": views,
    }


@pytest.fixture(scope="session")
def network() -> Callable[..., OrbitWan]:
    """`network(loud=True, **kwargs)`: a seeded OrbitWan; loud: nothing of the view module is zero."""
    return _network


@pytest.fixture(scope="session")
def inputs() -> Callable[..., dict[str, Any]]:
    """`inputs(scenes, views, frames)`: arguments of one pass."""
    return _inputs
