"""Which images an action needs: clips of (camera, time), and each distinct pair once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.rigs import RIGS, RigCamera, parse_rig, rig_cameras
from orbit4d.render.planning.framing import FramedFor
from orbit4d.render.planning.orbit_cameras import Optics, orbit_cameras, rig_optics
from orbit4d.render.planning.settings import RenderSettings

#: Bytes of a camera's numbers, seconds, lens and light: what one image is known by.
Pair = tuple[bytes, float, Optics | None, int]
#: Height of the plane that moving cameras stay above, where the object's own lowest point is not known.
GROUND = -0.5


@dataclass(frozen=True)
class View:
    """One image: a camera of the normalised scene at one time on the asset's clock."""

    camera: Camera
    seconds: float
    optics: Optics | None = None
    """None: everything is sharp."""
    light: int = 0


@dataclass
class ClipPlan:
    """One clip, each frame an index into the plan's views."""

    rig: str
    orbit: int
    azimuth0_deg: float
    elevation_deg: float
    cameras: list[Camera]
    seconds: list[float]
    time: list[float]
    """In [0, 1] on the window."""
    radius: float
    """Distance of the first camera from the origin."""
    views: list[int] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the clip: `camera_label`, `rig_draw`, `lens_mm`, ..."""
    light: int = 0
    optics: Optics | None = None
    frames_for: FramedFor | None = None
    """What `fit` keeps in view for this clip; None for a rig's, which do not enter the framing."""
    may_miss: bool = False
    """Whether frames may show nothing: a rig's cameras may turn away, or stand nearer than the framing."""


@dataclass
class Plan:
    """All clips of one action, and the distinct views behind them in the order they are best taken."""

    window: tuple[float, float]
    clips: list[ClipPlan]
    views: list[View]
    framed_for: tuple[FramedFor, ...] = ()
    """What `fit` keeps the object in view of."""

    @property
    def sha256(self) -> str:
        """Hash of every clip's cameras and seconds and of the order of the views: equal for equal plans."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(f"{clip.rig}/{clip.orbit} {clip.views}".encode())
            digest.update(np.array([*clip.seconds, *clip.time], np.float64).tobytes())
            for camera in clip.cameras:
                digest.update(np.asarray(camera.c2w, np.float64).tobytes())
                inner = (camera.fl_x, camera.fl_y, camera.cx, camera.cy, camera.w, camera.h)
                digest.update(np.array(inner, np.float64).tobytes())
        return digest.hexdigest()

    @property
    def times(self) -> list[float]:
        """Distinct times in seconds at which anything is rendered, ascending."""
        return sorted({view.seconds for view in self.views})


def measured_as(rig: str, orbit: int, light: int = 0) -> str:
    """Key of a clip's measures: `<rig>/<orbit>`, and the light where it is not 0."""
    return f"{rig}/{orbit}" + (f"/{light}" if light else "")


def times_of(settings: RenderSettings, window: tuple[float, float]) -> list[float]:
    """The N times of a window, in seconds, both ends included."""
    start, end = window
    return [float(t) for t in np.linspace(start, end, settings.frames)] if settings.frames > 1 else [start]


def plan_action(
    settings: RenderSettings,
    uid: str,
    window: tuple[float, float],
    moving: bool = True,
    ground: float = GROUND,
) -> Plan:
    """Clips of one action whose window is (start, end) seconds on the asset's clock.

    An asset that does not move has only static orbits. Equal (camera, time) pairs share a view, also across
    rigs: with the open orbit and all three rigs 70 of 72 remain, with the closed one 68, whose last view
    repeats the first. `ground` is the height of the object's lowest point in the normalised scene, which
    moving cameras of a rig stay above; InputError where none can be drawn.
    """
    clips = _orbit_clips(settings, uid, window, moving)
    if moving:
        clips += _rig_clips(settings, uid, window, ground)
    clips = [replace(clip, light=n) for clip in clips for n in range(settings.lights.n_lights)]
    distinct: dict[Pair, View] = {}
    pairs = [
        [_pair(camera, t, clip) for camera, t in zip(clip.cameras, clip.seconds, strict=True)]
        for clip in clips
    ]
    for clip, keys in zip(clips, pairs):
        for key, camera, seconds in zip(keys, clip.cameras, clip.seconds):
            distinct.setdefault(key, View(camera, seconds, clip.optics, clip.light))
    # Time by time: the scene is evaluated, and Cycles' trees are built, once for each. Within it light by
    # light.
    ordered = sorted(distinct, key=lambda key: (key[1], key[3]))
    number = {key: i for i, key in enumerate(ordered)}
    for clip, keys in zip(clips, pairs):
        clip.views = [number[key] for key in keys]
    framed = dict.fromkeys(clip.frames_for for clip in clips if clip.frames_for is not None)
    return Plan(window, clips, [distinct[key] for key in ordered], tuple(framed or [_plain(settings, uid)]))


def _pair(camera: Camera, seconds: float, clip: ClipPlan) -> Pair:
    """Equal for cameras of equal numbers, zeros of either sign."""
    numbers = np.concatenate([camera.c2w.ravel(), np.array(camera.intrinsics, np.float64)])
    return (numbers + 0.0).tobytes(), seconds, clip.optics, clip.light


def _orbit_clips(
    settings: RenderSettings, uid: str, window: tuple[float, float], moving: bool
) -> list[ClipPlan]:
    """Static and dynamic orbits, and front views."""
    start, end = window
    still = settings.static_raw_frame if settings.window == "raw_frames" else 0
    still = min(still, settings.frames - 1)
    rigs = [rig for rig in settings.rigs if rig in RIGS and (moving or rig == "static_orbit")]
    clips: list[ClipPlan] = []
    for k in range(settings.orbits if rigs else 0):
        share = settings.window_share_of(k)
        times = times_of(settings, (start, start + share * (end - start)) if share < 1 else window)
        fractions = [share * i / max(settings.frames - 1, 1) for i in range(settings.frames)]
        turning = orbit_cameras(settings, uid, k)
        for rig in rigs:
            runs = rig != "static_orbit"
            clips.append(
                ClipPlan(
                    rig,
                    k,
                    turning.azimuth0_deg,
                    turning.elevation_deg,
                    turning.cameras if rig != "front_view" else [turning.cameras[0]] * settings.frames,
                    times if runs else [times[still]] * settings.frames,
                    fractions if runs else [fractions[still]] * settings.frames,
                    turning.radius,
                    facts={"camera_draw": turning.facts} if turning.facts else {},
                    optics=turning.optics,
                    frames_for=turning.frames_for,
                )
            )
    return clips


def _rig_clips(
    settings: RenderSettings, uid: str, window: tuple[float, float], ground: float
) -> list[ClipPlan]:
    """One clip for each synchronised camera; all of them play the whole window."""
    times = times_of(settings, window)
    fractions = [i / max(settings.frames - 1, 1) for i in range(settings.frames)]
    clips: list[ClipPlan] = []
    for name in settings.rigs:
        if name in RIGS:
            continue
        column, draws = _describe(settings, name)
        for draw in range(draws):
            cameras = _cameras_of(settings, uid, name, draw, ground)
            for k, camera in enumerate(cameras):
                optics = rig_optics(settings, uid, name, camera)
                clips.append(
                    ClipPlan(
                        column,
                        draw * len(cameras) + k,
                        camera.azimuth_deg,
                        camera.elevation_deg,
                        list(camera.cameras),
                        times,
                        fractions,
                        camera.radius,
                        facts=_facts(settings, camera, draw, optics),
                        optics=optics,
                        may_miss=True,
                    )
                )
    return clips


def _describe(settings: RenderSettings, name: str) -> tuple[str, int]:
    """(rig of the index, how many draws differ)."""
    known = parse_rig(name)
    if known is None:
        return name, 1
    return known.column, settings.draws if known.is_drawn else 1


def _cameras_of(settings: RenderSettings, uid: str, name: str, draw: int, ground: float) -> list[RigCamera]:
    own = next((rig for rig in settings.own_rigs if rig.column == name), None)
    if own is not None:
        return own.rig_cameras(settings.frames, settings.resolution)
    return rig_cameras(
        name,
        settings.frames,
        (settings.resolution, settings.resolution),
        seed=settings.seed,
        uid=uid,
        draw=draw,
        metres_per_unit=settings.metres_per_unit,
        ground=ground,
    )


def _plain(settings: RenderSettings, uid: str) -> FramedFor:
    """What a plan without orbits is framed for: the plain orbit, so that rigs show what orbits show."""
    return FramedFor(settings.radius, settings.fov_x_deg, settings.elevation_of(uid))


def _facts(settings: RenderSettings, camera: RigCamera, draw: int, optics: Optics | None) -> dict[str, Any]:
    lens = {} if optics is None else {"f_number": optics.f_number, "focus": "centre"}
    return {
        "camera_label": camera.label,
        "rig_draw": draw,
        "metres_per_unit": settings.metres_per_unit,
        "lens_mm": camera.lens_mm,
        "sensor_mm": camera.sensor_mm,
        "camera_draw": {**camera.draw, **lens},
    }
