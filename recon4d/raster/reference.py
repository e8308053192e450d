"""The slow twin: projection and per-tile compositing in plain torch, differentiated by autograd.

It is the oracle the fast back ends are compared with and the only one that runs in float64. Conventions
are those of gsplat 1.5.3 in its "classic" mode; `api.rasterize` lists them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

#: A sample with less opacity than one step of an 8-bit image is skipped.
ALPHA_MIN = 1.0 / 255.0
#: Opacity of a sample is clamped here, so that the transmittance never reaches zero.
ALPHA_MAX = 0.999
#: A splat that would bring the transmittance to this value or below ends the pixel and is not drawn.
T_STOP = 1e-4
#: sqrt(2 ln 255) rounded up: where a splat of opacity 1 falls below ALPHA_MIN, in standard deviations.
MAX_EXTENT = 3.33
#: Pixels per side of the square blocks composited at once. The result does not depend on it.
TILE = 16


def quats_to_rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] (w, x, y, z) of any length.

    A quaternion of length zero counts as the identity and receives no gradient.
    """
    norm = quats.norm(dim=-1, keepdim=True)
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=quats.dtype, device=quats.device)
    empty = norm == 0
    unit = torch.where(empty, identity, quats / torch.where(empty, 1.0, norm))
    w, x, y, z = unit.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def project(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project Gaussians to the screen by the local affine approximation (Zwicker et al. 2001, EWA splatting).

    Returns means2d [C, N, 2] in pixels, conics [C, N, 3] (the entries A, B, C of the inverse covariance in
    1/px²), camera-space depths [C, N] and radii [C, N, 2] int32 (half-widths of the box that holds every
    sample with alpha >= 1/255; 0 where the Gaussian is culled).
    """
    rotation, translation = viewmats[:, :3, :3], viewmats[:, :3, 3]
    local = torch.einsum("cij,nj->cni", rotation, means) + translation[:, None]
    x, y, z = local.unbind(-1)
    in_depth = (z >= near_plane) & (z <= far_plane)
    # Culled points keep harmless numbers, so that no NaN reaches their neighbours' gradients.
    z_safe = torch.where(in_depth, z, 1.0)
    x, y = torch.where(in_depth, x, 0.0), torch.where(in_depth, y, 0.0)

    fx, fy, cx, cy = (Ks[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    means2d = torch.stack([fx * x / z_safe + cx, fy * y / z_safe + cy], dim=-1)

    # The affine map is taken at a point inside a frame widened by 30 %: further out it grows without bound.
    pad_x, pad_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    ux = torch.clamp(x / z_safe, -(cx / fx + pad_x), (width - cx) / fx + pad_x)
    uy = torch.clamp(y / z_safe, -(cy / fy + pad_y), (height - cy) / fy + pad_y)
    zero = torch.zeros_like(z_safe)
    jacobian = torch.stack(
        [fx / z_safe, zero, -fx * ux / z_safe, zero, fy / z_safe, -fy * uy / z_safe], dim=-1
    ).reshape(*z.shape, 2, 3)
    spread = quats_to_rotations(quats) * scales[:, None, :]
    half = torch.einsum("cnij,cjk,nkl->cnil", jacobian, rotation, spread)
    covariance = half @ half.transpose(-1, -2)
    a = covariance[..., 0, 0] + eps2d
    b = covariance[..., 0, 1]
    c = covariance[..., 1, 1] + eps2d
    det = a * c - b * b
    solid = torch.isfinite(det) & (det > 0)
    det_safe = torch.where(solid, det, 1.0)
    conics = torch.stack([c / det_safe, -b / det_safe, a / det_safe], dim=-1)

    with torch.no_grad():
        bright = opacities >= ALPHA_MIN
        extent = torch.sqrt(2.0 * torch.log(255.0 * torch.where(bright, opacities, 1.0)))
        extent = extent.clamp(max=MAX_EXTENT)
        radii = torch.ceil(extent[:, None] * torch.stack([a, c], dim=-1).clamp(min=0).sqrt())
        size = torch.tensor([width, height], dtype=means.dtype, device=means.device)
        on_screen = ((means2d + radii > 0) & (means2d - radii < size)).all(dim=-1)
        visible = in_depth & solid & bright & on_screen
        radii = torch.where(visible[..., None], radii, 0.0).clamp(max=2**30).to(torch.int32)
    return means2d, conics, z, radii


def spherical_harmonics_basis(dirs: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics [..., (degree + 1)²] of unit directions [..., 3], 0 <= degree <= 3.

    Order and signs are those of the INRIA and gsplat point clouds (Sloan 2013, "Efficient Spherical
    Harmonic Evaluation").
    """
    x, y, z = dirs.unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.9461746957575601 * z * z - 0.3153915652525201,
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        lobe = 0.4570457994644658 - 2.285228997322329 * z * z
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            lobe * y,
            z * (1.865881662950577 * z * z - 1.119528997770346),
            lobe * x,
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, dim=-1)


def spherical_harmonics(
    means: Tensor,  # [N, 3]
    coefficients: Tensor,  # [N, K, 3] or [C, N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    degree: int,
) -> Tensor:
    """Colours [C, N, 3] seen from each camera: max(0, 0.5 + basis · coefficients)."""
    origins = torch.linalg.inv(viewmats)[:, :3, 3]
    offsets = means - origins[:, None]
    distance = offsets.norm(dim=-1, keepdim=True)
    dirs = offsets / torch.where(distance == 0, 1.0, distance)
    basis = spherical_harmonics_basis(dirs, degree)
    used = coefficients[..., : basis.shape[-1], :]
    equation = "cnk,nkd->cnd" if used.dim() == 3 else "cnk,cnkd->cnd"
    return torch.clamp_min(torch.einsum(equation, basis, used) + 0.5, 0.0)


def composite(
    means2d: Tensor,  # [C, N, 2]
    conics: Tensor,  # [C, N, 3]
    colors: Tensor,  # [C, N, D]
    opacities: Tensor,  # [N]
    depths: Tensor,  # [C, N], the order only
    radii: Tensor,  # [C, N, 2] int32
    width: int,
    height: int,
    backgrounds: Tensor | None,  # [C, D]
    absgrad: Tensor | None = None,  # [C, N, 2]
) -> tuple[Tensor, Tensor]:
    """Blend splats front to back. Returns premultiplied colours [C, H, W, D] and alphas [C, H, W, 1].

    Kerbl et al. 2023, "3D Gaussian Splatting", with the thresholds at the top of this file. No gradient
    passes the thresholds, the culling or the order. A backward pass adds the absolute per-pixel gradients of
    means2d to `absgrad`, if given.
    """
    images, alphas = [], []
    for camera in range(means2d.shape[0]):
        image, transmittance = _composite_one(
            means2d[camera], conics[camera], colors[camera], opacities, depths[camera], radii[camera],
            width, height, None if absgrad is None else absgrad[camera],
        )  # fmt: skip
        if backgrounds is not None:
            image = image + transmittance * backgrounds[camera]
        images.append(image)
        alphas.append(1.0 - transmittance)
    return torch.stack(images), torch.stack(alphas)


def _composite_one(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor,
    width: int, height: int, absgrad: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One camera: colours without background [H, W, D] and transmittance [H, W, 1]."""
    columns, rows = -(-width // TILE), -(-height // TILE)
    channels = colors.shape[-1]
    with torch.no_grad():
        visible = torch.nonzero((radii > 0).all(dim=-1)).squeeze(-1)
        order = visible[torch.sort(depths[visible], stable=True).indices]
        low = torch.floor((means2d[order] - radii[order]) / TILE)
        high = torch.ceil((means2d[order] + radii[order]) / TILE)
        members = []
        for row in range(rows):
            in_row = torch.nonzero((low[:, 1] <= row) & (high[:, 1] > row)).squeeze(-1)
            left, right = low[in_row, 0], high[in_row, 0]
            members += [order[in_row[(left <= column) & (right > column)]] for column in range(columns)]
    # One gather for all tiles: a gather per tile would cost its backward a full-size gradient each.
    features = torch.cat([means2d, conics, opacities[:, None], colors], dim=-1)
    per_tile = features[torch.cat(members)].split([len(ids) for ids in members])

    offset = torch.arange(TILE, dtype=means2d.dtype, device=means2d.device) + 0.5
    inside_y, inside_x = torch.meshgrid(offset, offset, indexing="ij")
    clear = means2d.new_zeros(TILE * TILE, channels + 1)
    clear[:, -1] = 1.0
    tiles = []
    for index, splats in enumerate(per_tile):
        x = (inside_x + (index % columns) * TILE).reshape(-1, 1)
        y = (inside_y + (index // columns) * TILE).reshape(-1, 1)
        # An empty tile is clear. The first one is blended all the same: it ties the image to the graph.
        tiles.append(_blend(x, y, splats, members[index], absgrad) if index == 0 or len(splats) else clear)
    grid = torch.stack(tiles).reshape(rows, columns, TILE, TILE, channels + 1)
    full = grid.permute(0, 2, 1, 3, 4).reshape(rows * TILE, columns * TILE, channels + 1)
    return full[:height, :width, :channels], full[:height, :width, channels:]


def _add_magnitudes(total: Tensor, ids: Tensor, gradient: Tensor) -> None:
    total.index_add_(0, ids, gradient.abs().sum(dim=0))


def _blend(x: Tensor, y: Tensor, splats: Tensor, ids: Tensor, absgrad: Tensor | None) -> Tensor:
    """Colours and transmittance [P, D + 1] of P pixel centres (columns x, y [P, 1]) under K sorted splats."""
    mean_x, mean_y, a, b, c, opacity = splats[:, :6].unbind(-1)
    dx, dy = x - mean_x, y - mean_y
    if absgrad is not None and dx.requires_grad:
        for axis, offset in enumerate((dx, dy)):
            offset.register_hook(partial(_add_magnitudes, absgrad[:, axis], ids))
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    # A negative sigma (rounding in a needle-like conic) is skipped below; unclamped it could overflow here.
    alpha = torch.clamp(opacity * torch.exp(-sigma.clamp(min=0.0)), max=ALPHA_MAX)
    alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, dim=1)
    # Transmittance never grows, so "a splat brought it to the limit" and "all later ones" are one mask.
    alpha = torch.where(after > T_STOP, alpha, 0.0)
    after = torch.where(after > T_STOP, after, 1.0)
    before = torch.cat([torch.ones_like(x), after], dim=1)[:, :-1]
    weights = alpha * before
    remaining = torch.prod(1.0 - alpha, dim=1, keepdim=True)
    return torch.cat([weights @ splats[:, 6:], remaining], dim=1)
