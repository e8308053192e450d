"""The "gsplat" back end: nerfstudio's CUDA kernels behind the common interface.

gsplat is an extra (`pip install orbit4d[gpu]`) and compiles its kernels on first use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.raster import modes, oracle


def rasterize(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
    Ks: Tensor, width: int, height: int, near_plane: float, far_plane: float, eps2d: float,
    sh_degree: int | None, backgrounds: Tensor | None, render_mode: str, absgrad: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """`api.rasterize` on checked arguments that live on a GPU.

    Where gsplat's kernels have no answer the twin's is given: no Gaussians at all, and quaternions of length
    zero (NaN in gsplat, the identity here).
    """
    if means.shape[0] == 0:
        return oracle.rasterize(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane,
            eps2d, sh_degree, backgrounds, render_mode, absgrad,
        )  # fmt: skip
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise InputError(
            'rasterize: backend "gsplat" needs the package gsplat (pip install "orbit4d[gpu]"); '
            'or move the tensors to the CPU, or use backend="torch"'
        ) from error
    dtype = means.dtype
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0], device=means.device)
    quats = quats.float()
    quats = torch.where((quats == 0).all(dim=-1, keepdim=True), identity, quats)
    rendered, alphas, meta = rasterization(
        means.float(),
        quats,
        scales.float(),
        opacities.float(),
        colors.float(),
        viewmats.float(),
        Ks.float(),
        width,
        height,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        sh_degree=sh_degree,
        # Unpacked, so that means2d and radii keep their [C, N, ...] shapes as in the other back ends.
        packed=False,
        backgrounds=None if backgrounds is None or not modes.wants_rgb(render_mode) else backgrounds.float(),
        render_mode=render_mode,
        absgrad=absgrad,
        rasterize_mode="classic",
    )
    if meta["means2d"].requires_grad:
        meta["means2d"].retain_grad()
    meta["backend"] = "gsplat"
    return rendered.to(dtype), alphas.to(dtype), meta
