"""How much the scenes of a training split move."""

from __future__ import annotations

import numpy as np

from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.views.scenes import SceneClips

#: Scenes that are inspected.
_SAMPLE = 256


def scenes_motion(scenes: SceneClips) -> MotionStatistics:
    """Of one camera of up to 256 scenes, spread evenly."""
    count = min(len(scenes.multi), _SAMPLE)
    chosen = [scenes.multi[i] for i in np.linspace(0, len(scenes.multi) - 1, count).astype(int)]
    return MotionStatistics.of_values([scenes.motion(i, scenes.usable[i][0]) for i in chosen])


def is_fresh(network: OrbitUNet | OrbitWan) -> bool:
    """Whether a Wan base has a part for motion that knows no statistics yet. Others belong to the weights, as
    an OrbitUNet's do to its base."""
    if not isinstance(network, OrbitWan) or network.motion_embedding is None:
        return False
    return float(network.motion_mean) == 0.0 and float(network.motion_std) == 1.0
