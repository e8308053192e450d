"""OrbitUNet: diffusers' video UNets with a camera per frame and a motion magnitude per clip.

    unet = OrbitUNet(variant="image", block_out_channels=(32, 64, 96, 96), layers_per_block=1, ...)
    noise = unet(x, t, text, camera=camera, motion=m, image_latents=first_view).sample

The network proper is diffusers' `UNet3DConditionModel` (text) or `I2VGenXLUNet` (image, static3d), kept whole
as `.unet`. Their `forward` repeats the time embedding over frames inside, where nothing can be added per
frame, so the walk over their blocks is ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel, UNet3DConditionOutput
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orbit4d.model.network.conditioning import (
    FIRST_VIEW,
    CameraEmbedding,
    MotionEmbedding,
    WholePool,
    motion_tensor,
    two_layer_mlp,
)
from orbit4d.model.network.interfaces import OrbitUNetConfig, VideoBlock, VideoUNet
from orbit4d.model.network.view_places import Between, ViewPlaces, add_view_sync, has_attention
from orbit4d.model.network.view_sync import check_views

log = logging.getLogger(__name__)

VARIANTS = ("text", "image", "static3d")
#: Frames per second given to VideoMV's image network in training and at inference.
DEFAULT_FPS = 8


class OrbitUNet(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]  # config_name: str and None
    """Denoises an orbit video under text, image or static-3D conditions, cameras and motion magnitude.

    Arguments up to `attention_head_dim` are diffusers' own and default to the published size (1.4 B
    parameters). `attention_head_dim` is the width of a head (diffusers' naming is historic).

    Args:
        variant: "text", "image" (first view) or "static3d" (a whole static orbit; the image network's
            weights).
        camera_dim: numbers per frame given to the camera MLP, 16 for a flattened 4x4 camera-to-world.
        camera_harmonics: additional cos(k a), sin(k a) of the azimuth for k = 1..n. 0 is the published
            network.
        camera_zero_init: start the camera MLP at zero output, which leaves the base network as it was. False
            lets a network trained from nothing feel its cameras from the first step.
        frame_index_embedding: tell the network the index of each frame (for ablations; the base has none).
        temporal_dropout: dropout inside the temporal convolutions (diffusers and VideoMV: 0.1).
        transformer_in_heads: heads of the temporal transformer behind `conv_in` (published and fixed in
            diffusers: 8). It is heads * attention_head_dim wide whatever the level is, which makes it the
            most expensive layer of a small network.
        latent_token_grid: the first view's latent gives grid^2 cross-attention tokens (published: 8).
        double_add_folded: `conv_in` of the image network is right for an image branch that is joined once, as
            here. False marks weights that lack upstream's doubling (diffusers' own conversion): see
            videomv.py.
        first_view: what the image branch sees of a first view: "ramp" (published: frame 0, then the index of
            the frame) or "repeat" (the first view at every frame).
        view_sync: a view module behind every spatial attention (view_sync.py), for synchronised views.
        view_index: whether it tells views apart by their order too; else it does not matter.
    """

    _supports_gradient_checkpointing = True
    config: OrbitUNetConfig
    unet: VideoUNet

    @register_to_config
    def __init__(
        self,
        variant: str = "text",
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        camera_dim: int = 16,
        camera_harmonics: int = 0,
        camera_zero_init: bool = True,
        frame_index_embedding: bool = False,
        temporal_dropout: float = 0.1,
        transformer_in_heads: int = 8,
        latent_token_grid: int = 8,
        double_add_folded: bool = True,
        first_view: str = "ramp",
        view_sync: bool = False,
        view_index: bool = False,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        if first_view not in FIRST_VIEW:
            raise ValueError(f"first_view must be one of {', '.join(FIRST_VIEW)}, got {first_view!r}")
        base = UNet3DConditionModel if variant == "text" else I2VGenXLUNet
        inner = base(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
        )
        self.unet = cast(VideoUNet, inner)
        if transformer_in_heads != 8:
            self.unet.transformer_in = TransformerTemporalModel(
                num_attention_heads=transformer_in_heads,
                attention_head_dim=attention_head_dim,
                in_channels=block_out_channels[0],
                num_layers=1,
                norm_num_groups=norm_num_groups,
            )
        if variant != "text":
            _pool_whole(self.unet.image_latents_context_embedding)
        if variant != "text" and (in_channels != 4 or latent_token_grid != 8):
            _resize_image_branch(self.unet, in_channels, cross_attention_dim, latent_token_grid)
        for module in self.unet.modules():
            if isinstance(module, TemporalConvLayer):
                for inner in module.modules():
                    if isinstance(inner, nn.Dropout):
                        inner.p = temporal_dropout

        width = block_out_channels[0] * 4
        self.camera_embedding = CameraEmbedding(camera_dim, width, camera_harmonics, camera_zero_init)
        self.motion_embedding = MotionEmbedding(width)
        self.frame_embedding: nn.Sequential | None = None
        if frame_index_embedding:
            self.frame_embedding = nn.Sequential(
                Timesteps(block_out_channels[0], True, 0),
                *two_layer_mlp(block_out_channels[0], width, camera_zero_init),
            )
        self.view_places: ViewPlaces | None = None
        if view_sync:
            add_view_sync(self)
        self.gradient_checkpointing = False
        self.recompute = "blocks"
        self._layer, self._middle = _layer, _middle

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> OrbitUNet:
        """diffusers' `from_pretrained`, with weights at aligned addresses.

        It maps the file, whose tensors start anywhere; CPU kernels then take other paths and the last bits of
        the output differ from the network that was saved.
        """
        unet = super().from_pretrained(*args, **kwargs)
        for tensor in (*unet.parameters(), *unet.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
                tensor.data = tensor.data.clone()
        return unet

    @property
    def is_image(self) -> bool:
        """Whether the network has an image branch (variants "image" and "static3d")."""
        return self.config.variant != "text"

    @property
    def embeddings(self) -> tuple[nn.Module, ...]:
        """What turns time step, frame rate, camera, motion and frame index into rows for the blocks."""
        fps = (self.unet.fps_embedding,) if self.is_image else ()
        frame = () if self.frame_embedding is None else (self.frame_embedding,)
        return (self.unet.time_embedding, *fps, self.camera_embedding, self.motion_embedding, *frame)

    @property
    def motion_mean(self) -> Tensor:
        """Mean of log10(m + 1e-6) over the training clips, a buffer []."""
        return self.motion_embedding.motion_mean

    @property
    def motion_std(self) -> Tensor:
        """Standard deviation of log10(m + 1e-6) over the training clips, a buffer []."""
        return self.motion_embedding.motion_std

    def set_motion_statistics(self, mean: float, std: float) -> None:
        """Set the statistics of log10(m + 1e-6); ValueError for a `std` that is not positive."""
        if not std > 0:
            raise ValueError(f"the standard deviation of log motion must be positive, got {std}")
        self.motion_mean.fill_(mean)
        self.motion_std.fill_(std)

    def to_static3d(self) -> OrbitUNet:
        """The same weights under the variant "static3d": `static_latents` take the place of the ramp.

        ValueError for a text network.
        """
        if not self.is_image:
            raise ValueError("the static3d variant grows from an image network; this one is a text network")
        self.register_to_config(variant="static3d")
        return self

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int | float,
        encoder_hidden_states: Tensor | None = None,
        camera: Tensor | None = None,
        motion: Tensor | Sequence[float | None] | None = None,
        image_latents: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        static_latents: Tensor | None = None,
        fps: Tensor | None = None,
        return_dict: bool = True,
        views: int = 1,
        view_camera: Tensor | None = None,
    ) -> UNet3DConditionOutput | tuple[Tensor]:
        """One denoising pass.

        Args:
            sample: [B, C, F, h, w] noisy latents; h and w multiples of 2^(levels - 1).
            timestep: [B] (or one for all).
            encoder_hidden_states: [B, L, D] text tokens. None: no text (one zero token in the text network).
            camera: [B, F, 16] row-major camera-to-world in the checkpoint's world (`videomv_cameras`). None
                adds nothing, as upstream does; it is not the MLP of zeros.
            motion: [B] raw motion magnitude; None, or NaN / None for one sample, adds nothing.
            image_latents: [B, C, h, w] latent of the first view; the ramp over frames is built here.
            image_embeddings: [B, D] or [B, 1, D] image vector; None is zeros, the unconditional branch.
            static_latents: [B, C, F, h, w] a static orbit: takes the place of the ramp, and its frame 0 feeds
                the image tokens. Needed by "static3d"; on "image" it wins over `image_latents`.
            fps: [B]; None is 8. Only the image network has an fps embedding.
            views: V synchronised views of a scene in adjacent rows, row = scene * V + view; B is then B V.
            view_camera: [scenes, V, F, 12] or [B V, F, 12] of the views (`view_cameras`); None switches the
                view module off. A network without one gets a fresh one, which adds 0 until it is trained.

        Returns:
            The prediction in `.sample` [B, C, F, h, w]: noise or velocity, as the schedule has it; with
            `return_dict=False` a tuple of it.

        Raises:
            ValueError: inputs and variant do not fit.
        """
        batch, _, frames, height, width = sample.shape
        step = 2 ** (len(self.config.block_out_channels) - 1)
        if height % step or width % step:
            raise ValueError(f"latent height and width must be multiples of {step}, got {height} x {width}")
        unet, dtype = self.unet, self.dtype

        timestep = torch.as_tensor(timestep, device=sample.device).expand(batch)
        temb = unet.time_embedding(unet.time_proj(timestep).to(dtype))
        context, branch = encoder_hidden_states, None
        if self.is_image:
            if fps is None:
                fps = torch.full((batch,), DEFAULT_FPS, device=sample.device)
            fps = torch.as_tensor(fps)
            fps = fps.to(sample.device).expand(batch)
            temb = temb + unet.fps_embedding(unet.time_proj(fps).to(dtype))
            source = self._image_source(sample, image_latents, static_latents)
            context = self._image_context(source[:, :, 0], image_embeddings, encoder_hidden_states)
            branch = self._image_branch(source)
        elif image_latents is not None or static_latents is not None:
            raise ValueError("the text variant takes neither image_latents nor static_latents")
        elif context is None:
            context = sample.new_zeros(batch, 1, self.config.cross_attention_dim)

        if motion is not None:
            temb = temb + self.motion_embedding(motion_tensor(motion, sample.device).expand(batch))
        temb = temb.repeat_interleave(frames, dim=0)
        if camera is not None:
            if tuple(camera.shape) != (batch, frames, self.config.camera_dim):
                expected = (batch, frames, self.config.camera_dim)
                raise ValueError(f"camera must be {expected}, got {tuple(camera.shape)}")
            temb = temb + self.camera_embedding(camera.to(sample.device))
        if self.frame_embedding is not None:
            index = torch.arange(frames, device=sample.device).repeat(batch)
            temb = temb + self.frame_embedding[1:](self.frame_embedding[0](index).to(dtype))
        context = context.to(dtype).repeat_interleave(frames, dim=0)

        if branch is not None:
            sample = torch.cat([sample, branch], dim=1)
        seen = None if view_camera is None else self._views(view_camera, batch, frames, views, sample.device)
        if seen is None and batch % views:
            raise ValueError(f"views={views} does not divide the batch of {batch}")
        out = self._walk(sample.transpose(1, 2).flatten(0, 1), temb, context, frames, seen)
        out = out.unflatten(0, (batch, frames)).transpose(1, 2)
        return UNet3DConditionOutput(sample=out) if return_dict else (out,)

    def _views(
        self, camera: Tensor, batch: int, frames: int, views: int, device: torch.device
    ) -> tuple[Tensor, int]:
        if self.view_places is None:
            log.warning("this network has no view module: it gets a fresh one, which adds nothing yet")
            add_view_sync(self)
        camera = camera.flatten(0, 1) if camera.ndim == 4 and camera.shape[1] == views else camera
        check_views(batch, frames, views, camera, "view_camera")
        return camera.to(device), views

    # -- the image branch --------------------------------------------------------------------------

    def _image_source(self, sample: Tensor, image: Tensor | None, static: Tensor | None) -> Tensor:
        """What the image branch sees, [B, C, F, h, w]: the static orbit, or the first view and the ramp."""
        if static is not None:
            if static.shape != sample.shape:
                raise ValueError(
                    f"static_latents must be {tuple(sample.shape)}, as the sample, got {tuple(static.shape)}"
                )
            return static.to(sample.dtype)
        if self.config.variant == "static3d":
            raise ValueError("the static3d variant needs static_latents [B, C, F, h, w]")
        if image is None:
            raise ValueError("the image variant needs image_latents [B, C, h, w] of the first view")
        expected = (*sample.shape[:2], *sample.shape[3:])
        if tuple(image.shape) != expected:
            raise ValueError(f"image_latents must be {expected}, got {tuple(image.shape)}")
        return FIRST_VIEW[self.config.first_view](image.to(sample.dtype), sample.shape[2])

    def _image_context(self, first: Tensor, embeddings: Tensor | None, text: Tensor | None) -> Tensor:
        """Cross-attention tokens [B, L, D] in upstream's order: text, first view's latent, image vector."""
        batch, dim = first.shape[0], self.config.cross_attention_dim
        latent_tokens = self.unet.image_latents_context_embedding(first).flatten(2).transpose(1, 2)
        if embeddings is None:
            embeddings = first.new_zeros(batch, dim)
        vector_tokens = self.unet.context_embedding(embeddings.to(self.dtype).reshape(batch, dim))
        parts = [latent_tokens, vector_tokens.reshape(batch, -1, dim)]
        return torch.cat(parts if text is None else [text.to(latent_tokens.dtype), *parts], dim=1)

    def _image_branch(self, source: Tensor) -> Tensor:
        """[B, C, F, h, w] to the channels that join the noisy latents, [B, C, F, h, w]."""
        batch, _, frames, height, width = source.shape
        hidden = self.unet.image_latents_proj_in(source.transpose(1, 2).flatten(0, 1))
        hidden = hidden.unflatten(0, (batch, frames)).permute(0, 3, 4, 1, 2)  # [B, h, w, F, C]
        hidden = self.unet.image_latents_temporal_encoder(hidden.flatten(0, 2))
        return hidden.unflatten(0, (batch, height, width)).permute(0, 4, 3, 1, 2)

    # -- the walk over the blocks ------------------------------------------------------------------

    def _walk(
        self,
        hidden: Tensor,
        temb: Tensor,
        context: Tensor,
        frames: int,
        seen: tuple[Tensor, int] | None = None,
    ) -> Tensor:
        """The body of diffusers' two forwards; every residual block gets `temb` [B*F, E]. `seen` are the
        views' cameras and number, where their module works."""
        unet = self.unet
        places: Iterator[Between] = iter(())
        if seen is not None and self.view_places is not None:
            places = self.view_places.at_work(temb, *seen)
        hidden = unet.conv_in(hidden)
        hidden = unet.transformer_in(hidden, num_frames=frames, return_dict=False)[0]
        skips = [hidden]
        for block in unet.down_blocks:
            for layer in range(len(block.resnets)):
                hidden = self._run(self._layer, block, layer, hidden, temb, context, frames, places)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
                skips.append(hidden)
        hidden = self._run(self._middle, unet.mid_block, 0, hidden, temb, context, frames, places)
        for block in unet.up_blocks:
            for layer in range(len(block.resnets)):
                joined = torch.cat([hidden, skips.pop()], dim=1)
                hidden = self._run(self._layer, block, layer, joined, temb, context, frames, places)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))

    def _run(self, layer: Callable[..., Tensor], block: Any, *rest: Any) -> Tensor:
        *args, places = rest
        attend: Callable[..., Tensor] = self._attend
        if has_attention(block) and (between := next(places, None)) is not None:
            attend = partial(self._attend, between=between)
        if self._recomputes("blocks"):
            dropout = self.config.temporal_dropout > 0
            return checkpoint(layer, block, *args, attend, use_reentrant=False, preserve_rng_state=dropout)
        return layer(block, *args, attend)

    def _attend(self, *args: Any, between: Between | None = None) -> Tensor:
        every: tuple[Any, ...] = (*args, between)
        if self._recomputes("attention"):
            # They hold no dropout, so there is no random state to keep: a recorded step could not.
            return checkpoint(_attention, *every, use_reentrant=False, preserve_rng_state=False)
        return _attention(*every)

    def _recomputes(self, what: str) -> bool:
        return self.gradient_checkpointing and self.recompute == what and torch.is_grad_enabled()

    def compile_blocks(self, **how: Any) -> OrbitUNet:
        """torch.compile for the blocks, in place; `how` are its arguments."""
        self._layer, self._middle = torch.compile(_layer, **how), torch.compile(_middle, **how)
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] | None = None
    ) -> None:
        # diffusers would also switch it on inside the transformers below, and so recompute them twice.
        self.gradient_checkpointing = enable


def _layer(
    block: VideoBlock,
    i: int,
    hidden: Tensor,
    temb: Tensor,
    context: Tensor,
    frames: int,
    attend: Callable[..., Tensor],
) -> Tensor:
    """Layer i of a down or up block: residual, temporal convolution, and spatial and temporal attention."""
    hidden = block.temp_convs[i](block.resnets[i](hidden, temb), num_frames=frames)
    if has_attention(block):
        hidden = attend(block.attentions[i], block.temp_attentions[i], hidden, context, frames)
    return hidden


def _middle(
    block: VideoBlock,
    _: int,
    hidden: Tensor,
    temb: Tensor,
    context: Tensor,
    frames: int,
    attend: Callable[..., Tensor],
) -> Tensor:
    """The middle block: its attention stands between its two residual blocks."""
    hidden = block.temp_convs[0](block.resnets[0](hidden, temb), num_frames=frames)
    for i, (attention, temporal) in enumerate(zip(block.attentions, block.temp_attentions), start=1):
        hidden = attend(attention, temporal, hidden, context, frames)
        hidden = block.temp_convs[i](block.resnets[i](hidden, temb), num_frames=frames)
    return hidden


def _attention(
    attention: nn.Module,
    temporal: nn.Module,
    hidden: Tensor,
    context: Tensor,
    frames: int,
    between: Between | None = None,
) -> Tensor:
    """Spatial attention (to the frame itself and the condition), the other views, attention over frames."""
    hidden = attention(hidden, encoder_hidden_states=context, return_dict=False)[0]
    if between is not None:
        hidden = between(hidden)
    return cast(Tensor, temporal(hidden, num_frames=frames, return_dict=False)[0])


def _pool_whole(branch: nn.Sequential) -> None:
    """Give diffusers' pooling a backward pass that a GPU can repeat."""
    for i, layer in enumerate(branch):
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            branch[i] = WholePool(layer.output_size)


def _resize_image_branch(unet: VideoUNet, channels: int, context_dim: int, token_grid: int) -> None:
    """Rebuild the image branch's input layers for latents that are not the published 4 x 32 x 32.

    diffusers fixes their first convolutions to 4 channels and lets their widths and the number of image
    tokens grow with the latent channels; at 48 pixel-space channels that would be most of a small network.
    Widths agree with the published ones at 4 channels.
    """
    width = max(16, 2 * channels)
    embed = cast(nn.Linear, unet.context_embedding[0]).out_features
    unet.image_latents_proj_in = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, channels, 3, padding=1),
    )
    unet.image_latents_context_embedding = nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.SiLU(),
        WholePool((4 * token_grid, 4 * token_grid)),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(64, context_dim, 3, stride=2, padding=1),
    )
    unet.context_embedding = nn.Sequential(
        nn.Linear(context_dim, embed), nn.SiLU(), nn.Linear(embed, 4 * context_dim)
    )
