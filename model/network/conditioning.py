"""What orbit4d adds to the time embedding of a video UNet: camera and motion, per frame, zero at the start.

The rows built here are added to the time embedding after it was repeated over frames (row = b*F + f), so they
reach every residual block before its SiLU (alibaba/VideoMV, unet_t2v.py and unet_i2vgen.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

#: Keeps log10(m) finite for a clip that does not move.
MOTION_FLOOR = 1e-6


def two_layer_mlp(in_features: int, width: int, zero_init: bool) -> nn.Sequential:
    """Linear-SiLU-Linear, VideoMV's conditioning MLP. With `zero_init` its output is exactly 0 at first."""
    first, last = nn.Linear(in_features, width), nn.Linear(width, width)
    if zero_init:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.SiLU(), last)


def weight_dtype(mlp: nn.Module) -> torch.dtype:
    """What an MLP's first weights are stored in, and so its input."""
    return next(mlp.parameters()).dtype


def camera_features(camera: Tensor, harmonics: int = 0) -> Tensor:
    """Input of the camera MLP: the matrix itself, and if asked sines and cosines of the azimuth.

    `camera` [..., 16] is a row-major camera-to-world; the result is [..., 16 + 2 * harmonics] with
    cos(k a), sin(k a), k = 1..harmonics, where a is the azimuth of the camera's place around Z from +X. A
    camera on the axis has no azimuth and gets that of +X.
    """
    if harmonics == 0:
        return camera
    azimuth = torch.atan2(camera[..., 7], camera[..., 3]).unsqueeze(-1)
    angles = azimuth * torch.arange(1, harmonics + 1, device=camera.device, dtype=camera.dtype)
    return torch.cat([camera, angles.cos(), angles.sin()], dim=-1)


class CameraEmbedding(nn.Sequential):
    """[B, F, 16] camera-to-world (row-major, the checkpoint's world) to rows [B*F, E].

    A `Sequential` so that its weights carry the names of VideoMV's `camera_embedding` (`0`, `2`).
    """

    def __init__(self, camera_dim: int, width: int, harmonics: int, zero_init: bool) -> None:
        super().__init__(*two_layer_mlp(camera_dim + 2 * harmonics, width, zero_init))
        self.harmonics = harmonics

    def forward(self, camera: Tensor) -> Tensor:
        features = camera_features(camera.float(), self.harmonics)
        return super().forward(features.flatten(0, 1).to(weight_dtype(self)))


class MotionEmbedding(nn.Module):
    """Raw motion magnitude m [B] to rows [B, E]; samples whose m is NaN get exactly 0.

    m enters as (log10(m + 1e-6) - mean) / std. The statistics are buffers, 0 and 1 until a trainer sets them
    from its training split, and travel with the weights.
    """

    motion_mean: Tensor
    motion_std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = two_layer_mlp(1, width, zero_init=True)
        self.register_buffer("motion_mean", torch.zeros(()))
        self.register_buffer("motion_std", torch.ones(()))

    def normalise(self, motion: Tensor) -> Tensor:
        """Raw m [B] to standardised log motion [B], float32."""
        log_m = torch.log10(motion.float().clamp_min(0.0) + MOTION_FLOOR)
        return (log_m - self.motion_mean.float()) / self.motion_std.float()

    def forward(self, motion: Tensor) -> Tensor:
        given = ~torch.isnan(motion)
        # NaN is replaced before the MLP: masking only its output would still send NaN into the gradients.
        features = self.normalise(torch.where(given, motion, torch.zeros_like(motion)))
        rows = self.mlp(features.unsqueeze(-1).to(weight_dtype(self.mlp)))
        return torch.where(given.unsqueeze(-1), rows, torch.zeros_like(rows))


class WholePool(nn.AdaptiveAvgPool2d):
    """`AdaptiveAvgPool2d` with the same bits, and on a GPU deterministic where no cell is an average: at the
    size that comes in (the published network at 256 pixels) and at multiples of it (small networks). Its
    parent's backward pass adds up in no fixed order there, and torch refuses it."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, H, W]."""
        rows, columns = cast(tuple[int, int], self.output_size)
        height, width = input.shape[-2:]
        if rows % height or columns % width:
            return super().forward(input)
        repeats = rows // height, columns // width
        if repeats == (1, 1):
            return input
        cells = input[..., :, None, :, None]
        cells = cells.expand(*input.shape[:-2], height, repeats[0], width, repeats[1])
        return cells.reshape(*input.shape[:-2], rows, columns)


def motion_tensor(motion: Tensor | Sequence[float | None], device: torch.device) -> Tensor:
    """m of each sample as [B] float32, NaN where it is None."""
    if isinstance(motion, Tensor):
        return motion.to(device=device, dtype=torch.float32)
    values = [float("nan") if m is None else float(m) for m in motion]
    return torch.tensor(values, dtype=torch.float32, device=device)


def position_ramp(image_latents: Tensor, frames: int) -> Tensor:
    """First view [B, C, h, w] to the image branch's input [B, C, F, h, w].

    Frame 0 is the latent; frame k is the constant k / (F - 1) in every channel, the only frame position that
    VideoMV's image network is given (unet_i2vgen.py).
    """
    first = image_latents.unsqueeze(2)
    if frames == 1:
        return first
    ramp = torch.arange(1, frames, device=first.device, dtype=torch.float32) / (frames - 1)
    rest = ramp.to(first.dtype).view(1, 1, -1, 1, 1).expand(*first.shape[:2], -1, *first.shape[3:])
    return torch.cat([first, rest], dim=2)


def repeat_first_view(image_latents: Tensor, frames: int) -> Tensor:
    """First view [B, C, h, w] at every frame, [B, C, F, h, w]: the image branch's input of small networks.

    With the ramp, what the first view shows reaches the other frames through attention alone, which a network
    trained for minutes does not learn to use.
    """
    return image_latents.unsqueeze(2).expand(-1, -1, frames, -1, -1)


#: What the image branch sees of a first view alone; "ramp" is the published network.
FIRST_VIEW = {"ramp": position_ramp, "repeat": repeat_first_view}
