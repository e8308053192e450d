"""Control videos that are derived from the geometry beside a clip: flow, point tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.added.rows import action_sample
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.clip import ClipGeometry
from orbit4d.datasets.geometry.exports.tracks_video import point_frames
from orbit4d.datasets.geometry.layers import flow_frames
from orbit4d.datasets.geometry.reader import GEOMETRY, added_row, read_geometry
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store.clip import Clip

Frames = npt.NDArray[np.uint8]

#: Points that a video of tracks follows, and the seed of their draw.
POINTS, SEED = 1_024, 0


def _flow(clip: ClipGeometry) -> tuple[Frames, dict[str, Any]]:
    return flow_frames(clip), {"flow_colours": "hue: direction, strength: length, to the next frame"}


def _tracks(clip: ClipGeometry) -> tuple[Frames, dict[str, Any]]:
    return point_frames(clip, POINTS, SEED), {"tracks_points": POINTS, "tracks_seed": SEED}


GEOMETRY_CONTROLS: Mapping[str, Callable[[ClipGeometry], tuple[Frames, dict[str, Any]]]] = {
    "flow": _flow,
    "tracks": _tracks,
}


def check_geometry_control(kind: str, index: Index, row: Mapping[str, Any], name: str) -> None:
    """InputError where no geometry lies beside the clip of an index row, or it was refused."""
    try:
        added_row(index, row, action_sample(row["uid"], row["action_index"]), GEOMETRY)
    except InputError as error:
        raise InputError(f"{name}: --control {kind} needs the geometry of a dataset: {error}") from None


def geometry_control(kind: str, index: Index, clip: Clip) -> tuple[Frames, dict[str, Any]]:
    """uint8 [F, H, W, 3] of a clip's own size, black (flow: white) where nothing is seen; and its facts.

    F is the clip's frames; a clip that was shortened gets the first ones.
    """
    geometry = read_geometry(index, clip.uid, clip.action_index).clip(clip.rig, clip.orbit)
    frames, facts = GEOMETRY_CONTROLS[kind](geometry)
    return frames[: len(clip.cameras)], facts
