"""The "torch" back end: the twin in `reference` behind the common interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orbit4d.recon4d.raster import modes, reference


def rasterize(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
    Ks: Tensor, width: int, height: int, near_plane: float, far_plane: float, eps2d: float,
    sh_degree: int | None, backgrounds: Tensor | None, render_mode: str, absgrad: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """`api.rasterize` on checked arguments: every step is an ordinary torch operation."""
    cameras, n = viewmats.shape[0], means.shape[0]
    means2d, conics, depths, radii = reference.project(
        means, quats, scales, opacities, viewmats, Ks, width, height, near_plane, far_plane, eps2d
    )
    channels = []
    if modes.wants_rgb(render_mode):
        if sh_degree is not None:
            colors = reference.spherical_harmonics(means, colors, viewmats, sh_degree)
        channels.append(colors.expand(cameras, n, 3))
    else:
        backgrounds = None
    if modes.wants_depth(render_mode):
        channels.append(depths[..., None])
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, torch.zeros_like(backgrounds[:, :1])], dim=-1)
    if means2d.requires_grad:
        means2d.retain_grad()
        if absgrad:
            setattr(means2d, "absgrad", torch.zeros_like(means2d))  # noqa: B010  gsplat's attribute
    rendered, alphas = reference.composite(
        means2d, conics, torch.cat(channels, dim=-1), opacities, depths, radii, width, height, backgrounds,
        getattr(means2d, "absgrad", None),
    )  # fmt: skip
    tile = reference.TILE
    with torch.no_grad():
        size = torch.tensor([-(-width // tile), -(-height // tile)], device=means.device)
        low = torch.floor((means2d - radii) / tile).clamp(min=0)
        high = torch.minimum(torch.ceil((means2d + radii) / tile), size.to(means2d.dtype))
        visible = (radii > 0).all(dim=-1)
        tiles = torch.where(visible, (high - low).clamp(min=0).prod(dim=-1), 0.0).to(torch.int32)
    meta = {
        "means2d": means2d,
        "radii": radii,
        "depths": depths,
        "conics": conics,
        "opacities": opacities.expand(cameras, n),
        "camera_ids": None,
        "gaussian_ids": None,
        "tile_size": tile,
        "tile_width": int(size[0]),
        "tile_height": int(size[1]),
        "tiles_per_gauss": tiles,
        "width": width,
        "height": height,
        "n_cameras": cameras,
        "backend": "torch",
    }
    return modes.finish_depth(rendered, alphas, render_mode), alphas, meta
