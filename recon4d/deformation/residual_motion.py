"""A residual field's step on the CPU without autograd: the nodes' kernels and the table's two keys."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.deformation.field import NodeField
from orbit4d.recon4d.deformation.node_motion import NodeMotion
from orbit4d.recon4d.deformation.residual import ResidualField

Float = npt.NDArray[np.float32]


class ResidualMotion:
    """As `NodeMotion`, of a `ResidualField`, whose table comes first in `values`.

    `lit` and `pull_colors` are for colours what `move` and `pull` are for the rest; `pull_colors` comes
    first, since it clears the table's gradient.
    """

    def __init__(self, field: NodeField, values: Float, n: int) -> None:
        assert isinstance(field, ResidualField)
        self.field = field
        shape = field.table.shape
        self.at = field.table.numel()
        self.table = values[: self.at].reshape(shape)
        self.nodes = NodeMotion(field, values[self.at :], n)
        self.means, self.quats = np.empty((n, 3), np.float32), self.nodes.quats
        self.shown, self.within = np.empty((n, 3), np.float32), np.empty((n, 3), np.bool_)
        self.between = (0, 0.0)

    @property
    def terms(self) -> dict[str, float]:
        """Of the nodes."""
        return self.nodes.terms

    def move(self, means: Float, quats: Float, time: float, step: float | None) -> None:
        """See `NodeMotion.move`."""
        self.between = self.field.between(time)
        self.nodes.move(means, quats, time, step)
        self._added("means", self.nodes.means, self.means)

    def lit(self, colors: Float) -> Float:
        """Colours [N, 3] at the time of the last `move`, as they are drawn."""
        self._added("colors", colors, self.shown)
        np.logical_and(self.shown >= 0, self.shown <= 1, out=self.within)
        return np.clip(self.shown, 0.0, 1.0, out=self.shown)

    def pull_colors(self, grad_lit: Float, grad_colors: Float, gradient: Float) -> None:
        """Gradients of the last `lit`; grad_colors and the table's part of `gradient` are overwritten."""
        gradient[: self.at] = 0.0
        np.multiply(grad_lit, self.within, out=grad_colors)
        self._put("colors", grad_colors, gradient)

    def pull(
        self, means: Float, quats: Float, grad_moved: Float, grad_turned: Float, grad_means: Float,
        grad_quats: Float, gradient: Float, weights: tuple[float, float] | None,
    ) -> None:  # fmt: skip
        """See `NodeMotion.pull`; the table's part of `gradient` is added to."""
        self._put("means", grad_moved, gradient)
        self.nodes.pull(
            means, quats, grad_moved, grad_turned, grad_means, grad_quats, gradient[self.at :], weights
        )

    def _added(self, name: str, base: Float, out: Float) -> None:
        if name not in self.field.columns:
            out[:] = base
            return
        start, stop, unit = self.field.columns[name]
        k, share = self.between
        one, two = (self.table[i, :, start:stop] for i in (k, k + 1))
        np.add(base, (one + np.float32(share) * (two - one)) * np.float32(unit), out=out)

    def _put(self, name: str, grad: Float, gradient: Float) -> None:
        if name not in self.field.columns:
            return
        start, stop, unit = self.field.columns[name]
        k, share = self.between
        by = gradient[: self.at].reshape(self.table.shape)
        for key, part in ((k, 1.0 - share), (k + 1, share)):
            if part:
                by[key, :, start:stop] += np.float32(part * unit) * grad
