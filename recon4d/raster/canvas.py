"""One camera's drawing and its gradient without autograd, in buffers kept from step to step (CPU kernels).

What `cpu.rasterize` does for one camera in render mode "RGB" without a background, bit for bit: a fit draws
thousands of images of one size, and torch's bookkeeping and fresh arrays then take as long as a kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.raster import blending, projection, threads, unblending
from orbit4d.recon4d.raster.arguments import (
    Bands,
    Drawn,
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

Float = npt.NDArray[np.float32]
_MODE, _NO_ABSOLUTE = blending.MODES[3], unblending.ABSOLUTE[False]
_NEAR, _FAR = np.float32(0.01), np.float32(1e10)
_NONE = np.zeros(0, np.float32)
_NO_PAIRS = np.zeros((0, 2), np.float32)
_BLACK = np.zeros(3, np.float32)
_NO_CAMERA = np.zeros((0, 3, 4))
#: Slots are made for this share more than are needed, so that few images need new ones.
_SPARE = 1.25


class Spread(NamedTuple):
    """N Gaussians as the projection takes them, or gradients by them."""

    means: Float
    """[N, 3]"""
    quats: Float
    """[N, 4]"""
    scales: Float
    """[N, 3]"""
    opacities: Float
    """[N]"""
    colors: Float
    """[N, 3]"""


def _shapes(spread: Spread) -> Shapes:
    return Shapes(spread.means, spread.quats, spread.scales)


class Canvas:
    """Buffers for N Gaussians on images of one size."""

    def __init__(self, n: int, width: int, height: int, eps2d: float) -> None:
        self.n, self.width, self.height, self.eps2d = n, width, height, np.float32(eps2d)
        self.tiles_x, self.tiles_y = -(-width // TILE), -(-height // TILE)
        self.band_rows = rows_per_band(self.tiles_y)
        rows, columns = self.tiles_y * TILE, self.tiles_x * TILE
        # The kernels write whole tiles; the margin of an odd size is cut off.
        self._image, self._alpha = (
            np.empty((rows, columns, 3), np.float32),
            np.empty((rows, columns), np.float32),
        )
        self._padded = (rows, columns) != (height, width)
        self._grad_image = np.zeros((rows, columns, 3), np.float32) if self._padded else None
        self._grad_alpha = np.zeros((rows, columns), np.float32) if self._padded else None
        self.projected = Projected(
            means2d=np.empty((n, 2), np.float32), conics=np.empty((n, 3), np.float32),
            depths=np.empty(n, np.float32), radii=np.empty((n, 2), np.int32),
            packed=np.empty((n, RECORD), np.float32), boxes=np.empty((n, 4), np.int32),
            tiles=np.empty(n, np.int32),
        )  # fmt: skip
        self.radii = self.projected.radii
        self.grad_means2d, self.grad_conics = np.empty((n, 2), np.float32), np.empty((n, 3), np.float32)
        pixels = self.tiles_x * self.tiles_y * blending.PIXELS
        self._left, self._lasts = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
        self._grow(0)

    def _grow(self, slots: int) -> None:
        room = int(slots * _SPARE)
        self._records = Records(
            values=np.empty(room * RECORD, np.float32),
            span_first=np.empty(room * self.band_rows, np.int32),
            span_width=np.empty(room * self.band_rows, np.int32),
            transmittance=self._left,
            lasts=self._lasts,
        )
        self._grad_records = np.empty(room * RECORD, np.float32)

    def draw(self, spread: Spread, view: Float, intrinsics: Float) -> tuple[Float, Float]:
        """Premultiplied colour [H, W, 3] and alpha [H, W, 1], overwritten by the next call.

        view [4, 4] is world-to-camera with OpenCV axes, intrinsics [3, 3] in pixels.
        """
        self._view = View(view, intrinsics, self.width, self.height, _NEAR, _FAR, self.eps2d)
        blocks, projected = -(-self.n // projection.BLOCK), self.projected
        threads.run(projection.project, blocks, _shapes(spread), spread.opacities, self._view, projected)
        order, start, cost, slot_splat, splat_start, splat_slots = plan(
            projected.boxes, projected.depths, self.tiles_y, self.band_rows
        )
        self._drawn = Drawn(order, splat_start, splat_slots)
        if len(slot_splat) * RECORD > len(self._records.values):
            self._grow(len(slot_splat))
        # Dearest bands first, so that no thread starts a long one when the others are done.
        dearest = np.argsort(-cost, kind="stable")
        self._bands = Bands(dearest, self.band_rows, self.tiles_x, self.tiles_y, start)
        threads.run(
            blending.composite, len(dearest), _MODE, self._bands,
            Splats(slot_splat, projected.packed, spread.colors), blending.CENTRES, self._records,
            Target(self._image.reshape(-1), self._alpha.reshape(-1), _BLACK, False),
        )  # fmt: skip
        if not self._padded:
            return self._image, self._alpha[..., None]
        cut = (slice(self.height), slice(self.width))
        return np.ascontiguousarray(self._image[cut]), np.ascontiguousarray(self._alpha[cut])[..., None]

    def pull(self, spread: Spread, grad_color: Float, grad_alpha: Float, grads: Spread) -> None:
        """Gradients of the last `draw` of the same `spread` into `grads`, overwritten.

        grad_color [H, W, 3] and grad_alpha [H, W, 1] are those of what `draw` returned.
        """
        if self._grad_image is not None and self._grad_alpha is not None:
            self._grad_image[: self.height, : self.width] = grad_color
            self._grad_alpha[: self.height, : self.width] = grad_alpha[..., 0]
            grad_color, grad_alpha = self._grad_image, self._grad_alpha
        threads.run(
            unblending.composite_backward, len(self._bands.order), _MODE, _NO_ABSOLUTE, self._bands,
            blending.CENTRES, self._records,
            TargetGradients(grad_color.reshape(-1), grad_alpha.reshape(-1), _BLACK, _NONE),
            self._grad_records,
        )  # fmt: skip
        for gradient in (self.grad_means2d, self.grad_conics, *grads):
            gradient.fill(0.0)
        threads.run(
            unblending.gather_gradients, -(-len(self._drawn.order) // unblending.BLOCK), _MODE, _NO_ABSOLUTE,
            self._drawn, self._grad_records, self.projected.conics, spread.opacities,
            SplatGradients(
                self.grad_means2d, self.grad_conics, grads.opacities, grads.colors, _NONE, _NO_PAIRS
            ),
        )  # fmt: skip
        threads.run(
            projection.project_backward, -(-self.n // projection.BLOCK), _shapes(spread), self._view,
            self.projected.radii, self.projected.conics,
            ScreenGradients(self.grad_means2d, self.grad_conics, _NONE, False), _shapes(grads), _NO_CAMERA,
        )  # fmt: skip
