"""What diffusers' classes have and their annotations do not say: for type checkers, never instantiated."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn


class OrbitUNetConfig(FrozenDict):
    """`OrbitUNet.config`: its arguments, as attributes and as items."""

    variant: str
    sample_size: int | None
    in_channels: int
    out_channels: int
    down_block_types: Sequence[str]
    up_block_types: Sequence[str]
    block_out_channels: Sequence[int]
    layers_per_block: int
    norm_num_groups: int
    cross_attention_dim: int
    attention_head_dim: int
    camera_dim: int
    camera_harmonics: int
    camera_zero_init: bool
    frame_index_embedding: bool
    temporal_dropout: float
    transformer_in_heads: int
    latent_token_grid: int
    double_add_folded: bool
    first_view: str
    view_sync: bool
    view_index: bool


class OrbitWanConfig(FrozenDict):
    """`OrbitWan.config`, and of it what `WanTransformer3DModel` has too."""

    patch_size: tuple[int, int, int]
    num_attention_heads: int
    attention_head_dim: int
    in_channels: int
    out_channels: int
    text_dim: int
    freq_dim: int
    num_layers: int
    eps: float
    image_dim: int | None
    rope_max_seq_len: int
    view_blocks: Sequence[int]
    view_index: bool
    orbit_camera: bool
    motion: bool
    condition: bool
    variant: str


class OrbitPipelineConfig(FrozenDict):
    """`OrbitPipeline.config`: its arguments beside the components."""

    parts_spec: dict[str, Any]
    parts_hashes: dict[str, str]
    frames: int
    resolution: int
    background: str
    captions: bool
    caption_prefix: str
    caption_suffix: str
    takes_static: bool
    sample_steps: int
    w1: float
    w2: float
    w_motion: float
    motion: dict[str, Any] | None
    trained_orbit: dict[str, float] | None
    residual: float
    precision: str
    sample_precision: str


class VideoBlock(Protocol):
    """A down, middle or up block of a video UNet; the lowest level has no attention."""

    resnets: nn.ModuleList
    temp_convs: nn.ModuleList
    attentions: nn.ModuleList
    temp_attentions: nn.ModuleList
    downsamplers: nn.ModuleList | None
    """Of down blocks."""
    upsamplers: nn.ModuleList | None
    """Of up blocks."""


class VideoUNet(Protocol):
    """The members of `UNet3DConditionModel` and `I2VGenXLUNet` that are used here."""

    config: FrozenDict
    time_proj: nn.Module
    time_embedding: nn.Module
    conv_in: nn.Conv2d
    transformer_in: nn.Module
    down_blocks: Sequence[VideoBlock]
    mid_block: VideoBlock
    up_blocks: Sequence[VideoBlock]
    conv_norm_out: nn.Module
    conv_act: nn.Module
    conv_out: nn.Conv2d

    # Of the image network alone.
    fps_embedding: nn.Module
    context_embedding: nn.Sequential
    image_latents_proj_in: nn.Sequential
    image_latents_context_embedding: nn.Sequential
    image_latents_temporal_encoder: nn.Module

    def modules(self) -> Iterator[nn.Module]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None: ...

    @classmethod
    def from_config(cls, config: FrozenDict) -> VideoUNet: ...
