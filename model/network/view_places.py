"""Where the view modules of a video UNet stand: behind every spatial attention, in the order of the walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

from orbit4d.model.network.view_sync import Rotary, ViewSyncUNet, rotary_of

#: What is done between spatial and temporal attention, on features [B V F, C, H, W].
Between = Callable[[Tensor], Tensor]


def has_attention(block: Any) -> bool:
    """Whether a block of the UNet has attention."""
    return bool(getattr(block, "has_cross_attention", False))


class ViewPlaces(nn.ModuleList):
    """`ViewSyncUNet` of every place, and the rotary tables that they share.

    Args:
        head_dim: width of a head.
        view_index: whether rotary positions tell views apart.
    """

    def __init__(self, head_dim: int, view_index: bool) -> None:
        super().__init__()
        self.head_dim, self.view_index = head_dim, view_index
        self._tables: dict[tuple[Any, ...], Rotary] = {}

    def at_work(self, temb: Tensor, camera: Tensor, views: int) -> Iterator[Between]:
        """What each place does in one pass, in order."""
        return (partial(self._one, place, temb, camera, views) for place in self)

    def _one(self, place: ViewSyncUNet, temb: Tensor, camera: Tensor, views: int, hidden: Tensor) -> Tensor:
        rotary = self._rotary(views, hidden.shape[2], hidden.shape[3], hidden.device)
        return cast(Tensor, place(hidden, temb, camera, views, rotary))

    def _rotary(self, views: int, height: int, width: int, device: torch.device) -> Rotary:
        key = (views, height, width, device)
        if key not in self._tables:
            slow = views if self.view_index else 1
            longest = max(slow, height, width)
            rope = WanRotaryPosEmbed(self.head_dim, (1, 1, 1), longest)
            cos, sin = rotary_of(rope, slow, height, width)
            repeats = (1, 1 if self.view_index else views, 1, 1)
            self._tables[key] = (cos.repeat(repeats).to(device), sin.repeat(repeats).to(device))
        return self._tables[key]


def add_view_sync(unet: Any) -> Any:
    """Fresh view modules for an `OrbitUNet`, in place, started from the temporal attentions; ValueError where
    it has some."""
    if unet.view_places is not None:
        raise ValueError("this network has a view module")
    head_dim = unet.config.attention_head_dim
    places = ViewPlaces(head_dim, bool(unet.config.view_index))
    inner = unet.unet
    for block in (*inner.down_blocks, inner.mid_block, *inner.up_blocks):
        if not has_attention(block):
            continue
        for temporal in block.temp_attentions:
            channels = temporal.proj_out.out_features
            place = ViewSyncUNet(channels, head_dim, unet.config.block_out_channels[0] * 4)
            place.start_from(temporal)
            places.append(place)
    weight = inner.conv_in.weight
    unet.view_places = places.to(device=weight.device, dtype=weight.dtype).train(unet.training)
    unet.register_to_config(view_sync=True)
    return unet
