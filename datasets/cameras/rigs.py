"""Rigs of synchronised cameras: any number of cameras that see the same times.

Placements are those of SynCamVideo and MultiCamVideo (KwaiVGI/SynCamMaster, KwaiVGI/ReCamMaster), with the
object's centre, the origin, as the target. Distances given in metres become units by `metres_per_unit`
(2: an object whose longest edge is 1 unit stands for one of 2 m). Every camera draws from a stream of its
own, so that more cameras or draws never change earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import (
    DEFAULT_FOV_X_DEG,
    DEFAULT_RADIUS,
    Array,
    Camera,
    focal_from_fov,
    orbit_c2w,
)
from orbit4d.datasets.cameras.moving_rig import SENSOR_MM, moving_camera, scene_lens
from orbit4d.datasets.cameras.sampling import rng
from orbit4d.datasets.core.errors import InputError

#: Rigs of one camera, which every dataset may hold: around the object at rest, around it in motion, and
#: standing still at the first view.
RIGS = ("static_orbit", "dynamic_orbit", "front_view")
METRES_PER_UNIT = 2.0
#: Lens of the static rigs: focal length in mm and f-number.
STATIC_LENS = (24.0, 5.0)
HEMISPHERE_LENS = (18.0, 10.0)
#: Cameras of `sync` and `sync_moving` where no number is given.
DEFAULT_CAMERAS = 10
MOST_CAMERAS = 1000
#: Forms of a rig's name, for messages and help.
KNOWN = (
    "sync",
    "sync:<n>",
    "sync_basic",
    "hemi36_<d>m_<e>",
    "sync_moving",
    "sync_moving:<n>",
    "ring:<n>[@<elevation>]",
)
_FORM = re.compile(
    r"(?P<basic>sync_basic)|(?P<drawn>sync|sync_moving)(?::(?P<n>[0-9]+))?"
    r"|hemi36_(?P<metres>[0-9]+)m_(?P<up>[0-9]+)|ring:(?P<ring>[0-9]+)(?:@(?P<elevation>[0-9]+))?"
)


@dataclass(frozen=True)
class RigName:
    """A rig as it is asked for."""

    argument: str
    """As written: `ring:8@20`."""
    family: str
    """`sync`, `sync_basic`, `hemi36`, `sync_moving` or `ring`."""
    n: int
    """Number of cameras."""
    distance_m: float = 0.0
    elevation_deg: float = 0.0

    @property
    def column(self) -> str:
        """The name in the index: the argument with `_` for `:` and `@`."""
        return self.argument.replace(":", "_").replace("@", "_")

    @property
    def is_drawn(self) -> bool:
        """Whether another draw gives other cameras."""
        return self.family in ("sync", "sync_moving")


@dataclass(frozen=True)
class RigCamera:
    """One camera of a rig over the frames of a clip."""

    label: str
    """`cam01`, `cam02`, ... in the order of the rig."""
    cameras: tuple[Camera, ...]
    """One per frame; of a static camera the same throughout."""
    azimuth_deg: float
    """Of the first frame, as in `orbit_c2w`."""
    elevation_deg: float
    radius: float
    """Distance from the origin at the first frame, units."""
    lens_mm: float | None = None
    sensor_mm: float | None = None
    f_number: float | None = None
    """Of the rig's lens; depth of field is rendered only where it is asked for."""
    draw: Mapping[str, Any] = field(default_factory=dict)
    """What was drawn: the kind of move and its amounts; {} where the rig's name says all."""


def parse_rig(text: str) -> RigName | None:
    """The rig that a text names, None where it names none of ours. InputError for numbers without sense."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    if match["basic"]:
        return RigName(text, "sync_basic", 10)
    if match["drawn"]:
        return RigName(text, match["drawn"], _count(text, match["n"] or DEFAULT_CAMERAS))
    if match["ring"]:
        return RigName(text, "ring", _count(text, match["ring"]), 0.0, _elevation(text, match["elevation"]))
    metres = int(match["metres"])
    if not 2 <= metres <= 100:
        raise InputError(f"rig {text}: {metres} m; give a distance of 2 to 100 m")
    return RigName(text, "hemi36", 36, float(metres), _elevation(text, match["up"]))


def _count(text: str, n: str | int) -> int:
    if not 1 <= int(n) <= MOST_CAMERAS:
        raise InputError(f"rig {text}: {n} cameras; give 1 to {MOST_CAMERAS}")
    return int(n)


def _elevation(text: str, degrees: str | None) -> float:
    if int(degrees or 0) > 89:
        raise InputError(f"rig {text}: elevation {degrees}; give whole degrees of 0 to 89")
    return float(degrees or 0)


def rig_cameras(
    name: str | RigName,
    frames: int = 1,
    size: tuple[int, int] = (256, 256),
    *,
    seed: int = 0,
    uid: str = "",
    draw: int = 0,
    metres_per_unit: float = METRES_PER_UNIT,
    ground: float = -0.5,
) -> list[RigCamera]:
    """The cameras of a rig, each with `frames` poses.

    `size` is (width, height) in pixels: a wider image crops the square sensor. `ground` is the height of
    the plane that moving cameras stay above, units. InputError for an unknown rig, naming those that are
    known, and where no moving camera can be drawn.
    """
    known = name if isinstance(name, RigName) else parse_rig(name)
    if known is None:
        raise InputError(f"unknown rig {name!r}; choose from {', '.join(KNOWN)}")
    if known.family == "sync_moving":
        return _moving(known, frames, size, seed, uid, draw, (metres_per_unit, ground))
    if known.family == "ring":
        places = [(360.0 * k / known.n, known.elevation_deg, DEFAULT_RADIUS) for k in range(known.n)]
        lens: tuple[float, float] | None = None
    elif known.family == "hemi36":
        units = known.distance_m / metres_per_unit
        places = [(180.0 - 10.0 * i, known.elevation_deg, units) for i in range(1, 37)]
        lens = HEMISPHERE_LENS
    elif known.family == "sync_basic":
        places = [(a, e, d / metres_per_unit) for a, e, d in _BASIC]
        lens = STATIC_LENS
    else:
        places = [_scattered(seed, uid, draw, k, metres_per_unit) for k in range(known.n)]
        lens = STATIC_LENS
    focal = focal_from_fov(DEFAULT_FOV_X_DEG, size[0]) if lens is None else _focal(lens[0], size)
    return [
        RigCamera(
            label_of(k),
            (_pinhole(orbit_c2w(*place), focal, size),) * frames,
            *place,
            lens_mm=None if lens is None else lens[0],
            sensor_mm=None if lens is None else SENSOR_MM,
            f_number=None if lens is None else lens[1],
        )
        for k, place in enumerate(places)
    ]


def label_of(k: int) -> str:
    """Label of camera k, counted from 0: `cam01` for 0."""
    return f"cam{k + 1:02d}"


#: Azimuth and elevation in degrees and distance in metres of the published validation rig: its raised cameras
#: keep the horizontal distance of 3 m.
_BASIC = (
    *((a, 0.0, 3.0) for a in (30.0, 15.0, 0.0, -15.0, -30.0)),
    *((0.0, e, 3.0 / float(np.cos(np.radians(e)))) for e in (10.0, 20.0, 30.0)),
    (0.0, 0.0, 4.0),
    (0.0, 0.0, 5.0),
)


def _scattered(seed: int, uid: str, draw: int, k: int, metres_per_unit: float) -> tuple[float, float, float]:
    """(azimuth, elevation, distance in units) of a camera of `sync`."""
    generator = rng(seed, uid, f"sync/{draw}/{k}")
    azimuth, elevation = generator.uniform(0.0, 360.0), generator.uniform(0.0, 45.0)
    return azimuth, elevation, generator.uniform(3.5, 9.0) / metres_per_unit


def _moving(
    known: RigName,
    frames: int,
    size: tuple[int, int],
    seed: int,
    uid: str,
    draw: int,
    room: tuple[float, float],
) -> list[RigCamera]:
    lens_mm, f_number = scene_lens(rng(seed, uid, f"sync_moving/{draw}/lens"))
    focal = _focal(lens_mm, size)
    found = []
    for k in range(known.n):
        drawn = moving_camera(rng(seed, uid, f"sync_moving/{draw}/{k}"), frames, *room)
        if drawn is None:
            raise InputError(
                f"rig {known.argument}: {uid or 'scene'}, draw {draw}: no camera {label_of(k)} was found in "
                "100 draws that stays 1 unit from the centre and above the ground; choose another --seed or "
                "fewer --metres-per-unit"
            )
        cameras = tuple(_pinhole(c2w, focal, size) for c2w in drawn.c2w)
        place = (drawn.azimuth_deg, drawn.elevation_deg, drawn.radius)
        found.append(RigCamera(label_of(k), cameras, *place, lens_mm, SENSOR_MM, f_number, drawn.told))
    return found


def _focal(lens_mm: float, size: tuple[int, int]) -> float:
    """Focal length in pixels behind a square sensor as wide as the image's longer side."""
    return lens_mm / SENSOR_MM * max(size)


def _pinhole(c2w: Array, focal: float, size: tuple[int, int]) -> Camera:
    w, h = size
    return Camera(c2w, focal, focal, w / 2, h / 2, w, h)
