"""The clip: one (uid, action, rig, orbit, light) with N frames, their cameras, times and provenance."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.rigs import RIGS
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.codec import Pixels, decode, encode_webp, suffix
from orbit4d.datasets.store.passes import decode_pass, missing_pass

__all__ = ["RIGS", "Clip", "ClipKey", "decode", "encode_webp", "member_names"]

#: (uid, action_index, rig, orbit), and the light where it is not 0: what makes a clip unique in a dataset.
ClipKey = tuple[str, int, str, int] | tuple[str, int, str, int, int]

_UID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Clip:
    """One clip as it is rendered, stored and read back."""

    uid: str
    """Asset id: letters, digits, `_` and `-`."""
    action: str
    """Name of the action as read from the asset; '' for a still asset."""
    action_index: int
    """Order of the action in its file, from 0."""
    rig: str
    """`static_orbit` (time fixed), `dynamic_orbit` (both run), `front_view` (camera fixed), or a rig of
    synchronised cameras (`cameras/rigs.py`), named by its argument with `_` for `:` and `@`."""
    orbit: int
    """0 starts at the front; further ones at other azimuths. Of n synchronised cameras: draw · n + number of
    the camera, both from 0."""
    frames: tuple[bytes, ...]
    """N encoded images in frame order: lossless WebP, straight RGBA, 8 bits."""
    cameras: tuple[Camera, ...]
    """N cameras, one per frame."""
    time: tuple[float, ...]
    """N times in [0, 1] on the clip's window."""
    seconds: tuple[float, ...]
    """N times in seconds on the asset's clock."""
    window: tuple[float, float]
    """Start and end of what moves, seconds."""
    scale: float
    """World units of the clip per asset unit."""
    centre: tuple[float, float, float]
    """Point of the asset that lies at the clip's origin, asset units."""
    azimuth0_deg: float
    """Azimuth of view 0, degrees, from -Y towards +X."""
    elevation_deg: float
    """Real angle above the horizon, degrees."""
    radius: float
    """Distance of the cameras from the origin."""
    passes: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Further images per frame (depth, normal, ...), N encoded members each."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Numbers measured on the clip or its asset (motion_geometry, motion_magnitude, boundary_touch, ...)."""
    license: str = ""
    author: str = ""
    source_url: str = ""
    caption: str = ""
    split: str = ""
    """train, validation or test; '' leaves it to a hash of the uid."""
    asset_sha256: str = ""
    """SHA-256 of the asset file, hex."""
    renderer: Mapping[str, str | int | float] = field(default_factory=dict)
    """Engine, samples, versions."""
    render_seconds: float = 0.0
    """Wall time the clip took to render. Not part of the digest."""
    light: int = 0
    """Number of the lighting under which the clip was rendered; clips of one camera and different lights show
    the same."""
    camera_label: str | None = None
    """Name of a synchronised camera, as `cam01`; None for orbits and fronts."""
    rig_draw: int | None = None
    """Which draw of the rig's cameras, from 0."""
    metres_per_unit: float | None = None
    """Metres that a unit of the clip's world stands for, where a rig is given in metres."""
    lens_mm: float | None = None
    """Focal length in mm, for a sensor of `sensor_mm` width."""
    sensor_mm: float | None = None
    camera_draw: Mapping[str, Any] = field(default_factory=dict)
    """How the cameras were chosen (path, roll, aperture, ...); {} for plain orbits and fronts."""
    lighting: Mapping[str, Any] = field(default_factory=dict)
    """What lit the clip; {} for the lights of the preset."""

    def __post_init__(self) -> None:
        name = "__".join(map(str, (self.uid, self.action_index, self.rig, self.orbit)))
        if not _UID.fullmatch(self.uid):
            raise ValueError(f"clip {name}: a uid holds 1 to 200 of A-Z a-z 0-9 _ -")
        if not _NAME.fullmatch(self.rig) or "__" in self.rig:
            raise ValueError(f"clip {name}: a rig is a lower-case name without a double underscore")
        if self.action_index < 0 or self.orbit < 0 or self.light < 0:
            raise ValueError(f"clip {name}: action_index, orbit and light count from 0")
        n = len(self.frames)
        if n == 0:
            raise ValueError(f"clip {name}: no frames")
        for what, values in (
            ("cameras", self.cameras),
            ("time", self.time),
            ("seconds", self.seconds),
            *((f"pass {key}", members) for key, members in self.passes.items()),
        ):
            if len(values) != n:
                raise ValueError(f"clip {name}: {n} frames but {len(values)} {what}")
        if not all(0.0 <= t <= 1.0 for t in self.time):
            raise ValueError(f"clip {name}: time must lie in [0, 1]")
        for key in self.passes:
            if not _NAME.fullmatch(key):
                raise ValueError(f"clip {name}: a pass is a lower-case name, got {key!r}")

    @property
    def key(self) -> ClipKey:
        """(uid, action_index, rig, orbit), and the light where it is not 0."""
        return clip_key(self.uid, self.action_index, self.rig, self.orbit, self.light)

    @property
    def sha256(self) -> str:
        """SHA-256, hex, of the member bytes: frames in order, then each pass (by name) in frame order."""
        digest = hashlib.sha256()
        for member in self.members:
            digest.update(member)
        return digest.hexdigest()

    @property
    def members(self) -> list[bytes]:
        """Every encoded image in stored order: frames, then passes by name."""
        return [*self.frames, *(data for key in sorted(self.passes) for data in self.passes[key])]

    def pixels(self) -> Pixels:
        """Straight RGBA, uint8 [N, H, W, 4]."""
        return np.stack([decode(frame) for frame in self.frames])

    def pass_arrays(self, name: str) -> npt.NDArray[Any]:
        """A stored pass: depth float32 [N, H, W], normal float16 [N, H, W, 3], mask uint16 [N, H, W]; units
        and axes stand in passes.py. A pass that is not stored raises InputError naming those that are."""
        if name not in self.passes:
            raise InputError(missing_pass(sample_name(self.key), name, self.passes))
        return np.stack([decode_pass(data, name) for data in self.passes[name]])


def clip_key(uid: str, action_index: int, rig: str, orbit: int, light: int | None = 0) -> ClipKey:
    """The key of a clip; None, of an index without lights, stands for light 0."""
    return (uid, action_index, rig, orbit, light) if light else (uid, action_index, rig, orbit)


def sample_name(key: ClipKey) -> str:
    """`<uid>__a<action_index>__<rig>__o<orbit>`, and `__l<light>` where it is not 0: the WebDataset key of a
    clip."""
    uid, action_index, rig, orbit, *light = key
    return f"{uid}__a{action_index}__{rig}__o{orbit}" + "".join(f"__l{n}" for n in light)


def member_names(clip: Clip) -> list[str]:
    """Tar member names in the order of `Clip.members`.

    `<sample>.<frame:03d>.webp` for frames, `<sample>.<pass>.<frame:03d>.<ending>` for passes.
    """
    sample = sample_name(clip.key)
    names = [f"{sample}.{i:03d}.{suffix(data)}" for i, data in enumerate(clip.frames)]
    for key in sorted(clip.passes):
        names += [f"{sample}.{key}.{i:03d}.{suffix(data)}" for i, data in enumerate(clip.passes[key])]
    return names
