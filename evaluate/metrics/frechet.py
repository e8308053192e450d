"""The Fréchet distance between two sets of features, and the four ways SV4D cuts videos out of a matrix.

Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson and Landau 1982;
Heusel et al. 2017 for FID; Unterthiner et al. 2018 for FVD).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]


class Moments:
    """Mean and covariance of features, gathered in float64: memory does not grow with the videos."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = np.zeros(width)
        self._outer = np.zeros((width, width))
        self._shift: Array | None = None

    def update(self, features: npt.ArrayLike) -> None:
        """Add features [n, width]."""
        features = np.asarray(features, dtype=np.float64)
        if self._shift is None:
            # Sums around the first feature: raw second moments would lose the digits that matter.
            self._shift = features[0].copy()
        centred = features - self._shift
        self.count += len(centred)
        self._sum += centred.sum(0)
        self._outer += centred.T @ centred

    @property
    def mean(self) -> Array:
        """[width]"""
        if self._shift is None:
            raise ValueError("no features were added")
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> Array:
        """[width, width], sample covariance (divided by n - 1)."""
        if self.count < 2:
            raise ValueError("a covariance needs at least two videos")
        centre = self._sum / self.count
        return (self._outer - self.count * np.outer(centre, centre)) / (self.count - 1)


def frechet_distance(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """Squared Fréchet distance of two Gaussians (Heusel et al. 2017, arXiv 1706.08500); lower is better.

    Means are [D], covariances [D, D], float64, as `Moments` gathers them.
    tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric,
    so it needs no complex matrix root and stays exact for singular covariances (fewer videos than features).
    """
    values, vectors = np.linalg.eigh(cov1)
    root1 = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.linalg.eigvalsh(root1 @ cov2 @ root1)
    trace = np.sqrt(np.clip(cross, 0, None)).sum()
    difference = mean1 - mean2
    # Rounding may leave a little less than nothing between equal sets.
    return max(0.0, float(difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * trace))


def fvd_forms(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    """Videos that SV4D (arXiv 2407.17470, section 4.1) scores, cut out of images [V, F, 3, H, W].

    FVD-F: frames run at each view, [V, F, ...]. FVD-V: views run at each frame, [F, V, ...].
    FVD-Diag: the diagonal of the view x time matrix, [1, max(V, F), ...] (what Diffusion4D generates).
    FV4D: the whole matrix in one video, rows there and back (two-way raster), [1, V * F, ...].
    """
    if matrix.ndim != 5:
        raise ValueError(f"a view x time matrix is [V, F, 3, H, W], got {tuple(matrix.shape)}")
    views, frames = matrix.shape[:2]
    steps = max(views, frames)
    v = torch.arange(steps) * views // steps
    f = torch.arange(steps) * frames // steps
    raster = torch.stack([row if i % 2 == 0 else row.flip(0) for i, row in enumerate(matrix)])
    return {
        "FVD-F": matrix,
        "FVD-V": matrix.transpose(0, 1),
        "FVD-Diag": matrix[v, f].unsqueeze(0),
        "FV4D": raster.flatten(0, 1).unsqueeze(0),
    }
