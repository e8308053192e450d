"""Which clips of a scene training takes: cameras that see the object through one lens, and still ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.videos.still_camera import camera_motion

#: Least share of the frame that the object covers in a view.
LEAST_COVERAGE = 0.01


def usable_views(clips: Sequence[Clip]) -> list[int]:
    """Numbers of the cameras that see the object, where that was measured, with the lens that most have."""
    lenses = [lens_of(clip) for clip in clips]
    common = Counter(lenses).most_common(1)[0][0]
    return [
        i
        for i, clip in enumerate(clips)
        # Not measured is no reason: such a clip shows a whole scene.
        if lenses[i] == common and not clip.measures.get("coverage", 1.0) < LEAST_COVERAGE
    ]


def lens_of(clip: Clip) -> float:
    """Focal length as a share of the width, to a thousandth."""
    camera = clip.cameras[0]
    return float(round(camera.fl_x / camera.w, 3))


def shows_motion(rgba: npt.NDArray[np.uint8], fps: float) -> bool:
    """Whether the background of a clip [F, H, W, 4] moves, though its camera is said to stand still. False
    where too little of a background is seen to say."""
    bare = (rgba[..., 3] < 255).any(axis=0)
    found = camera_motion(rgba, fps, bare if bare.any() else None)
    return not np.isnan(found.shift) and not found.is_still
