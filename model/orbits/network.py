"""WanOrbit: a Wan transformer that is asked as an `OrbitUNet` is, so that training and sampling are one.

    net = WanOrbit(num_attention_heads=4, ..., orbit_camera=True, motion=True, condition=True)
    flow = net(noisy, 1000 * sigma, text, camera=c2w, motion=m, image_latents=condition).sample

Cameras arrive for every frame of the video as absolute matrices; the network is given those of its latents,
relative to the first. All that is added to Wan starts at exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from orbit4d.model.network.wan import MASK_CHANNELS, OrbitWan


class WanOrbit(OrbitWan):
    """Denoises one orbit video by flow matching; arguments are those of `OrbitWan`.

    `config.variant` says what it is conditioned on beside cameras, motion and text: "text" (nothing),
    "image" (a first view, or a static orbit) or "static3d" (a static orbit).
    """

    is_image = False

    def forward(  # type: ignore[override]  # asked as an OrbitUNet
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor | None = None,
        camera: Tensor | None = None,
        motion: Tensor | Sequence[float | None] | None = None,
        image_latents: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        static_latents: Tensor | None = None,
        fps: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """One pass: the velocity eps - z_0.

        Args:
            sample: [B, C, F, h, w] noisy latents.
            timestep: [B], or one for all; 1000 sigma.
            encoder_hidden_states: [B, L, D] text tokens.
            camera: [B, N, 16] camera-to-world of every frame, row-major, in any world of 2 m a unit; N is F
                or stride (F - 1) + 1. None tells none.
            motion: [B] raw motion magnitude, NaN for a row without the condition.
            image_latents: [B, 4 + C, F, h, w], a `video_condition`.
            image_embeddings, static_latents, fps: parts of an OrbitUNet; none of them is taken.

        Raises:
            ValueError: shapes do not fit, or a condition that this network has no part for.
        """
        for name, value in (("image_embeddings", image_embeddings), ("static_latents", static_latents)):
            if value is not None:
                raise ValueError(f"a Wan base takes no {name}: give image_latents, a video_condition")
        known = None if camera is None else orbit_numbers(camera, sample.shape[2])
        return super().forward(
            sample,
            timestep,
            encoder_hidden_states,
            orbit_camera=known,
            motion=motion,
            condition=image_latents,
            return_dict=return_dict,
        )


def orbit_numbers(camera: Tensor, frames: int) -> Tensor:
    """[B, N, 16] camera-to-world matrices (OpenGL axes) to [B, `frames`, 12] float32: the rows of [R|t] of
    each latent's camera in the frame of the first (OpenCV axes).

    Latent k is that of frame 0, stride, 2 stride, .. of N. ValueError where N does not fit.
    """
    count = camera.shape[1]
    stride, rest = divmod(count - 1, max(frames - 1, 1))
    if rest or (stride < 1 and count > 1) or (frames == 1 and count > 1):
        raise ValueError(f"camera: {count} frames of cameras do not fit {frames} latents")
    c2w = camera.double().unflatten(-1, (4, 4))[:, :: max(stride, 1)]
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64, device=camera.device)
    rotation, place = c2w[..., :3, :3] * flip, c2w[..., :3, 3:]
    back = rotation[:, :1].transpose(-1, -2)
    relative = torch.cat([back @ rotation, back @ (place - place[:, :1])], dim=-1)
    return relative.flatten(-2).float()


def video_condition(latents: Tensor, whole: Tensor, given: Tensor | None = None) -> Tensor:
    """Mask and latents [B, 4 + C, F, h, w] of what is known: Wan's own layout of image to video.

    latents: [B, C, F, h, w] of a first view followed by grey, or of a static orbit. whole: bool [B], whether
    every frame is known, or the first alone. given: bool [B], False leaves a row without (all zeros).
    """
    batch, _, frames, height, width = latents.shape
    mask = torch.zeros((batch, MASK_CHANNELS, frames, height, width), device=latents.device)
    mask[:, :, 0] = 1
    every = whole.to(latents.device).view(-1, 1, 1, 1, 1)
    found = torch.cat([torch.where(every, torch.ones_like(mask), mask).to(latents), latents], dim=1)
    if given is None:
        return found
    return found * given.to(found).view(-1, 1, 1, 1, 1)
