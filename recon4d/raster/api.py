"""The one entry to every rasteriser: checks, choice of back end, render modes."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
Backend = Literal["auto", "numba", "gsplat", "torch"]

#: Highest degree of spherical harmonics: what point clouds in the INRIA layout hold.
MAX_SH_DEGREE = 3


def rasterize(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, 3], [C, N, 3], or SH [N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,  # [C, 3] or [3]
    render_mode: RenderMode = "RGB",
    absgrad: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render 3D Gaussians from C pinhole cameras; the signature and conventions are those of gsplat 1.5.3.

    Args:
        means: centres in world units.
        quats: rotations, order w x y z; any length (zero counts as the identity).
        scales: standard deviations along the Gaussian's own axes, world units (not their logarithms).
        opacities: in [0, 1] (not logits).
        colors: RGB, or with `sh_degree` the coefficients of spherical harmonics, K >= (sh_degree + 1)².
        viewmats: world-to-camera, OpenCV axes (`Camera.w2c_opencv`).
        Ks: intrinsics in pixels (`Camera.K`), without skew; they receive no gradient.
        width, height: image size in pixels. Pixel (column j, row i) is sampled at (j + 0.5, i + 0.5).
        near_plane, far_plane: Gaussians whose centre lies outside this range of camera z are not drawn.
        eps2d: variance in px² added to the projected covariance, a low-pass filter of about one pixel.
        sh_degree: degree of harmonics in use, 0 to 3; None means that `colors` are colours.
        backgrounds: colour behind everything; None is black. Depth channels have no background.
        render_mode: "RGB"; "D" accumulated depth Σ w z; "ED" expected depth Σ w z / Σ w; or both kinds
            together, depth last.
        absgrad: also sum the absolute values of the per-pixel gradients of the projected centres
            (Ye et al. 2024, "AbsGS") into `meta["means2d"].absgrad`.
        backend: "numba" (any CPU), "gsplat" (CUDA), "torch" (slow oracle, any device, float64 too), or
            "auto": gsplat for tensors on a GPU, numba otherwise.

    Returns:
        colors [C, H, W, X], premultiplied, X = 3, 1 or 4 by `render_mode`; alphas [C, H, W, 1]; and `meta`
        with gsplat's names: means2d [C, N, 2] (pixels; after a backward pass its `.grad`, and with `absgrad`
        its `.absgrad`, drive density control), radii [C, N, 2] int32 (0 where culled), depths [C, N],
        conics [C, N, 3], opacities [C, N], tile_size, tile_width, tile_height, tiles_per_gauss [C, N],
        width, height, n_cameras, and the name of the backend.

    Gradients reach means, quats, scales, opacities, colors, viewmats and backgrounds. Depth order,
    thresholds and culling are not differentiated.

    Raises:
        InputError: a wrong shape, dtype, device, option, or a value that is not finite; one line.
    """
    tensors = {
        "means": means,
        "quats": quats,
        "scales": scales,
        "opacities": opacities,
        "colors": colors,
        "viewmats": viewmats,
        "Ks": Ks,
    }
    if backgrounds is not None:
        tensors["backgrounds"] = backgrounds
    _check_options(width, height, near_plane, far_plane, eps2d, sh_degree, render_mode, backend)
    _check_tensors(tensors, sh_degree)
    _check_values(tensors)
    return trusted(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, eps2d,
        sh_degree, backgrounds, render_mode, absgrad, backend,
    )  # fmt: skip


def trusted(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
    Ks: Tensor, width: int, height: int, near_plane: float = 0.01, far_plane: float = 1e10,
    eps2d: float = 0.3, sh_degree: int | None = None, backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB", absgrad: bool = False, backend: Backend = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """`rasterize` of arguments that the caller answers for: a fit draws the same tensors at every step.

    On a GPU each look for NaN waits for the device, a quarter of a step.
    """
    viewmats = viewmats.to(means)
    Ks = Ks.detach().to(means)
    cameras = viewmats.shape[0]
    if backgrounds is not None:
        backgrounds = backgrounds.to(means).expand(cameras, 3)

    chosen = _choose(backend, means.device.type)
    # Imported here, because numba and gsplat take long to load.
    if chosen == "gsplat":
        from orbit4d.recon4d.raster import cuda

        draw = cuda.rasterize
    elif chosen == "numba":
        from orbit4d.recon4d.raster import cpu

        draw = cpu.rasterize
    else:
        from orbit4d.recon4d.raster import oracle

        draw = oracle.rasterize
    return draw(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane,
        eps2d, sh_degree, backgrounds, render_mode, absgrad,
    )  # fmt: skip


def _choose(backend: str, device: str) -> str:
    if backend == "auto":
        return "gsplat" if device == "cuda" else "numba" if device == "cpu" else "torch"
    needed = {"numba": "cpu", "gsplat": "cuda"}.get(backend, device)
    if device != needed:
        raise InputError(
            f'rasterize: backend "{backend}" needs tensors on {needed}, these are on {device}; '
            'use backend="auto"'
        )
    return backend


def _check_options(
    width: int, height: int, near_plane: float, far_plane: float, eps2d: float,
    sh_degree: int | None, render_mode: str, backend: str,
) -> None:  # fmt: skip
    if render_mode not in get_args(RenderMode):
        raise InputError(
            f'rasterize: render_mode "{render_mode}" is none of {", ".join(get_args(RenderMode))}'
        )
    if backend not in get_args(Backend):
        raise InputError(f'rasterize: backend "{backend}" is none of {", ".join(get_args(Backend))}')
    if not (1 <= width <= 2**15 and 1 <= height <= 2**15):
        raise InputError(f"rasterize: image size {width}x{height} is not between 1x1 and 32768x32768")
    if not 0 < near_plane < far_plane:
        raise InputError(f"rasterize: need 0 < near_plane < far_plane, got {near_plane} and {far_plane}")
    if not (math.isfinite(eps2d) and eps2d >= 0):
        raise InputError(f"rasterize: eps2d must be a finite number of px², at least 0, got {eps2d}")
    if sh_degree is not None and not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise InputError(f"rasterize: sh_degree must be between 0 and {MAX_SH_DEGREE}, got {sh_degree}")


def _check_tensors(tensors: dict[str, Tensor], sh_degree: int | None) -> None:
    means = tensors["means"]
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"rasterize: {name} must be a torch tensor, got {type(tensor).__name__}")
    n = means.shape[0] if means.dim() else 0
    c = tensors["viewmats"].shape[0] if tensors["viewmats"].dim() else 0
    if c == 0:
        raise InputError("rasterize: viewmats holds no camera, need [C, 4, 4] with C >= 1")
    k = 0 if sh_degree is None else (sh_degree + 1) ** 2
    shapes: dict[str, list[tuple[int, ...]]] = {
        "means": [(n, 3)],
        "quats": [(n, 4)],
        "scales": [(n, 3)],
        "opacities": [(n,)],
        "colors": [(n, 3), (c, n, 3)],
        "viewmats": [(c, 4, 4)],
        "Ks": [(c, 3, 3)],
        "backgrounds": [(3,), (c, 3)],
    }
    for name, tensor in tensors.items():
        if name == "colors" and sh_degree is not None:
            have = tuple(tensor.shape)
            good = len(have) == 3 and have[0] == n and have[1] >= k and have[2] == 3
            wanted = f"[{n}, K >= {k}, 3]"
        else:
            good = tuple(tensor.shape) in shapes[name]
            wanted = " or ".join(str(list(shape)) for shape in shapes[name])
        if not good:
            raise InputError(f"rasterize: {name} has shape {list(tensor.shape)}, need {wanted}")
        camera_side = name in ("viewmats", "Ks", "backgrounds")
        if not camera_side and tensor.dtype != means.dtype:
            raise InputError(f"rasterize: {name} is {tensor.dtype}, means are {means.dtype}; use one dtype")
        if not camera_side and tensor.device != means.device:
            raise InputError(f"rasterize: {name} is on {tensor.device}, means are on {means.device}")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise InputError(f"rasterize: {name} is {tensor.dtype}, need float32 or float64")


def _check_values(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not _all_finite(tensor):
            bad = int((~torch.isfinite(tensor.detach())).sum())
            raise InputError(
                f"rasterize: {name} holds {bad} values that are NaN or infinite; drop or fix them"
            )


def _all_finite(tensor: Tensor) -> bool:
    """One cheap sum answers for nearly every tensor; only a sum that overflows needs the full look."""
    values = tensor.detach()
    if values.device.type == "cpu":
        # NumPy's sum, because torch's may wake a thread team that then spins beside the kernels.
        with np.errstate(all="ignore"):
            total = float(values.numpy().sum())
    else:
        total = float(values.sum())
    return math.isfinite(total) or bool(torch.isfinite(values).all())
