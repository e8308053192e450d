"""OrbitWan: diffusers' Wan transformer as a base, with synchronised views, cameras, motion, conditions.

    net = OrbitWan(num_attention_heads=4, attention_head_dim=16, num_layers=4, view_blocks=(0, 2), ...)
    flow = net(noisy, t, text, camera=cameras, views=2).sample        # [B V, 16, F, h, w]

The network proper is `WanTransformer3DModel`, kept whole as `.wan`; its own forward has no place between
self- and cross-attention, so the walk over its blocks is ours. All that is added starts at exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orbit4d.model.network.conditioning import MotionEmbedding, motion_tensor
from orbit4d.model.network.interfaces import OrbitWanConfig
from orbit4d.model.network.view_sync import (
    CAMERA_NUMBERS,
    Rotary,
    ViewSync,
    check_views,
    rotary_of,
)

#: Channels of Wan's own image conditioning: a mask for each frame of a latent, and the condition's latents.
MASK_CHANNELS = 4


class OrbitWan(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]  # config_name: str and None
    """Denoises V synchronised videos of a scene (or one orbit) by flow matching.

    Arguments up to `pos_embed_seq_len` are those of `WanTransformer3DModel` and default to Wan 2.1 T2V 1.3 B.

    Args:
        view_blocks: blocks that hold a view module; () has none, "all" every block.
        view_index: whether rotary positions tell views apart, as the released weights do. Without it the
            order of views does not matter.
        orbit_camera: a camera per latent frame for single videos, added to the input of every self-attention.
        motion: the motion magnitude as a condition.
        condition: mask and latents of a first view or a static orbit as a condition (4 + in_channels more
            input channels, a convolution of their own).
        variant: what it is trained for: "views", or of a `WanOrbit` "text", "image" or "static3d".
    """

    _supports_gradient_checkpointing = True
    # diffusers declares it as None alone.
    _keep_in_fp32_modules = ["rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"]  # type: ignore[assignment]  # noqa: RUF012
    config: OrbitWanConfig
    wan: WanTransformer3DModel
    view_sync: nn.ModuleDict

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 12,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 8960,
        num_layers: int = 30,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        view_blocks: tuple[int, ...] | str = (),
        view_index: bool = True,
        orbit_camera: bool = False,
        motion: bool = False,
        condition: bool = False,
        variant: str = "views",
    ) -> None:
        super().__init__()
        self.wan = WanTransformer3DModel(
            patch_size=tuple(patch_size),
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        width = num_attention_heads * attention_head_dim
        self.view_sync = nn.ModuleDict()
        self.add_views(view_blocks)
        self.orbit_cameras: nn.ModuleList | None = None
        if orbit_camera:
            self.orbit_cameras = nn.ModuleList(nn.Linear(CAMERA_NUMBERS, width) for _ in range(num_layers))
            for layer in self.orbit_cameras:
                _zero(layer)
        self.motion_embedding = MotionEmbedding(width) if motion else None
        self.condition_embedding: nn.Conv3d | None = None
        if condition:
            channels = in_channels + MASK_CHANNELS
            steps, rows, columns = patch_size
            patch = (steps, rows, columns)
            self.condition_embedding = nn.Conv3d(channels, width, patch, patch)
            _zero(self.condition_embedding)
        self.gradient_checkpointing = False

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> OrbitWan:
        """diffusers' `from_pretrained`, with weights at aligned addresses (see `OrbitUNet`)."""
        net = super().from_pretrained(*args, **kwargs)
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
                tensor.data = tensor.data.clone()
        return cast(OrbitWan, net)

    def add_views(self, blocks: Iterable[int] | str = "all") -> OrbitWan:
        """Fresh view modules in `blocks` (numbers, or "all"), started from the block's own self-attention.

        ValueError for a block that there is not, or that has one.
        """
        count = len(self.wan.blocks)
        chosen = list(range(count)) if blocks == "all" else [int(block) for block in blocks]
        for number in chosen:
            if not 0 <= number < count or str(number) in self.view_sync:
                raise ValueError(f"view_blocks: no place for a view module in block {number} of {count}")
            block = cast(WanTransformerBlock, self.wan.blocks[number])
            sync = ViewSync(block.attn1.inner_dim, block.attn1.heads, self.config.eps)
            sync.to(device=block.scale_shift_table.device, dtype=block.attn1.to_q.weight.dtype)
            if not block.scale_shift_table.is_meta:
                sync.start_from(block)
            self.view_sync[str(number)] = sync
        self.register_to_config(view_blocks=tuple(sorted(int(name) for name in self.view_sync)))
        return self

    def add_motion(self) -> OrbitWan:
        """A fresh part for the motion magnitude, which adds 0, where there is none."""
        if self.motion_embedding is None:
            like = cast(WanTransformerBlock, self.wan.blocks[0]).scale_shift_table
            self.motion_embedding = MotionEmbedding(like.shape[-1]).to(like.device, like.dtype)
            self.register_to_config(motion=True)
        return self

    @property
    def motion_mean(self) -> Tensor:
        """Mean of log10(m + 1e-6) over the training clips, a buffer []; AttributeError without motion."""
        return self._motion().motion_mean

    @property
    def motion_std(self) -> Tensor:
        """Standard deviation of log10(m + 1e-6) over the training clips, a buffer []."""
        return self._motion().motion_std

    def set_motion_statistics(self, mean: float, std: float) -> None:
        """Set the statistics of log10(m + 1e-6); ValueError for a `std` that is not positive."""
        if not std > 0:
            raise ValueError(f"the standard deviation of log motion must be positive, got {std}")
        self.motion_mean.fill_(mean)
        self.motion_std.fill_(std)

    def _motion(self) -> MotionEmbedding:
        if self.motion_embedding is None:
            raise AttributeError("this network takes no motion")
        return self.motion_embedding

    def view_parameters(self) -> list[nn.Parameter]:
        """What training of the view module changes."""
        return list(self.view_sync.parameters())

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor | None = None,
        camera: Tensor | None = None,
        views: int = 1,
        orbit_camera: Tensor | None = None,
        motion: Tensor | Sequence[float | None] | None = None,
        condition: Tensor | None = None,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """One pass: the velocity eps - z_0 of flow matching.

        Args:
            hidden_states: [B V, C, F, h, w] noisy latents, row = scene * V + view; C is 16, or 36 of a
                checkpoint that takes its conditions there.
            timestep: [B V], or one for all; 1000 sigma.
            encoder_hidden_states: [B V, L, D] text tokens. None: one zero token.
            camera: [B V, F, 12] of the views (`view_cameras`), per latent frame. None switches the view
                module off, whatever `views` is: the views are then independent.
            views: V.
            orbit_camera: [B V, F, 12] relative to the video's own first frame; None adds nothing.
            motion: [B V] raw motion magnitude; None, or NaN for one row, adds nothing.
            condition: [B V, 4 + C, F, h, w] mask and latents; None adds nothing.
            encoder_hidden_states_image: tokens of the image encoder, of checkpoints that have one.

        Returns:
            The prediction in `.sample` [B V, C, F, h, w]; with `return_dict=False` a tuple of it.

        Raises:
            ValueError: shapes do not fit, or a condition that this network has no part for.
        """
        wan = self.wan
        steps, rows, columns = self.config.patch_size
        if any(size % part for size, part in zip(hidden_states.shape[2:], (steps, rows, columns))):
            raise ValueError(
                f"latents {tuple(hidden_states.shape[2:])} are no multiple of {steps, rows, columns}"
            )
        batch = hidden_states.shape[0]
        frames, height, width = (n // p for n, p in zip(hidden_states.shape[2:], (steps, rows, columns)))
        rotary = rotary_of(wan.rope, frames, height, width)
        view_rotary: Rotary | None = None
        if camera is not None:
            check_views(batch, frames, views, camera, "camera")
            if not len(self.view_sync):
                raise ValueError("this network has no view module: add_views() gives it a fresh one")
            view_rotary = rotary_of(wan.rope, views if self.config.view_index else 1, height, width)
            if not self.config.view_index:
                cos, sin = view_rotary
                view_rotary = cos.repeat(1, views, 1, 1), sin.repeat(1, views, 1, 1)
        elif views < 1 or batch % views:
            raise ValueError(f"views={views} does not divide the batch of {batch}")
        if orbit_camera is not None:
            check_views(batch, frames, 1, orbit_camera, "orbit_camera")
            if self.orbit_cameras is None:
                raise ValueError("this network takes no orbit camera")
        temb, t_mod = self._time(timestep, batch, hidden_states.device, motion)
        text = self._text(encoder_hidden_states, batch, hidden_states.device, encoder_hidden_states_image)
        hidden = self._patches(hidden_states, condition)
        orbit_cameras: Iterable[nn.Module | None] = self.orbit_cameras or [None] * len(wan.blocks)
        for number, (block, orbit) in enumerate(zip(wan.blocks, orbit_cameras)):
            sync = None
            if camera is not None and str(number) in self.view_sync:
                sync = self.view_sync[str(number)]
            given = None if orbit is None or orbit_camera is None else orbit
            args: tuple[Any, ...] = (block, sync, given, hidden, text, t_mod, rotary)
            args += (camera, views, view_rotary, orbit_camera)
            hidden = self._run(*args)
        out = self._unpatched(hidden, temb, (frames, height, width))
        return Transformer2DModelOutput(sample=out) if return_dict else (out,)

    def _run(self, *args: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            # They hold no dropout, so there is no random state to keep.
            return cast(Tensor, checkpoint(_block, *args, use_reentrant=False, preserve_rng_state=False))
        return _block(*args)

    # -- what stands around the blocks -------------------------------------------------------------------

    def _time(
        self, timestep: Tensor | float | int, batch: int, device: torch.device, motion: Any
    ) -> tuple[Tensor, Tensor]:
        """Time embedding [n, d] of the head and its projection [n, 6, d], which motion joins."""
        embedder = self.wan.condition_embedder
        timestep = torch.as_tensor(timestep, device=device).reshape(-1)
        if len(timestep) not in (1, batch):
            raise ValueError(
                f"timestep holds {len(timestep)} values, the batch {batch}: give one or one each"
            )
        weight = embedder.time_embedder.linear_1.weight
        rows = sinusoid(timestep, self.config.freq_dim).to(weight.dtype)
        temb = embedder.time_embedder(rows).to(self.dtype)
        moved = temb
        if motion is not None:
            values = motion_tensor(motion, device)
            moved = temb + self._motion()(values.expand(batch)).to(temb.dtype)
        return temb, embedder.time_proj(embedder.act_fn(moved)).unflatten(1, (6, -1))

    def _text(self, tokens: Tensor | None, batch: int, device: torch.device, image: Tensor | None) -> Tensor:
        embedder = self.wan.condition_embedder
        if tokens is None:
            tokens = torch.zeros(batch, 1, self.config.text_dim, device=device)
        text = cast(Tensor, embedder.text_embedder(tokens.to(self.dtype)))
        if image is None:
            return text
        if embedder.image_embedder is None:
            raise ValueError("this network takes no image tokens")
        return torch.cat([embedder.image_embedder(image.to(self.dtype)), text], dim=1)

    def _patches(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        embed = self.wan.patch_embedding
        apart = None
        if condition is not None and self.condition_embedding is not None:
            apart = self.condition_embedding(condition.to(embed.weight.dtype))
        elif condition is not None:
            # Checkpoints for image to video take it in the same convolution.
            latents = torch.cat([latents, condition.to(latents)], dim=1)
        if latents.shape[1] != embed.in_channels:
            raise ValueError(f"the network takes {embed.in_channels} input channels, got {latents.shape[1]}")
        hidden = embed(latents.to(embed.weight.dtype))
        hidden = hidden if apart is None else hidden + apart
        return cast(Tensor, hidden.flatten(2).transpose(1, 2).contiguous())

    def _unpatched(self, hidden: Tensor, temb: Tensor, grid: tuple[int, int, int]) -> Tensor:
        wan = self.wan
        shift, scale = (wan.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        hidden = (wan.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        patches = wan.proj_out(hidden).unflatten(2, (*self.config.patch_size, -1)).unflatten(1, grid)
        # [n, F, h, w, pt, ph, pw, c] to [n, c, F pt, h ph, w pw]
        return cast(Tensor, patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3))


def sinusoid(timestep: Tensor, channels: int) -> Tensor:
    """[n, channels] cosines, then sines, computed in float64: in float32 the phase near t = 1000 is off by
    6e-5, most of what diffusers and the released code differ in."""
    half = channels // 2
    rates = torch.exp(
        -math.log(10000) * torch.arange(half, dtype=torch.float64, device=timestep.device) / half
    )
    angles = timestep.double().unsqueeze(1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _block(
    block: WanTransformerBlock,
    sync: ViewSync | None,
    orbit: nn.Linear | None,
    hidden: Tensor,
    text: Tensor,
    t_mod: Tensor,
    rotary: Rotary,
    camera: Tensor | None,
    views: int,
    view_rotary: Rotary | None,
    orbit_camera: Tensor | None,
) -> Tensor:
    """A block of diffusers with the view module behind its self-attention."""
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (block.scale_shift_table + t_mod.float()).chunk(6, 1)
    seen = (block.norm1(hidden.float()) * (1 + scale) + shift).type_as(hidden)
    if orbit is not None and orbit_camera is not None:
        given = orbit(orbit_camera.to(orbit.weight.dtype)).unsqueeze(2)
        seen = (seen.unflatten(1, (given.shape[1], -1)) + given).flatten(1, 2)
    found = block.attn1(seen, None, None, rotary)
    hidden = (hidden.float() + found * gate).type_as(hidden)
    if sync is not None and camera is not None and view_rotary is not None:
        hidden = sync(hidden, t_mod, camera, views, view_rotary)
    seen = block.norm2(hidden.float()).type_as(hidden)
    hidden = hidden + block.attn2(seen, text, None, None)
    seen = (block.norm3(hidden.float()) * (1 + ffn_scale) + ffn_shift).type_as(hidden)
    return (hidden.float() + block.ffn(seen).float() * ffn_gate).type_as(hidden)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
