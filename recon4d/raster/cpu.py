"""The "numba" back end: CPU kernels joined to torch's autograd.

Three differentiable steps, cut where gsplat cuts them, so that `meta["means2d"]` is a tensor of the graph:
projection, spherical harmonics, compositing. All arithmetic is float32; float64 tensors are converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orbit4d.recon4d.raster import blending, harmonics, modes, projection, threads, unblending
from orbit4d.recon4d.raster.arguments import (
    Bands,
    Drawn,
    LobeGradients,
    Lobes,
    Projected,
    Records,
    ScreenGradients,
    Shapes,
    SplatGradients,
    Splats,
    Target,
    TargetGradients,
    View,
)
from orbit4d.recon4d.raster.binning import RECORD, TILE, plan, rows_per_band


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _zeros(*shape: int) -> Tensor:
    """NumPy's zeros, because torch's may wake a thread team that then spins beside the kernels."""
    return torch.from_numpy(np.zeros(shape, np.float32))


def _blocks(n: int, size: int) -> int:
    return -(-n // size)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, viewmats, Ks, screen):
        cameras, n = viewmats.shape[0], means.shape[0]
        means2d, conics = means.new_empty(cameras, n, 2), means.new_empty(cameras, n, 3)
        depths, packed = means.new_empty(cameras, n), means.new_empty(cameras, n, RECORD)
        radii = torch.empty(cameras, n, 2, dtype=torch.int32)
        boxes = torch.empty(cameras, n, 4, dtype=torch.int32)
        tiles = torch.empty(cameras, n, dtype=torch.int32)
        shapes = Shapes(_array(means), _array(quats), _array(scales))
        views, intrinsics, flat_opacities = _array(viewmats), _array(Ks), _array(opacities)
        outputs = (means2d, conics, depths, radii, packed, boxes, tiles)
        for c in range(cameras):
            threads.run(
                projection.project, _blocks(n, projection.BLOCK), shapes, flat_opacities,
                View(views[c], intrinsics[c], *screen), Projected(*(out[c].numpy() for out in outputs)),
            )  # fmt: skip
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii, conics)
        ctx.screen = screen
        ctx.mark_non_differentiable(radii, packed, boxes, tiles)
        ctx.set_materialize_grads(False)
        return means2d, conics, depths, radii, packed, boxes, tiles

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_means2d, grad_conics, grad_depths, *_):
        means, quats, scales, viewmats, Ks, radii, conics = ctx.saved_tensors
        cameras, n = radii.shape[:2]
        shapes = Shapes(_array(means), _array(quats), _array(scales))
        views, intrinsics = _array(viewmats), _array(Ks)
        grads = [_zeros(*t.shape) for t in (means, quats, scales)]
        grad_view = _zeros(cameras, 4, 4) if ctx.needs_input_grad[4] else None
        grad_means2d = _zeros(cameras, n, 2) if grad_means2d is None else grad_means2d
        grad_conics = _zeros(cameras, n, 3) if grad_conics is None else grad_conics
        with_depths = grad_depths is not None
        blocks = _blocks(n, projection.BLOCK)
        gradients = Shapes(*(g.numpy() for g in grads))
        for c in range(cameras):
            per_block = np.zeros((0 if grad_view is None else blocks, 3, 4))
            screen = ScreenGradients(
                _array(grad_means2d[c]), _array(grad_conics[c]),
                _array(grad_depths[c]) if with_depths else np.zeros(0, np.float32), with_depths,
            )  # fmt: skip
            threads.run(
                projection.project_backward, blocks, shapes, View(views[c], intrinsics[c], *ctx.screen),
                _array(radii[c]), _array(conics[c]), screen, gradients, per_block,
            )  # fmt: skip
            if grad_view is not None:
                grad_view[c] = torch.from_numpy(projection.camera_gradient(per_block))
        return *grads, None, grad_view, None, None


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, coefficients, origins, radii, degree: int):
        cameras, n = radii.shape[:2]
        colors = means.new_empty(cameras, n, 3)
        for c in range(cameras):
            lobes = Lobes(_array(means), _array(coefficients), _array(origins[c]), degree, _array(radii[c]))
            threads.run(harmonics.evaluate, _blocks(n, harmonics.BLOCK), lobes, colors[c].numpy())
        ctx.save_for_backward(means, coefficients, origins, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_colors):
        means, coefficients, origins, radii, colors = ctx.saved_tensors
        cameras, n = radii.shape[:2]
        geometry = ctx.needs_input_grad[0] or ctx.needs_input_grad[2]
        grad_means = _zeros(n if geometry else 0, 3)
        grad_coefficients = _zeros(*coefficients.shape)
        grad_origins = _zeros(*origins.shape)
        blocks = _blocks(n, harmonics.BLOCK)
        for c in range(cameras):
            per_block = np.zeros((blocks, 3))
            lobes = Lobes(
                _array(means), _array(coefficients), _array(origins[c]), ctx.degree, _array(radii[c])
            )
            threads.run(
                harmonics.evaluate_backward, blocks, lobes, _array(colors[c]), _array(grad_colors[c]),
                LobeGradients(grad_coefficients.numpy(), grad_means.numpy(), per_block),
            )  # fmt: skip
            grad_origins[c] = torch.from_numpy(per_block.sum(axis=0))
        return (
            grad_means if ctx.needs_input_grad[0] else None,
            grad_coefficients,
            grad_origins if ctx.needs_input_grad[2] else None,
            None,
            None,
        )


@dataclass
class _Work:
    """One camera's forward pass as the backward pass needs it."""

    bands: Bands
    drawn: Drawn
    records: Records


class _Composite(torch.autograd.Function):
    """Inputs that may be None: colors and backgrounds in depth-only modes."""

    @staticmethod
    def forward(ctx, means2d, conics, colors, opacities, depths, backgrounds, packed, boxes, size, mode):
        width, height = size
        with_depth, expected, absgrad = mode
        channels = (3 if colors is not None else 0) + with_depth
        tiles_x, tiles_y = _blocks(width, TILE), _blocks(height, TILE)
        cameras = means2d.shape[0]
        # The kernels write whole tiles; the margin of an odd size is cut off below.
        image = torch.empty(cameras, tiles_y * TILE, tiles_x * TILE, channels)
        alphas = torch.empty(cameras, tiles_y * TILE, tiles_x * TILE, 1)
        ctx.works = []
        for c in range(cameras):
            target = Target(
                image[c].numpy().reshape(-1), alphas[c].numpy().reshape(-1),
                _array(backgrounds[c]) if backgrounds is not None else np.zeros(3, np.float32), expected,
            )  # fmt: skip
            work = _composite_camera(
                blending.MODES[channels], _array(boxes[c]), _array(packed[c]),
                _array(colors[c]) if colors is not None else np.zeros((0, 3), np.float32), _array(depths[c]),
                tiles_x, tiles_y, target,
            )  # fmt: skip
            ctx.works.append(work)
        ctx.save_for_backward(means2d, conics, opacities, backgrounds, alphas, image if expected else None)
        ctx.expected = expected
        ctx.size, ctx.channels, ctx.rgb, ctx.absgrad = size, channels, colors is not None, absgrad
        ctx.set_materialize_grads(False)
        return image[:, :height, :width], alphas[:, :height, :width]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alphas):
        means2d, conics, opacities, backgrounds, alphas, image = ctx.saved_tensors
        cameras, n = means2d.shape[:2]
        channels, with_depth = ctx.channels, ctx.channels != 3
        grad_image = _padded(grad_image, alphas, channels, ctx.size)
        grad_alphas = _padded(grad_alphas, alphas, 1, ctx.size)
        kind = (blending.MODES[channels], unblending.ABSOLUTE[ctx.absgrad])
        grad_means2d, grad_conics = _zeros(cameras, n, 2), _zeros(cameras, n, 3)
        grad_opacities = _zeros(cameras, n)
        grad_colors = _zeros(cameras, n, 3) if ctx.rgb else _zeros(cameras, 0, 3)
        grad_depths = _zeros(cameras, n if with_depth else 0)
        absolute = _zeros(cameras, n if ctx.absgrad else 0, 2)
        flat_opacities = _array(opacities)
        outputs = (grad_means2d, grad_conics, grad_opacities, grad_colors, grad_depths, absolute)
        for c, work in enumerate(ctx.works):
            grad_records = np.empty(len(work.records.values), np.float32)
            target = TargetGradients(
                _array(grad_image[c]).reshape(-1), _array(grad_alphas[c]).reshape(-1),
                _array(backgrounds[c]) if backgrounds is not None else np.zeros(3, np.float32),
                _array(image[c]).reshape(-1) if ctx.expected else np.zeros(0, np.float32),
            )  # fmt: skip
            threads.run(
                unblending.composite_backward, len(work.bands.order), *kind, work.bands, blending.CENTRES,
                work.records, target, grad_records,
            )  # fmt: skip
            threads.run(
                unblending.gather_gradients, _blocks(len(work.drawn.order), unblending.BLOCK), *kind,
                work.drawn, grad_records, _array(conics[c]), flat_opacities,
                SplatGradients(*(g[c].numpy() for g in outputs)),
            )  # fmt: skip
        if ctx.absgrad:
            means2d.absgrad = absolute
        grad_backgrounds = None
        if ctx.needs_input_grad[5]:
            grad_backgrounds = (grad_image[..., :3] * (1.0 - alphas)).sum(dim=(1, 2))
        return (
            grad_means2d,
            grad_conics,
            grad_colors if ctx.rgb else None,
            torch.from_numpy(grad_opacities.numpy().sum(axis=0)) if cameras > 1 else grad_opacities[0],
            grad_depths if with_depth else None,
            grad_backgrounds,
            None,
            None,
            None,
            None,
        )


def _padded(gradient: Tensor | None, like: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """A gradient on the padded grid of `like` [C, H', W', 1]: nothing flows into the margin."""
    cameras, rows, columns, _ = like.shape
    if gradient is None:
        return _zeros(cameras, rows, columns, channels)
    width, height = size
    if (rows, columns) == (height, width):
        return gradient
    return torch.nn.functional.pad(gradient, (0, 0, 0, columns - width, 0, rows - height))


def _composite_camera(
    mode: tuple[int, ...], boxes: np.ndarray, packed: np.ndarray, colors: np.ndarray, depths: np.ndarray,
    tiles_x: int, tiles_y: int, target: Target,
) -> _Work:  # fmt: skip
    band_rows = rows_per_band(tiles_y)
    order, band_start, band_cost, slot_splat, splat_start, splat_slots = plan(
        boxes, depths, tiles_y, band_rows
    )
    tiles, slots = tiles_x * tiles_y, len(slot_splat)
    # Dearest bands first, so that no thread starts a long one when the others are done.
    bands = Bands(np.argsort(-band_cost, kind="stable"), band_rows, tiles_x, tiles_y, band_start)
    records = Records(
        values=np.empty(slots * RECORD, np.float32),
        span_first=np.empty(slots * band_rows, np.int32),
        span_width=np.empty(slots * band_rows, np.int32),
        transmittance=np.empty(tiles * blending.PIXELS, np.float32),
        lasts=np.empty(tiles * blending.PIXELS, np.float32),
    )
    threads.run(
        blending.composite, len(bands.order), mode, bands, Splats(slot_splat, packed, colors),
        blending.CENTRES, records, target,
    )  # fmt: skip
    return _Work(bands, Drawn(order, splat_start, splat_slots), records)


def rasterize(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
    Ks: Tensor, width: int, height: int, near_plane: float, far_plane: float, eps2d: float,
    sh_degree: int | None, backgrounds: Tensor | None, render_mode: str, absgrad: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """`api.rasterize` on checked arguments."""
    dtype, cameras, n = means.dtype, viewmats.shape[0], means.shape[0]
    means, quats, scales, opacities, viewmats, Ks = (
        t.float() for t in (means, quats, scales, opacities, viewmats, Ks)
    )
    screen = (width, height, np.float32(near_plane), np.float32(far_plane), np.float32(eps2d))
    means2d, conics, depths, radii, packed, boxes, tiles = _Project.apply(
        means, quats, scales, opacities.detach(), viewmats, Ks, screen
    )
    seen = None
    if modes.wants_rgb(render_mode):
        seen = colors.float()
        if sh_degree is not None:
            origins = torch.linalg.inv(viewmats)[:, :3, 3]
            seen = _Harmonics.apply(means, seen, origins, radii, sh_degree)
        # A view, not an expansion, for one camera: then its gradient is a view too, and not a sum.
        seen = (seen[None] if cameras == 1 else seen.expand(cameras, n, 3)) if seen.dim() == 2 else seen
        backgrounds = backgrounds.float() if backgrounds is not None else None
    else:
        backgrounds = None
    if means2d.requires_grad:
        means2d.retain_grad()
    with_depth = modes.wants_depth(render_mode)
    rendered, alphas = _Composite.apply(
        means2d, conics, seen, opacities, depths if with_depth else depths.detach(), backgrounds, packed,
        boxes, (width, height), (with_depth, render_mode.endswith("ED"), absgrad and means2d.requires_grad),
    )  # fmt: skip
    meta = {
        "means2d": means2d,
        "radii": radii,
        "depths": depths,
        "conics": conics,
        "opacities": opacities.expand(cameras, n),
        "camera_ids": None,
        "gaussian_ids": None,
        "tile_size": TILE,
        "tile_width": _blocks(width, TILE),
        "tile_height": _blocks(height, TILE),
        "tiles_per_gauss": tiles,
        "width": width,
        "height": height,
        "n_cameras": cameras,
        "backend": "numba",
    }
    return rendered.to(dtype), alphas.to(dtype), meta
