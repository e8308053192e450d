"""What a warp sees, at the resolution of latents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]


def latent_mask(
    seen: Mask, factor: int = 8, grow: int | None = None, share: float | None = None
) -> tuple[Mask, Mask]:
    """Pixels that stay, and latents that are seen.

    What is unseen grows by a square of 2 grow + 1, because an encoder lets it bleed into what is beside; a
    latent is unseen where at least `share` of its pixels are. The constants are those of NVS-Solver's
    released code, whose latents are of 8 pixels.

    Args:
        seen: bool [..., H, W], H and W multiples of `factor`.
        factor: pixels per latent.
        grow: pixels; None: 2 for each 8 of `factor`, so none for latents of fewer: those of our runs are
            blocks of pixels that nothing bleeds into, and 2 pixels would leave nothing of a small object.
        share: of unseen pixels from which a latent is unseen; None: 0.2, and any unseen pixel for latents of
            fewer than 8: a block holds its pixels as they are, and one across a silhouette would pin colours
            filled in from the object where the background is.

    Returns:
        bool [..., H, W] and [..., H / factor, W / factor].

    Raises:
        ValueError: for a size that `factor` does not divide.
    """
    h, w = seen.shape[-2:]
    if h % factor or w % factor:
        raise ValueError(f"seen: {w} x {h} is no multiple of {factor}")
    grow = factor // 8 * 2 if grow is None else grow
    if share is None:
        share = 0.2 if factor >= 8 else 1 / factor**2
    square = np.ones((1,) * (seen.ndim - 2) + (2 * grow + 1,) * 2, dtype=bool)
    kept = ~ndimage.binary_dilation(~seen, square) if grow else seen.copy()
    blocks = kept.reshape(*seen.shape[:-2], h // factor, factor, w // factor, factor)
    return kept, (~blocks).mean((-3, -1)) < share


def latent_frames(seen: Mask, distances: npt.NDArray[np.float64]) -> tuple[Mask, npt.NDArray[np.float64]]:
    """Masks [F, h, w] and distances [F] of frames as those of a video autoencoder's latent frames.

    Latent frame 0 is frame 0, latent frame k is frames 4k - 3 to 4k (Wan): seen where all of them see, as far
    as the farthest of them. F = 4n + 1.

    Raises:
        ValueError: for another number of frames.
    """
    count = len(seen)
    if count % 4 != 1:
        raise ValueError(f"this model takes 4n + 1 frames, got {count}")
    groups = [slice(0, 1), *(slice(4 * k - 3, 4 * k + 1) for k in range(1, (count + 3) // 4))]
    return np.stack([seen[g].all(0) for g in groups]), np.array([distances[g].max() for g in groups])


def fill_holes(image: npt.NDArray[np.float32], seen: Mask) -> npt.NDArray[np.float32]:
    """An image [H, W, C] whose unseen pixels take colours from around (push-pull, Gortler et al. 1996).

    Seen pixels stay as they are; an image with nothing seen stays too.
    """
    if seen.all() or not seen.any():
        return image
    weight = seen[..., None].astype(np.float32)
    levels = [(image * weight, weight)]
    while max(levels[-1][0].shape[:2]) > 1:
        colour, share = (_halved(plane) for plane in levels[-1])
        # A half-empty cell counts as full above: what is known must not fade with the distance.
        full = np.minimum(share * 4, 1.0)
        levels.append((np.divide(colour * full, share, out=np.zeros_like(colour), where=share > 0), full))
    colour = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)
    for own, share in reversed(levels[:-1]):
        h, w = own.shape[:2]
        around = ndimage.zoom(colour, (2, 2, 1), order=1, grid_mode=True, mode="nearest")[:h, :w]
        colour = own + (1 - share) * around
    return np.where(seen[..., None], image, colour).astype(np.float32)


def _halved(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Means of 2 x 2 blocks; an odd edge is padded by zeros."""
    h, w = plane.shape[:2]
    padded = np.pad(plane, ((0, h % 2), (0, w % 2), (0, 0)))
    return padded.reshape((h + 1) // 2, 2, (w + 1) // 2, 2, -1).mean((1, 3))
