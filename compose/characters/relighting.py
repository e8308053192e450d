"""One gain per channel for an actor in a scene, from its mean colour and that of the ground near it.

An actor keeps the light of the studio in which it was fitted. Nobody knows what its surface or the ground
reflects: means are compared (grey world; von Kries' gains). In brightness the two then agree; in hue it
goes `HUE` of the way, since most of a ground's hue is its own and not the light's: all the way, a red fox on
a grey street had a blue belly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.gaussians import Gaussians

Floats = npt.NDArray[np.float64]

#: What is near: within this many heights of the way, and within this share of a height of the ground.
REACH, NEAR = 1.5, 0.25
#: Share of the difference in hue, as logarithms, that the gains take.
HUE = 0.25
#: Weights of red, green and blue in brightness (ITU-R BT.709).
LUMA = np.array([0.2126, 0.7152, 0.0722])
#: Least and greatest gain: beyond it a strongly coloured ground would repaint the actor.
LEAST, MOST = 0.5, 2.0
#: Mean of a channel below which there is nothing to divide by.
_DARK = 1e-3


def relighting_gain(
    actor: Gaussians, scene: Gaussians, way: Any, height: float
) -> tuple[Floats, bool] | None:
    """(gain [3] of red, green and blue, whether a bound held it back) of an actor on a scene's ground.

    actor in any pose, place and size; scene in the world; way [N, 3] the actor's contact points and height
    its own, world units. None where nothing of the scene lies near its way.
    """
    points = np.asarray(way, np.float64)
    centres = scene.means.detach().double().cpu().numpy()
    reach = REACH * height
    box = (centres[:, :2] > points[:, :2].min(axis=0) - reach).all(axis=1)
    box &= (centres[:, :2] < points[:, :2].max(axis=0) + reach).all(axis=1)
    rows = np.flatnonzero(box)
    apart = np.linalg.norm(centres[rows, None, :2] - points[None, :, :2], axis=2)
    nearest = apart.argmin(axis=1)
    low = np.abs(centres[rows, 2] - points[nearest, 2]) <= NEAR * height
    near = (apart.min(axis=1) <= reach) & low
    rows = rows[near]
    share = _shares(scene, reach)[rows]
    if not share.sum() > 0:
        return None
    around = _mean(scene, share, rows)
    own = np.maximum(mean_colour(actor), _DARK)
    hue = (np.maximum(around, _DARK) / own) ** HUE
    gain = hue * (LUMA @ around) / (LUMA @ (hue * own))
    held = gain.clip(LEAST, MOST)
    return held, bool((held != gain).any())


def mean_colour(gaussians: Gaussians) -> Floats:
    """[3] mean colour, each Gaussian by its opacity and its area."""
    return _mean(gaussians, _shares(gaussians, np.inf), slice(None))


def _shares(gaussians: Gaussians, most: float) -> Floats:
    """[N] opacity times the area of the two longest axes, none longer than `most`."""
    axes = np.exp(gaussians.log_scales.detach().double().cpu().numpy()).clip(max=most)
    opacity = 1 / (1 + np.exp(-gaussians.logits.detach().double().cpu().numpy()))
    axes = np.sort(axes, axis=1)
    return np.asarray(opacity * axes[:, 1] * axes[:, 2], np.float64)


def _mean(gaussians: Gaussians, shares: Floats, rows: Any) -> Floats:
    colours = gaussians.colors.detach().double().cpu().numpy()[rows].clip(0, 1)
    found = (shares[:, None] * colours).sum(axis=0) / max(float(shares.sum()), 1e-300)
    return np.asarray(found, np.float64)
