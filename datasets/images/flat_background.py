"""Mattes of objects before one flat colour, which a codec or a diffusion model has made uneven.

What the frames' border shows is taken for the background: its colour, and its grain, the scale of how far
pixels stray from that colour. Without grain the matte is a fixed ramp of the difference. With grain the ramp
begins where grain ends, and specks that are left are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[np.float32]
#: Differences between which alpha rises where there is no grain; codecs stray by about 0.02.
_LOW, _HIGH = 0.02, 0.10
#: The same in units of the grain. Their middle was measured on eight orbits with Gaussian grain of sigma 0.02
#: to 0.1, sharp and soft: at 3 specks are left, from 4 on what is near a grey background is cut away.
_LOW_GRAIN, _HIGH_GRAIN = 2.5, 4.5
#: Grain above which nothing is tried: Gaussian grain of sigma 0.13 on white, where objects were whole. On
#: grey they are cut from 0.04 on; a note then says how near to the background parts are lost.
_MAX_GRAIN = 0.12
#: How far the border may stray from its colour and still be flat, once grain is smoothed away.
_FLAT = 0.06
#: The same from the colour that a generator was asked to draw: what it drew may have a tint.
_TINT = 0.12
#: The same for a single photo, in 255ths: cameras and JPEG stray further than renders do.
_PHOTO = 24


@dataclass(frozen=True)
class Background:
    """A flat background as the borders of F frames show it."""

    colour: Float
    """[3] in [0, 1]."""
    per_frame: Float
    """[F, 3]: the colour of each frame, which drifts where a model drew it."""
    grain: float
    """Sigma of Gaussian grain that strays as far.

    The 75th percentile of the largest channel's difference by 1.5: it is 1.7 sigma on grey, and 1.3 on white,
    where half of the grain is clipped (the median is 1.3 and 0.8).
    """

    @property
    def grainy(self) -> bool:
        """Whether alpha must rise later than it does without grain."""
        return _LOW_GRAIN * self.grain > _LOW

    @property
    def clean(self) -> bool:
        """Whether the matte needs no allowance for grain or drift."""
        return not self.grainy and float(np.abs(self.per_frame - self.colour).max()) <= _LOW

    @property
    def ramp(self) -> tuple[float, float]:
        """Differences from the colour between which alpha rises from 0 to 1."""
        return max(_LOW, _LOW_GRAIN * self.grain), max(_HIGH, _HIGH_GRAIN * self.grain)


def find_background(rgb: Float, known: Float | None = None) -> Background | None:
    """The background of frames [F, H, W, 3]; None where the border is not one flat colour, or too grainy.

    `known` [3] is the colour that a generator was asked for. It is believed where half of the border shows
    it, so that an object may cover the rest; without it three quarters of the border must be flat.
    """
    ring = _ring(rgb)
    # A running median over a sixteenth of the border: grain goes, what a photograph shows stays, and so does
    # the outline of an object that touches the border.
    width = max(3, ring.shape[1] // 16)
    smooth = ndimage.median_filter(ring, (1, width, 1), mode="wrap")
    near = None if known is None else np.abs(smooth - known).max(-1) <= _TINT
    if near is not None and near.mean() >= 0.5:
        colour = np.median(ring[near], axis=0)
    else:
        colour = np.median(ring.reshape(-1, 3), axis=0)
        near = np.abs(smooth - colour).max(-1) <= _FLAT
        if near.mean() < 0.75 and np.percentile(np.abs(ring - colour).max(-1), 75) > _FLAT:
            return None
    # A frame whose border is all object has no colour of its own.
    per_frame = np.stack([np.median(r[n], axis=0) if n.mean() > 0.25 else colour for r, n in zip(ring, near)])
    grain = float(np.percentile(np.abs(ring - per_frame[:, None]).max(-1)[near], 75)) / 1.5
    return Background(colour, per_frame, grain) if grain <= _MAX_GRAIN else None


def behind_one_image(rgb: npt.NDArray[np.uint8]) -> tuple[Float, npt.NDArray[np.bool_]] | None:
    """(colour [3] of 0 to 255, where the background is [H, W]) of one image uint8 [H, W, 3], a photo.

    The rule for a single image that no generator drew: the border must be flat but for a tenth, and only what
    is connected with it is background, so that a white shirt on white stays part of the object where it is
    enclosed. None where the border is not flat.
    """
    values = rgb.astype(np.int16)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    colour = np.median(border, axis=0)
    if (np.abs(border - colour).max(axis=1) <= _PHOTO).mean() < 0.9:
        return None
    labels, _ = ndimage.label(np.abs(values - colour).max(axis=2) <= _PHOTO)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return colour, np.isin(labels, edge[edge > 0])


def _ring(rgb: Float) -> Float:
    """Border pixels [F, P, 3] of frames in the order in which they go round."""
    sides = (rgb[:, 0], rgb[:, :, -1], rgb[:, -1, ::-1], rgb[:, ::-1, 0])
    return np.concatenate(sides, axis=1)


def unmix(rgb: Float, background: Background) -> Float:
    """Straight RGBA [F, H, W, 4] of an object before a flat colour.

    Holes that the object encloses (a white shirt on white) are filled, since an outline that is closed hides
    what lies behind.
    """
    colour: Float = background.colour
    if not background.clean:
        colour = background.per_frame[:, None, None]
    low, high = background.ramp
    alpha = np.clip((np.abs(rgb - colour).max(-1) - low) / (high - low), 0, 1)
    if not background.clean:
        alpha = _without_specks(alpha)
    for i, plane in enumerate(alpha):
        filled = ndimage.binary_fill_holes(plane > 0.5)
        alpha[i] = np.where(filled & (plane <= 0.5), 1.0, plane)
    # colour = alpha * object + (1 - alpha) * background, solved for the object where there is enough of it
    safe = np.maximum(alpha, 0.2)[..., None]
    straight = np.clip(colour + (rgb - colour) / safe, 0, 1)
    straight = np.where(alpha[..., None] > 0, straight, 0)
    return np.concatenate([straight, alpha[..., None]], axis=-1).astype(np.float32)


def _without_specks(alpha: Float) -> Float:
    """Alpha [F, H, W] of what is larger than a speck, and of its soft edge one pixel around."""
    touching = np.ones((3, 3), dtype=bool)
    # Grain of a pixel's size leaves specks of up to 3 pixels, grain blurred by a pixel of up to 7; the grain
    # of a decoder grows with its frames.
    least = max(8.0, 4e-4 * alpha[0].size)
    out = np.zeros_like(alpha)
    for i, plane in enumerate(alpha):
        labels, count = ndimage.label(plane > 0.5, touching)
        large = np.bincount(labels.ravel(), minlength=count + 1) >= least
        large[0] = False
        out[i] = np.where(ndimage.binary_dilation(large[labels], touching), plane, 0)
    return out
