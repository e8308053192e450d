"""Projection of Gaussians to the screen and its hand-written gradient (numba)."""

from __future__ import annotations

import math

import numpy as np

from orbit4d.datasets.core.jit import jit
from orbit4d.recon4d.raster.binning import SLACK, SLACK_FRACTION, TILE, tile_box
from orbit4d.recon4d.raster.reference import ALPHA_MIN, MAX_EXTENT
from orbit4d.recon4d.raster.simd import take_next

#: Gaussians per piece of work. Sums over a piece are stored apart and added in order.
BLOCK = 1024

_ALPHA_MIN = np.float32(ALPHA_MIN)
_MAX_EXTENT = np.float32(MAX_EXTENT)
_TWO_LN_2, _LOG2_255 = np.float32(2.0 * math.log(2.0)), np.float32(math.log2(255.0))
_LOG2_E, _HALF_LOG2_E = np.float32(math.log2(math.e)), np.float32(0.5 * math.log2(math.e))
_LARGEST = np.float32(2**30)


@jit(forceinline=True)
def _rotation(quats, i):
    """Unit quaternion, 1 / length and rotation matrix (rows) of quaternion i; length 0 is the identity."""
    w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    # Scaled by the largest entry, so that neither tiny nor huge quaternions leave the range of float32.
    largest = max(max(abs(w), abs(x)), max(abs(y), abs(z)))
    inverse = zero
    if largest > zero:
        w, x, y, z = w / largest, x / largest, y / largest, z / largest
        shrink = one / np.sqrt(w * w + x * x + y * y + z * z)
        inverse = shrink / largest
        w, x, y, z = w * shrink, x * shrink, y * shrink, z * shrink
    else:
        w = one
    unit = (w, x, y, z)
    rotation = (
        one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y),
    )  # fmt: skip
    return unit, inverse, rotation


@jit(forceinline=True)
def _camera_spread(view, r, s0, s1, s2):
    """Rows of W R S: the Gaussian's axes in camera space, each times its standard deviation."""
    v00, v01, v02 = view[0, 0], view[0, 1], view[0, 2]
    v10, v11, v12 = view[1, 0], view[1, 1], view[1, 2]
    v20, v21, v22 = view[2, 0], view[2, 1], view[2, 2]
    return (
        (v00 * r[0] + v01 * r[3] + v02 * r[6]) * s0,
        (v00 * r[1] + v01 * r[4] + v02 * r[7]) * s1,
        (v00 * r[2] + v01 * r[5] + v02 * r[8]) * s2,
        (v10 * r[0] + v11 * r[3] + v12 * r[6]) * s0,
        (v10 * r[1] + v11 * r[4] + v12 * r[7]) * s1,
        (v10 * r[2] + v11 * r[5] + v12 * r[8]) * s2,
        (v20 * r[0] + v21 * r[3] + v22 * r[6]) * s0,
        (v20 * r[1] + v21 * r[4] + v22 * r[7]) * s1,
        (v20 * r[2] + v21 * r[5] + v22 * r[8]) * s2,
    )


@jit(forceinline=True)
def _limits(intrinsics, width, height):
    """Bounds of x/z and y/z in the affine map: the frame widened by 30 % of its half-angle tangent."""
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    w, h = np.float32(width), np.float32(height)
    pad_x, pad_y = np.float32(0.15) * w / fx, np.float32(0.15) * h / fy
    return -(cx / fx + pad_x), (w - cx) / fx + pad_x, -(cy / fy + pad_y), (h - cy) / fy + pad_y


@jit
def project(counter, shapes, opacities, camera, projected):
    """Project `arguments.Shapes` with opacities [N] into one `arguments.View`; outputs: `projected`.

    det(QQᵀ + e·I) is taken as |q0 x q1|² + e·(|q0|² + |q1|²) + e², a sum without cancellation: the usual
    a·c - b² loses all digits on a long needle.
    """
    means, quats, scales = shapes
    view, intrinsics, width, height, near, far, eps2d = camera
    means2d, conics, depths, radii, packed, boxes, tiles = projected
    n = means.shape[0]
    blocks = (n + BLOCK - 1) // BLOCK
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    low_x, high_x, low_y, high_y = _limits(intrinsics, width, height)
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    v00, v01, v02, v03 = view[0, 0], view[0, 1], view[0, 2], view[0, 3]
    v10, v11, v12, v13 = view[1, 0], view[1, 1], view[1, 2], view[1, 3]
    v20, v21, v22, v23 = view[2, 0], view[2, 1], view[2, 2], view[2, 3]
    zero, one = np.float32(0.0), np.float32(1.0)
    while True:
        block = take_next(counter)
        if block >= blocks:
            break
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            px, py, pz = means[i, 0], means[i, 1], means[i, 2]
            z = v20 * px + v21 * py + v22 * pz + v23
            depths[i] = z
            radii[i, 0], radii[i, 1] = 0, 0
            boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3], tiles[i] = 0, 0, 0, 0, 0
            if not (near <= z <= far):
                # The place of a culled point means nothing; the twin puts it on the principal point too.
                means2d[i, 0], means2d[i, 1] = cx, cy
                conics[i, 0], conics[i, 1], conics[i, 2] = zero, zero, zero
                continue
            x = v00 * px + v01 * py + v02 * pz + v03
            y = v10 * px + v11 * py + v12 * pz + v13
            rz = one / z
            mean_x, mean_y = fx * x * rz + cx, fy * y * rz + cy
            means2d[i, 0], means2d[i, 1] = mean_x, mean_y
            ux, uy = min(max(x * rz, low_x), high_x), min(max(y * rz, low_y), high_y)
            _, _, rotation = _rotation(quats, i)
            m = _camera_spread(view, rotation, scales[i, 0], scales[i, 1], scales[i, 2])
            gx, gy = fx * rz, fy * rz
            p0, p1, p2 = gx * (m[0] - ux * m[6]), gx * (m[1] - ux * m[7]), gx * (m[2] - ux * m[8])
            q0, q1, q2 = gy * (m[3] - uy * m[6]), gy * (m[4] - uy * m[7]), gy * (m[5] - uy * m[8])
            pp, pq, qq = p0 * p0 + p1 * p1 + p2 * p2, p0 * q0 + p1 * q1 + p2 * q2, q0 * q0 + q1 * q1 + q2 * q2
            n0, n1, n2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
            det = n0 * n0 + n1 * n1 + n2 * n2 + eps2d * (pp + qq) + eps2d * eps2d
            a, c = pp + eps2d, qq + eps2d
            opacity = opacities[i]
            if not (det > zero and det < np.inf):
                conics[i, 0], conics[i, 1], conics[i, 2] = zero, zero, zero
                continue
            conics[i, 0], conics[i, 1], conics[i, 2] = c / det, -pq / det, a / det
            if not (opacity >= _ALPHA_MIN):
                continue
            log2_opacity = np.log2(opacity)
            extent = min(_MAX_EXTENT, np.sqrt(max(zero, _TWO_LN_2 * (log2_opacity + _LOG2_255))))
            deviation_x, deviation_y = np.sqrt(a), np.sqrt(c)
            radius_x = np.ceil(extent * deviation_x)
            radius_y = np.ceil(extent * deviation_y)
            if not (
                mean_x + radius_x > zero
                and mean_x - radius_x < np.float32(width)
                and mean_y + radius_y > zero
                and mean_y - radius_y < np.float32(height)
            ):
                continue
            radii[i, 0], radii[i, 1] = int(min(radius_x, _LARGEST)), int(min(radius_y, _LARGEST))
            grow = one + SLACK_FRACTION
            half_x, half_y = extent * deviation_x * grow + SLACK, extent * deviation_y * grow + SLACK
            slope = pq / c
            packed[i, 0], packed[i, 1] = mean_x, mean_y
            packed[i, 2], packed[i, 3] = -_HALF_LOG2_E * (c / det), _LOG2_E * (pq / det)
            packed[i, 4], packed[i, 5] = -_HALF_LOG2_E * (a / det), log2_opacity
            packed[i, 6], packed[i, 7] = half_x, half_y
            packed[i, 8], packed[i, 9] = slope, extent * np.sqrt(det / c) * grow
            packed[i, 10], packed[i, 11] = slope * half_y * half_y / half_x, one / half_y
            packed[i, 14] = z
            left, right = tile_box(mean_x, half_x, tiles_x)
            top, bottom = tile_box(mean_y, half_y, tiles_y)
            if right > left and bottom > top:
                boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = left, right, top, bottom
                tiles[i] = (right - left) * (bottom - top)
                packed[i, 12], packed[i, 13] = np.float32(left * TILE), np.float32(right * TILE - 1)


@jit
def project_backward(counter, shapes, camera, radii, conics, screen, gradients, grad_view):
    """Add one camera's gradients, from `arguments.ScreenGradients`, to those by `shapes`.

    `grad_view` float64 [blocks, 3, 4] receives one sum per block of Gaussians, or has no rows when the camera
    needs no gradient.
    """
    means, quats, scales = shapes
    view, intrinsics, width, height, _, _, _ = camera
    grad_means2d, grad_conics, grad_depths, with_depths = screen
    grad_means, grad_quats, grad_scales = gradients
    n = means.shape[0]
    blocks = (n + BLOCK - 1) // BLOCK
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    low_x, high_x, low_y, high_y = _limits(intrinsics, width, height)
    v00, v01, v02, v03 = view[0, 0], view[0, 1], view[0, 2], view[0, 3]
    v10, v11, v12, v13 = view[1, 0], view[1, 1], view[1, 2], view[1, 3]
    v20, v21, v22, v23 = view[2, 0], view[2, 1], view[2, 2], view[2, 3]
    moves = grad_view.shape[0] > 0
    one, two, half = np.float32(1.0), np.float32(2.0), np.float32(0.5)
    while True:
        block = take_next(counter)
        if block >= blocks:
            break
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            if radii[i, 0] == 0:
                continue
            px, py, pz = means[i, 0], means[i, 1], means[i, 2]
            x = v00 * px + v01 * py + v02 * pz + v03
            y = v10 * px + v11 * py + v12 * pz + v13
            z = v20 * px + v21 * py + v22 * pz + v23
            rz = one / z
            raw_x, raw_y = x * rz, y * rz
            ux, uy = min(max(raw_x, low_x), high_x), min(max(raw_y, low_y), high_y)
            unit, inverse, r = _rotation(quats, i)
            s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
            m = _camera_spread(view, r, s0, s1, s2)
            gx, gy = fx * rz, fy * rz
            p0, p1, p2 = gx * (m[0] - ux * m[6]), gx * (m[1] - ux * m[7]), gx * (m[2] - ux * m[8])
            q0, q1, q2 = gy * (m[3] - uy * m[6]), gy * (m[4] - uy * m[7]), gy * (m[5] - uy * m[8])

            # X = Σ⁻¹, dX = -X dΣ X, hence ∂L/∂Σ = -X G X with G the symmetric gradient of the conic.
            a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
            ga, gb, gc = grad_conics[i, 0], half * grad_conics[i, 1], grad_conics[i, 2]
            k00, k01 = a * ga + b * gb, a * gb + b * gc
            k10, k11 = b * ga + c * gb, b * gb + c * gc
            h00, h01, h11 = -(k00 * a + k01 * b), -(k00 * b + k01 * c), -(k10 * b + k11 * c)

            # Σ = Q Qᵀ + e·I, rows p and q of Q.
            dp0, dp1, dp2 = (
                two * (h00 * p0 + h01 * q0),
                two * (h00 * p1 + h01 * q1),
                two * (h00 * p2 + h01 * q2),
            )
            dq0, dq1, dq2 = (
                two * (h01 * p0 + h11 * q0),
                two * (h01 * p1 + h11 * q1),
                two * (h01 * p2 + h11 * q2),
            )
            d_mean_x, d_mean_y = grad_means2d[i, 0], grad_means2d[i, 1]
            dx, dy = gx * d_mean_x, gy * d_mean_y
            dz = -(raw_x * dx + raw_y * dy)
            dz -= (p0 * dp0 + p1 * dp1 + p2 * dp2 + q0 * dq0 + q1 * dq1 + q2 * dq2) * rz
            if with_depths:
                dz += grad_depths[i]
            if low_x <= raw_x <= high_x:
                d_ux = -gx * (m[6] * dp0 + m[7] * dp1 + m[8] * dp2)
                dx += d_ux * rz
                dz -= d_ux * raw_x * rz
            if low_y <= raw_y <= high_y:
                d_uy = -gy * (m[6] * dq0 + m[7] * dq1 + m[8] * dq2)
                dy += d_uy * rz
                dz -= d_uy * raw_y * rz
            grad_means[i, 0] += v00 * dx + v10 * dy + v20 * dz
            grad_means[i, 1] += v01 * dx + v11 * dy + v21 * dz
            grad_means[i, 2] += v02 * dx + v12 * dy + v22 * dz

            # M = W R S: gradient of its rows, then of R S = Wᵀ ∂M.
            a0, a1, a2 = gx * dp0, gx * dp1, gx * dp2
            b0, b1, b2 = gy * dq0, gy * dq1, gy * dq2
            c0, c1, c2 = -(ux * a0 + uy * b0), -(ux * a1 + uy * b1), -(ux * a2 + uy * b2)
            n00, n01, n02 = (
                v00 * a0 + v10 * b0 + v20 * c0,
                v00 * a1 + v10 * b1 + v20 * c1,
                v00 * a2 + v10 * b2 + v20 * c2,
            )
            n10, n11, n12 = (
                v01 * a0 + v11 * b0 + v21 * c0,
                v01 * a1 + v11 * b1 + v21 * c1,
                v01 * a2 + v11 * b2 + v21 * c2,
            )
            n20, n21, n22 = (
                v02 * a0 + v12 * b0 + v22 * c0,
                v02 * a1 + v12 * b1 + v22 * c1,
                v02 * a2 + v12 * b2 + v22 * c2,
            )
            grad_scales[i, 0] += n00 * r[0] + n10 * r[3] + n20 * r[6]
            grad_scales[i, 1] += n01 * r[1] + n11 * r[4] + n21 * r[7]
            grad_scales[i, 2] += n02 * r[2] + n12 * r[5] + n22 * r[8]
            if moves:
                # ∂L/∂W = ∂M (R S)ᵀ + ∂p pᵀ, ∂L/∂t = ∂p.
                for row in range(3):
                    e0 = r[3 * row] * s0
                    e1 = r[3 * row + 1] * s1
                    e2 = r[3 * row + 2] * s2
                    p_row = means[i, row]
                    grad_view[block, 0, row] += a0 * e0 + a1 * e1 + a2 * e2 + dx * p_row
                    grad_view[block, 1, row] += b0 * e0 + b1 * e1 + b2 * e2 + dy * p_row
                    grad_view[block, 2, row] += c0 * e0 + c1 * e1 + c2 * e2 + dz * p_row
                grad_view[block, 0, 3] += dx
                grad_view[block, 1, 3] += dy
                grad_view[block, 2, 3] += dz

            r00, r01, r02 = n00 * s0, n01 * s1, n02 * s2
            r10, r11, r12 = n10 * s0, n11 * s1, n12 * s2
            r20, r21, r22 = n20 * s0, n21 * s1, n22 * s2
            w, qx, qy, qz = unit
            dw = two * (qx * (r21 - r12) + qy * (r02 - r20) + qz * (r10 - r01))
            dqx = two * (qy * (r01 + r10) + qz * (r02 + r20) + w * (r21 - r12) - two * qx * (r11 + r22))
            dqy = two * (qx * (r01 + r10) + qz * (r12 + r21) + w * (r02 - r20) - two * qy * (r00 + r22))
            dqz = two * (qx * (r02 + r20) + qy * (r12 + r21) + w * (r10 - r01) - two * qz * (r00 + r11))
            along = w * dw + qx * dqx + qy * dqy + qz * dqz
            grad_quats[i, 0] += inverse * (dw - along * w)
            grad_quats[i, 1] += inverse * (dqx - along * qx)
            grad_quats[i, 2] += inverse * (dqy - along * qy)
            grad_quats[i, 3] += inverse * (dqz - along * qz)


def camera_gradient(per_block: np.ndarray) -> np.ndarray:
    """Sum the blocks' [blocks, 3, 4] in order into one float32 [4, 4] (the last row has no effect)."""
    total = np.zeros((4, 4), np.float32)
    for row in range(3):
        for column in range(4):
            total[row, column] = math.fsum(per_block[:, row, column])
    return total
