"""ViewSync: the view module of SynCamMaster, for the blocks of a Wan transformer and of a video UNet.

The tokens of one frame look at the tokens of the same frame in the other views of the scene, conditioned on
where each view's camera stands; what they find goes through a zero matrix and is added (Bai et al. 2025,
arXiv 2412.07760; KwaiVGI/SynCamMaster 43ea4d9). Views of a scene are adjacent rows: row = scene * views +
view. Until it is trained the module adds exactly 0, and only its projector has gradients.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanAttnProcessor,
    WanRotaryPosEmbed,
)
from torch import Tensor, nn

#: Numbers that tell a view's camera: the rows of [R|t] relative to the reference (network/cameras.py).
CAMERA_NUMBERS = 12

Rotary = tuple[Tensor, Tensor]


class ViewSync(nn.Module):
    """The module of one block of a Wan transformer, in the released form.

    Args:
        dim: width of the tokens.
        heads: heads of the attention; `dim` is a multiple of it.
        eps: of the norms (Wan: 1e-6).
    """

    def __init__(self, dim: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.cam_encoder = _zero_linear(CAMERA_NUMBERS, dim)
        self.attn = WanAttention(
            dim=dim, heads=heads, dim_head=dim // heads, eps=eps, processor=WanAttnProcessor()
        )
        self.projector = _zero_linear(dim, dim)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 3, dim))

    @torch.no_grad()
    def start_from(self, block: nn.Module) -> None:
        """Attention and modulation of `block`, a `WanTransformerBlock`; camera encoder and projector 0."""
        self.attn.load_state_dict(cast(WanAttention, block.attn1).state_dict())
        self.scale_shift_table.copy_(cast(Tensor, block.scale_shift_table)[:, :3])
        for layer in (self.cam_encoder, self.projector):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, timestep: Tensor, camera: Tensor, views: int, rotary: Rotary) -> Tensor:
        """The tokens with what other views add to them, [B V, F s, d].

        hidden: [B V, F s, d], ordered frame, row, column; timestep: [B V or 1, 6, d] projected time;
        camera: [B V, F, 12]; rotary: of (view, row, column).
        """
        shift, scale, gate = (self.scale_shift_table + timestep[:, :3].float()).chunk(3, dim=1)
        frames = camera.shape[1]
        given = self.cam_encoder(camera.to(self.cam_encoder.weight.dtype))
        seen = (self.norm(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        # The camera comes after the modulation; every token of a frame is given the same.
        seen = seen.unflatten(1, (frames, -1)) + given.unsqueeze(2).type_as(hidden)
        found = self.attn(_join_views(seen, views), None, None, rotary)
        found = _part_views(self.projector(found), views, frames).flatten(1, 2)
        return (hidden.float() + found * gate).type_as(hidden)


class ViewSyncUNet(nn.Module):
    """The module of one place of a video UNet: behind a spatial attention, before the temporal one.

    Args:
        channels: width at this place.
        head_dim: width of a head.
        time_channels: width of the time embedding.
    """

    def __init__(self, channels: int, head_dim: int, time_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.modulation = _zero_linear(time_channels, 2 * channels)
        self.cam_encoder = _zero_linear(CAMERA_NUMBERS, channels)
        self.attn = Attention(query_dim=channels, heads=channels // head_dim, dim_head=head_dim)
        self.projector = _zero_linear(channels, channels)

    @torch.no_grad()
    def start_from(self, temporal: nn.Module) -> None:
        """Attention of the first block of a `TransformerTemporalModel`, where the widths agree."""
        first = cast(nn.ModuleList, temporal.transformer_blocks)[0]
        source, target = cast(nn.Module, first.attn1).state_dict(), self.attn.state_dict()
        if {k: v.shape for k, v in source.items()} == {k: v.shape for k, v in target.items()}:
            self.attn.load_state_dict(source)

    def forward(self, hidden: Tensor, temb: Tensor, camera: Tensor, views: int, rotary: Rotary) -> Tensor:
        """Features [B V F, C, H, W] with what other views add to them.

        temb: [B V F, E]; camera: [B V, F, 12]; rotary: of (view, row, column).
        """
        height = hidden.shape[2]
        tokens = hidden.flatten(2).transpose(1, 2)
        shift, scale = self.modulation(F.silu(temb)).unsqueeze(1).chunk(2, dim=2)
        given = self.cam_encoder(camera.to(self.cam_encoder.weight.dtype)).flatten(0, 1).unsqueeze(1)
        seen = (self.norm(tokens) * (1 + scale) + shift + given).unflatten(0, tuple(camera.shape[:2]))
        found = self._attention(_join_views(seen, views), rotary)
        found = _part_views(self.projector(found), views, camera.shape[1]).flatten(0, 1)
        return hidden + found.transpose(1, 2).unflatten(2, (height, -1))

    def _attention(self, seen: Tensor, rotary: Rotary) -> Tensor:
        attn = self.attn
        query, key, value = (
            part(seen).unflatten(2, (attn.heads, -1)) for part in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = rotate(query, rotary), rotate(key, rotary)
        found = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        out = cast(nn.ModuleList, attn.to_out)
        return cast(Tensor, out[0](found.transpose(1, 2).flatten(2)))


def rotate(heads: Tensor, rotary: Rotary) -> Tensor:
    """Turn neighbouring channels of [N, L, heads, channels] by the angles of `rotary`."""
    cos, sin = (part[..., ::2].to(heads.dtype) for part in rotary)
    real, imaginary = heads.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2)


def rotary_of(rope: WanRotaryPosEmbed, slow: int, height: int, width: int) -> Rotary:
    """Cosines and sines [1, slow * height * width, 1, head] of a grid of tokens (frames or views first).

    ValueError for a grid that is larger than the table.
    """
    if max(slow, height, width) > rope.max_seq_len:
        raise ValueError(
            f"{slow} x {height} x {width} tokens: the rotary table holds {rope.max_seq_len} positions"
        )
    steps, rows, columns = rope.patch_size
    # Only the shape is read.
    shape = (1, 1, slow * steps, height * rows, width * columns)
    return cast(Rotary, rope(torch.empty(shape, device="meta")))


def check_views(rows: int, frames: int, views: int, camera: Tensor, name: str) -> None:
    """ValueError unless `views` divides the batch and `camera` is [rows, frames, 12]."""
    if views < 1 or rows % views:
        raise ValueError(f"views={views} does not divide the batch of {rows}")
    if tuple(camera.shape) != (rows, frames, CAMERA_NUMBERS):
        wanted = (rows, frames, CAMERA_NUMBERS)
        raise ValueError(f"{name} must be {wanted}, one per view and frame, got {tuple(camera.shape)}")


def _join_views(tokens: Tensor, views: int) -> Tensor:
    """[(b v), F, s, d] to [(b F), (v s), d]: one sequence per frame of a scene."""
    return tokens.unflatten(0, (-1, views)).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _part_views(tokens: Tensor, views: int, frames: int) -> Tensor:
    """Inverse of `_join_views`."""
    return tokens.unflatten(0, (-1, frames)).unflatten(2, (views, -1)).transpose(1, 2).flatten(0, 1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
