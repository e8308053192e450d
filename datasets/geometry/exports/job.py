"""What every export of geometry starts from: the chosen clips by action, and the settings of the export."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.added.rows import clip_sample
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.action import ActionMesh
from orbit4d.datasets.geometry.clip import ClipGeometry
from orbit4d.datasets.geometry.reader import Geometry
from orbit4d.datasets.images.codec import decode
from orbit4d.datasets.images.over import over_bytes
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.schema import row_clip

Files = Iterator[tuple[str, bytes]]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class GeometrySettings:
    """What the user may choose; None stands for the format's own value."""

    points: int | None = None
    """Points that are followed."""
    seed: int = 0
    """Of the points."""
    moments: int | None = None
    """Times that are written, evenly chosen from those of the action."""
    up: Literal["y", "z"] | None = None
    """Axis that points up in the files."""
    gap: int = 1
    """Frames from a flow's first image to its second one."""
    tracks_video: Literal["points", "dense"] = "dense"


class Refused(Exception):
    """An action or clip that a format cannot say; `code` is the reason, the text what it means."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


#: What leaves one action or clip out and lets the others continue: a format's refusal, or no surface to
#: sample.
LEFT_OUT = (Refused, InputError)


def leave_out(name: str, error: Exception, notes: list[str]) -> None:
    """Tell in `notes` why the action or clip `name` is not written."""
    code = f"{error.code}, " if isinstance(error, Refused) else ""
    notes.append(f"{name}: left out ({code}{error})")


@dataclass(frozen=True)
class ExportClip:
    """A chosen clip over its surfaces."""

    index: Index
    row: Mapping[str, Any]
    geometry: ClipGeometry

    @property
    def name(self) -> str:
        """Name of the clip's files."""
        return clip_sample(self.row)

    @cached_property
    def clip(self) -> Clip:
        """Images, cameras and times, as stored."""
        return row_clip(self.row, read_members(self.index.shard_store, self.row))

    def rgba(self, frame: int) -> npt.NDArray[np.uint8]:
        """[H, W, 4] straight."""
        return decode(self.clip.frames[frame])

    def rgb(self, frame: int) -> npt.NDArray[np.uint8]:
        """[H, W, 3] over white."""
        return over_bytes(self.rgba(frame), (255, 255, 255))


@dataclass(frozen=True)
class ExportAction:
    """An action with those of its clips that were chosen."""

    name: str
    """Name of the action's files: the uid, and `__a<index>` where the asset has several actions."""
    index: Index
    rows: tuple[Mapping[str, Any], ...]
    geometry: Geometry
    settings: GeometrySettings
    notes: list[str] = field(default_factory=list)
    """Lines for the user, shared by all actions of an export."""

    @property
    def mesh(self) -> ActionMesh:
        """What is stored of the surface."""
        return self.geometry.mesh

    @cached_property
    def clips(self) -> tuple[ExportClip, ...]:
        """The chosen clips."""
        return tuple(
            ExportClip(self.index, row, self.geometry.clip(row["rig"], row["orbit"])) for row in self.rows
        )

    def moments(self, usual: int | None = None) -> npt.NDArray[np.int64]:
        """Which times of the mesh are written: round(linspace(0, T - 1, n)), or all."""
        known, wanted = len(self.mesh.seconds), self.settings.moments or usual
        if wanted is None:
            return np.arange(known)
        if wanted > known:
            self.note(f"has {known} times; {wanted} are written, some of them several times")
        return np.rint(np.linspace(0, known - 1, wanted)).astype(np.int64)

    def axes(self, usual: Literal["y", "z"]) -> Literal["y", "z"]:
        """Axis that points up."""
        return self.settings.up or usual

    def note(self, text: str) -> None:
        """Tell the user something about this action."""
        self.notes.append(f"{self.name}: {text}")

    def meta(self, moments: Iterable[int], up: str, **more: Any) -> bytes:
        """meta.json: what the layout itself has no place for."""
        row = self.rows[0]
        given = {
            "uid": row["uid"],
            "action": row["action"],
            "action_index": row["action_index"],
            "license": row.get("license", ""),
            "caption": row.get("caption", ""),
            "seconds": [float(self.mesh.seconds[t]) for t in moments],
            "axes": AXES[up],
            "unit": "the clip's world unit, as 1 m where the format has metres",
            "scale": row.get("scale"),
            "centre": row.get("centre"),
            "coordinate_bound": self.mesh.bound,
            **more,
        }
        return json.dumps(given, indent=1, default=_plain).encode()


#: What `--up` means, in words.
AXES = {"z": "right-handed, +Z up, front seen from -Y", "y": "right-handed, +Y up: (x, z, -y) of the dataset"}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def turned(points: Floats, up: str) -> npt.NDArray[np.float32]:
    """Points or vectors [..., 3] of the clip's world with `up` as the axis that points up."""
    points = np.asarray(points)
    if up == "y":
        points = np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)
    return np.ascontiguousarray(points, np.float32)


def each_action(write: Callable[[ExportAction], Files]) -> Callable[[Iterable[ExportAction]], Files]:
    """The files of one action after another; what is refused is noted with its reason code."""

    def stream(actions: Iterable[ExportAction]) -> Files:
        for action in actions:
            try:
                yield from write(action)
            except LEFT_OUT as error:
                leave_out(action.name, error, action.notes)

    return stream


def each_clip(
    write: Callable[[ExportAction, ExportClip], Files],
) -> Callable[[Iterable[ExportAction]], Files]:
    """The files of one clip after another; what is refused is noted with its reason code."""

    def stream(actions: Iterable[ExportAction]) -> Files:
        for action in actions:
            for clip in action.clips:
                try:
                    yield from write(action, clip)
                except LEFT_OUT as error:
                    leave_out(clip.name, error, action.notes)

    return stream


def npy(array: npt.NDArray[Any]) -> bytes:
    """An array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """8-bit pixels [H, W] or [H, W, 3 or 4] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
