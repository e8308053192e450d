"""Which pictures an action needs: clips of (camera, moment), and each distinct pair once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.render.planning.settings import RenderSettings


@dataclass(frozen=True)
class Shot:
    """One picture: a camera of the normalised scene at a moment on the asset's clock."""

    camera: Camera
    seconds: float


@dataclass
class ClipPlan:
    """One clip, each frame an index into the plan's shots."""

    rig: str
    orbit: int
    azimuth0_deg: float
    elevation_deg: float
    cameras: list[Camera]
    seconds: list[float]
    time: list[float]
    """In [0, 1] on the window."""
    shots: list[int] = field(default_factory=list)


@dataclass
class Plan:
    """All clips of one action, and the distinct shots behind them in the order they are best taken."""

    window: tuple[float, float]
    clips: list[ClipPlan]
    shots: list[Shot]

    @property
    def sha256(self) -> str:
        """Hash of every clip's cameras and seconds and of the order of the views: equal for equal plans."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(f"{clip.rig}/{clip.orbit} {clip.shots}".encode())
            digest.update(np.array([*clip.seconds, *clip.time], np.float64).tobytes())
            for camera in clip.cameras:
                digest.update(np.asarray(camera.c2w, np.float64).tobytes())
                inner = (camera.fl_x, camera.fl_y, camera.cx, camera.cy, camera.w, camera.h)
                digest.update(np.array(inner, np.float64).tobytes())
        return digest.hexdigest()

    @property
    def moments(self) -> list[float]:
        """Distinct times in seconds at which anything is rendered, ascending."""
        return sorted({shot.seconds for shot in self.shots})


def moments_of(settings: RenderSettings, window: tuple[float, float]) -> list[float]:
    """The N moments of a window, in seconds, both ends included."""
    start, end = window
    return [float(t) for t in np.linspace(start, end, settings.frames)] if settings.frames > 1 else [start]


def plan_action(settings: RenderSettings, uid: str, window: tuple[float, float], moving: bool = True) -> Plan:
    """Clips of one action whose window is (start, end) seconds on the asset's clock.

    An asset that does not move has only static orbits. Equal (camera, moment) pairs share a shot: with the
    open orbit and all three rigs 70 of 72 remain, with the closed one 68, whose last view repeats the first.
    """
    start, end = window
    still = settings.static_raw_frame if settings.window == "raw_frames" else 0
    still = min(still, settings.frames - 1)
    elevation = settings.elevation_of(uid)
    size = (settings.resolution, settings.resolution)
    clips = []
    for k in range(settings.orbits):
        share = settings.window_share_of(k)
        times = moments_of(settings, (start, start + share * (end - start)) if share < 1 else window)
        fractions = [share * i / max(settings.frames - 1, 1) for i in range(settings.frames)]
        azimuth0 = settings.azimuth0_of(uid, k)
        cameras = orbit(
            settings.frames, settings.radius, elevation, settings.fov_x_deg, azimuth0, size, settings.closed
        )
        if settings.closed:
            # Written as the same numbers and not as an angle of 360 degrees, so that the pair is seen as
            # equal.
            cameras[-1] = cameras[0]
        for rig in settings.rigs:
            if rig != "static_orbit" and not moving:
                continue
            on_orbit = rig != "front_view"
            runs = rig != "static_orbit"
            clips.append(
                ClipPlan(
                    rig,
                    k,
                    azimuth0,
                    elevation,
                    cameras if on_orbit else [cameras[0]] * settings.frames,
                    times if runs else [times[still]] * settings.frames,
                    fractions if runs else [fractions[still]] * settings.frames,
                )
            )
    distinct: dict[tuple[Camera, float], None] = {}
    for clip in clips:
        distinct.update(dict.fromkeys(zip(clip.cameras, clip.seconds, strict=True)))
    # Moment by moment: the scene is evaluated, and Cycles' trees are built, once for each.
    ordered = sorted(distinct, key=lambda pair: pair[1])
    number = {pair: i for i, pair in enumerate(ordered)}
    for clip in clips:
        clip.shots = [number[pair] for pair in zip(clip.cameras, clip.seconds, strict=True)]
    return Plan(window, clips, [Shot(*pair) for pair in ordered])
