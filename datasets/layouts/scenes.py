"""Scenes of several cameras: the clips of one action under one light that see the same times.

A clip is one camera, and its orbit the camera's number, whatever rig rendered it. What a layout has no place
for is kept beside it as the record of each clip, so that importing the export again gives the same clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.store.clip import Clip, sample_name
from orbit4d.datasets.store.schema import row_clip, row_spans

#: Fields of a clip that a record holds in another form.
_OWN = ("frames", "cameras", "passes", "measures", "renderer")


@dataclass(frozen=True)
class Scene:
    """Cameras of one scene, in the order of their numbers; their clips hold no pixels."""

    number: int
    """Among the scenes of an export, from 1."""
    name: str
    """`<uid>__a<action_index>__<rig>`, and `__l<light>` behind it under further lights."""
    clips: tuple[Clip, ...]
    rows: tuple[int, ...]
    """Numbers of the clips in the index."""

    @property
    def labels(self) -> tuple[str, ...]:
        """`cam01` ..., by the camera's number."""
        return tuple(camera_label(clip) for clip in self.clips)

    @property
    def moving(self) -> bool:
        """Whether a camera moves."""
        return any(not is_static(clip) for clip in self.clips)

    def pick(self, asked: Sequence[str]) -> tuple[int, ...]:
        """Places of the cameras that are asked for by label or number. Raises InputError."""
        found = []
        for text in asked:
            label = f"cam{int(text):02d}" if text.isdigit() else text
            if label not in self.labels:
                have = ", ".join(self.labels)
                raise InputError(f"--test-cameras {text}: {self.name} has no such camera; it has {have}")
            found.append(self.labels.index(label))
        return tuple(found)


def camera_label(clip: Clip) -> str:
    """The camera's name within its rig: what the clip says, else `cam` and its number from 1."""
    return getattr(clip, "camera_label", None) or f"cam{clip.orbit + 1:02d}"


def is_static(clip: Clip) -> bool:
    """Whether one camera took every frame."""
    return all(np.array_equal(camera.c2w, clip.cameras[0].c2w) for camera in clip.cameras)


def scenes_of(index: Index, rows: Sequence[int]) -> Iterator[Scene]:
    """Scenes of index rows, asset by asset. InputError for cameras of a scene that see different times."""
    number = 0
    for group in _assets(index, rows):
        sorted_rows: dict[str, list[tuple[int, int, Clip]]] = {}
        for row in group:
            clip = _without_pixels(index, row)
            name = scene_name(clip)
            sorted_rows.setdefault(name, []).append((clip.orbit, row, clip))
        for name, members in sorted_rows.items():
            members.sort(key=lambda member: member[0])
            number += 1
            scene = Scene(number, name, tuple(m[2] for m in members), tuple(m[1] for m in members))
            _check(scene)
            yield scene


def scene_name(clip: Clip) -> str:
    """The clip's name without its camera, and with the draw of its rig where there are several."""
    head, _, tail = sample_name(clip.key).rpartition(f"__o{clip.orbit}")
    draw = getattr(clip, "rig_draw", None)
    return head + tail + (f"__d{draw}" if draw else "")


def _assets(index: Index, rows: Sequence[int]) -> Iterator[list[int]]:
    numbers = np.asarray(rows, dtype=np.int64)
    assets = index.keys.asset[numbers]
    for part in np.split(numbers, np.flatnonzero(np.diff(assets)) + 1):
        if len(part):
            yield part.tolist()


def _without_pixels(index: Index, number: int) -> Clip:
    row = index.row(number)
    return row_clip(row, [b""] * len(row_spans(row)))


def _check(scene: Scene) -> None:
    first = scene.clips[0]
    for clip in scene.clips[1:]:
        if clip.time != first.time:
            raise InputError(
                f"{scene.name}: {camera_label(first)} and {camera_label(clip)} see different times "
                f"({len(first.time)} and {len(clip.time)} frames); render them as one rig"
            )
    if len(set(scene.labels)) < len(scene.labels):
        raise InputError(f"{scene.name}: two cameras are called alike; choose one draw of the rig by --where")


# Records ----------------------------------------------------------------------------------------------------


def clip_record(clip: Clip) -> dict[str, Any]:
    """Everything about a clip but its images, as JSON holds it without loss."""
    first = clip.cameras[0]
    own = {entry.name: getattr(clip, entry.name) for entry in fields(clip) if entry.name not in _OWN}
    own = {name: dict(value) if isinstance(value, Mapping) else value for name, value in own.items()}
    return {
        **own,
        "measures": dict(clip.measures),
        "renderer": dict(clip.renderer),
        "c2w": [camera.c2w.reshape(16).tolist() for camera in clip.cameras],
        "intrinsics": dict(zip(("fl_x", "fl_y", "cx", "cy", "w", "h"), first.intrinsics)),
    }


def recorded_cameras(record: Mapping[str, Any]) -> list[Camera]:
    """Cameras of a record; KeyError, TypeError or ValueError where it has none."""
    return [Camera(np.reshape(c2w, (4, 4)), **record["intrinsics"]) for c2w in record["c2w"]]


def recorded_clip(
    record: Mapping[str, Any],
    frames: Sequence[bytes],
    cameras: Sequence[Camera],
    passes: Mapping[str, tuple[bytes, ...]] | None = None,
) -> Clip:
    """The clip of a record with these images and cameras; ValueError or TypeError where they do not fit."""
    known = {entry.name for entry in fields(Clip)} - {"frames", "cameras", "passes"}
    given = {name: value for name, value in record.items() if name in known}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Clip(**given, frames=tuple(frames), cameras=tuple(cameras), passes=dict(passes or {}))
