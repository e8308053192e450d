"""The forward warp on a GPU, by the rules of `warp_kernels`: what numba draws in turn is scattered at once.

Depth buffers by `amax` and `amin`, which no order changes; of equal depths the triangle that numba draws
first wins. Sums of points are by `index_add_`, whose order CUDA leaves open: colours of points may differ by
rounding between calls there, unless `torch.use_deterministic_algorithms(True)`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.model.guided.warp_kernels import COVER, CUT, POINT, SAME, SOFT

Floats = npt.NDArray[np.float32]
#: Pixels in the boxes of triangles that are inspected at a time; bounds memory.
CANDIDATES = 1 << 24


def warp_planes(
    u: Floats, v: Floats, z: Floats, valid: npt.NDArray[np.bool_], depth: Floats, colour: Floats,
    size: tuple[int, int], soft: bool, device: torch.device,
) -> tuple[Floats, npt.NDArray[np.bool_], Floats, Floats]:  # fmt: skip
    """(image [H, W, C], seen [H, W], depth [H, W], confidence [H, W]) of source pixels [h, w] that fall at
    u, v with depth z in a target of `size` (width, height); as surface, points and joined of `warp_kernels`.
    """
    w, h = size
    on = [torch.from_numpy(np.ascontiguousarray(a, np.float32)).to(device) for a in (u, v, z, depth)]
    on.append(torch.from_numpy(np.ascontiguousarray(valid)).to(device))
    flat_u, flat_v, flat_z = (a.reshape(-1) for a in on[:3])
    rows = torch.from_numpy(colour.astype(np.float32, copy=False)).to(device).reshape(-1, colour.shape[2])
    corners = _triangles(on[3], on[4])
    inverse = torch.stack([1 / flat_z, on[3].reshape(-1) / flat_z], -1)
    near, drawn, stretch, facing = _surface(flat_u, flat_v, inverse, corners, rows, w, h)
    usable = on[4].reshape(-1) & (facing != 1)
    far, weight, splat = _points(flat_u, flat_v, flat_z, usable, rows, w, h, soft)
    on_surface = near > 0
    surface_z = torch.where(on_surface, 1 / near, torch.inf)
    wins = (weight > COVER) & (far < surface_z * (1 - SAME))
    image = torch.where(wins[:, None], splat / weight.clamp(min=1e-30)[:, None], drawn)
    found = torch.where(wins, far, surface_z)
    confidence = torch.where(wins, torch.full_like(stretch, POINT), stretch)
    planes = (image.reshape(h, w, -1), (wins | on_surface).reshape(h, w), found.reshape(h, w))
    return (*(plane.cpu().numpy() for plane in planes), confidence.reshape(h, w).cpu().numpy())  # type: ignore[return-value]


def _triangles(depth: Tensor, valid: Tensor) -> Tensor:
    """Corners [T, 3] of the triangles that are whole and span no step in depth, in numba's order."""
    h, w = depth.shape
    index = torch.arange(h * w, device=depth.device).reshape(h, w)
    parts = (slice(None, -1), slice(None, -1)), (slice(None, -1), slice(1, None))
    a, b, d, c = (*parts, (slice(1, None), slice(None, -1)), (slice(1, None), slice(1, None)))
    falling = (depth[a] - depth[c]).abs() <= (depth[b] - depth[d]).abs()
    three = torch.stack([valid[p].int() for p in (a, b, c, d)]).sum(0) == 3
    falling = torch.where(three, ~(valid[b] & valid[d]), falling)
    at = {name: index[p] for name, p in zip("abcd", (a, b, c, d))}
    first = torch.stack([at["a"], at["b"], torch.where(falling, at["c"], at["d"])], -1)
    second = torch.stack([torch.where(falling, at["a"], at["b"]), at["c"], at["d"]], -1)
    corners = torch.stack([first, second], 2).reshape(-1, 3)
    whole = valid.reshape(-1)[corners].all(1)
    corners = corners[whole]
    near = depth.reshape(-1)[corners]
    least = near.min(1).values
    return corners[near.max(1).values - least <= float(np.float32(CUT)) * least]


def _surface(
    u: Tensor, v: Tensor, q: Tensor, corners: Tensor, rows: Tensor, w: int, h: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1/z [H W] of what is drawn, its colours, its stretch; and `facing` of source pixels.

    q [h w, 2]: 1/z, and the depth in the source over z, by which colours are interpolated.
    """
    x, y = u[corners], v[corners]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    facing = torch.zeros(len(u), dtype=torch.int32, device=u.device)
    mark = torch.where(area > 0, 3, 1).to(torch.int32)[:, None].expand(-1, 3)
    facing.scatter_reduce_(0, corners.reshape(-1), mark.reshape(-1), "amax")
    here = area > 0
    corners, x, y, area = corners[here], x[here], y[here], area[here]
    left, top = (torch.ceil(p.min(1).values - 0.5).clamp(min=0).long() for p in (x, y))
    right, bottom = (
        torch.floor(p.max(1).values - 0.5).clamp(max=side - 1).long() for p, side in ((x, w), (y, h))
    )
    wide, high = (right - left + 1).clamp(min=0), (bottom - top + 1).clamp(min=0)
    count = wide * high
    near = torch.zeros(h * w, device=u.device)
    parts = []
    for some in _pieces(count):
        owner = torch.repeat_interleave(some, count[some])
        start = torch.repeat_interleave(count[some].cumsum(0) - count[some], count[some])
        place = torch.arange(len(owner), device=u.device) - start
        column, row = left[owner] + place % wide[owner], top[owner] + place // wide[owner]
        share = _barycentric(x[owner], y[owner], area[owner], column + 0.5, row + 0.5)
        inside = (share >= -1e-6).all(1)
        owner, pixel, share = owner[inside], (row * w + column)[inside], share[inside]
        parts.append((owner, pixel, share * q[corners[owner], 0], share * q[corners[owner], 1]))
    drawn = torch.zeros(h * w, rows.shape[1], device=u.device)
    stretch = torch.zeros(h * w, device=u.device)
    for _, pixel, each, _ in parts:
        near.scatter_reduce_(0, pixel, _sum(each), "amax")
    first = torch.full((h * w,), len(area), device=u.device)
    for owner, pixel, each, _ in parts:
        best = _sum(each) == near[pixel]
        first.scatter_reduce_(0, pixel[best], owner[best], "amin")
    for owner, pixel, each, colours in parts:
        # Barycentric edges may draw nothing nearer than 0.
        best = (_sum(each) == near[pixel]) & (first[pixel] == owner) & (near[pixel] > 0)
        owner, pixel, each = owner[best], pixel[best], colours[best]
        each = each * (1 / _sum(each))[:, None]
        drawn[pixel] = (each[..., None] * rows[corners[owner]]).sum(1)
        stretch[pixel] = (1 / area[owner]).clamp(max=1)
    return near, drawn, stretch, facing


def _barycentric(x: Tensor, y: Tensor, area: Tensor, px: Tensor, py: Tensor) -> Tensor:
    inverse = 1 / area
    b0 = ((x[:, 1] - px) * (y[:, 2] - py) - (y[:, 1] - py) * (x[:, 2] - px)) * inverse
    b1 = ((x[:, 2] - px) * (y[:, 0] - py) - (y[:, 2] - py) * (x[:, 0] - px)) * inverse
    return torch.stack([b0, b1, 1 - b0 - b1], 1)


def _sum(each: Tensor) -> Tensor:
    """In numba's order."""
    return each[:, 0] + each[:, 1] + each[:, 2]


def _pieces(count: Tensor) -> list[Tensor]:
    """Indices of triangles with pixels in their box, in pieces of about CANDIDATES."""
    some = torch.nonzero(count).reshape(-1)
    if not len(some):
        return []
    piece = (count[some].cumsum(0) - 1) // CANDIDATES
    sizes = torch.unique_consecutive(piece, return_counts=True)[1]
    return list(some.split(sizes.tolist()))


def _points(
    u: Tensor, v: Tensor, z: Tensor, usable: Tensor, rows: Tensor, w: int, h: int, soft: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest depth [H W] (inf: none), summed weights and colours of bilinear splats."""
    x, y = u - 0.5, v - 0.5
    usable = usable & (x > -1) & (y > -1) & (x < w) & (y < h)
    x, y, z, rows = x[usable], y[usable], z[usable], rows[usable]
    left, top = torch.floor(x), torch.floor(y)
    fx, fy = x - left, y - top
    far = torch.full((h * w,), torch.inf, device=u.device)
    weight, splat = torch.zeros_like(far), torch.zeros(h * w, rows.shape[1], device=u.device)
    corners = []
    for k in range(4):
        column, row = left.long() + (k & 1), top.long() + (k >> 1)
        share = (fx if k & 1 else 1 - fx) * (fy if k >> 1 else 1 - fy)
        inside = (column >= 0) & (row >= 0) & (column < w) & (row < h)
        corners.append((inside, (row * w + column)[inside], share[inside]))
        covers = share[inside] >= COVER
        far.scatter_reduce_(0, corners[-1][1][covers], z[inside][covers], "amin")
    for inside, pixel, share in corners:
        nearest, own = far[pixel], z[inside]
        if soft:
            share = share * torch.exp(-(own - nearest).clamp(min=0) / (SOFT * nearest))
            keep = torch.isfinite(nearest)
        else:
            keep = torch.isfinite(nearest) & (own <= nearest * float(np.float32(1 + SAME)))
        weight.index_add_(0, pixel[keep], share[keep])
        splat.index_add_(0, pixel[keep], share[keep][:, None] * rows[inside][keep])
    return far, weight, splat
