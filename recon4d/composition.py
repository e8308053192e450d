"""Several concepts in one world: each a scene of its own, placed and timed, drawn as one set of Gaussians.

A folder with composition.json names its concepts (`concepts/<key>/`, scenes), and of each actor the action,
scale, path, rotations and times. {R (S G) + L}: centres R S x + L, covariances S² R Σ Rᵀ, opacities and
colours kept. The union is one call of the rasteriser, so occlusion is decided Gaussian by Gaussian.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera, focal_from_fov
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.remote import local_path
from orbit4d.recon4d import rotations
from orbit4d.recon4d import scene as scenes
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.deformation.rigs.harmonics_turn import turned_harmonics
from orbit4d.recon4d.deformation.rigs.rig import quaternions
from orbit4d.recon4d.deformation.rigs.rigged import RigField
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Scene

Floats = npt.NDArray[np.float64]

FILE = "composition.json"
FORMAT = 1
#: Seconds over which a clip that does not close is led back to its beginning.
CROSS_FADE = 0.2
#: Fastest turn of an actor, radians a second.
MOST_TURN = np.radians(180.0)


@dataclass(frozen=True)
class Track:
    """Where an actor is and what it does over the film."""

    points: Floats
    """[N, 3] of its contact with the ground, world units."""
    turns: Floats
    """[N, 3, 3]"""
    scale: float
    """World units of one unit of the concept."""
    ground: float = 0.0
    """Height in the concept, its units, that stands on the ground."""
    begin: float = 0.0
    """Seconds at which it sets off."""
    end: float = 0.0
    """Seconds at which it has arrived; `begin` where it stays."""
    ease: float = 0.25
    """Seconds of setting off, and of arriving."""
    stride: float = 0.0
    """World units that a second of the clip walks; 0: the clip runs by the clock."""
    rate: float = 1.0
    """Speed of a clip that runs by the clock."""
    phase: float = 0.0
    """Seconds of the clip at the beginning."""
    loop: str = "cycle"
    """cycle, fade (led back to its beginning) or hold."""

    def travelled(self, seconds: float) -> float:
        """World units along the path: it speeds up over `ease`, keeps its speed, and slows down so."""
        length, span = self.length, self.end - self.begin
        if span <= 0 or length == 0:
            return 0.0
        t = min(max(seconds - self.begin, 0.0), span)
        ease = min(self.ease, span / 2)
        speed = length / (span - ease)
        if t < ease:
            return speed * t * t / (2 * ease)
        if t > span - ease:
            left = span - t
            return length - speed * left * left / (2 * ease)
        return speed * (t - ease / 2)

    @property
    def length(self) -> float:
        """World units of the path."""
        return float(self._marks[-1])

    @property
    def _marks(self) -> Floats:
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def place(self, seconds: float) -> tuple[Floats, Floats]:
        """([3] contact point, [3, 3] rotation) at a time."""
        marks, way = self._marks, self.travelled(seconds)
        if len(marks) < 2 or marks[-1] == 0:
            return self.points[0], self.turns[0]
        i = int(np.clip(np.searchsorted(marks, way, side="right") - 1, 0, len(marks) - 2))
        while marks[i + 1] == marks[i] and i > 0:
            i -= 1
        u = float(np.clip((way - marks[i]) / max(marks[i + 1] - marks[i], 1e-12), 0, 1))
        point = (1 - u) * self.points[i] + u * self.points[i + 1]
        return point, between(self.turns[i], self.turns[i + 1], u)

    def clip_seconds(self, seconds: float) -> float:
        """Seconds of the clip, not yet wrapped, at a time of the film."""
        if self.stride > 0:
            return self.phase + self.travelled(seconds) / self.stride
        return self.phase + seconds * self.rate


def between(a: Floats, b: Floats, u: float) -> Floats:
    """The rotation at u in [0, 1] of the shortest turn from a to b, [3, 3]."""
    if u <= 0 or np.array_equal(a, b):
        return a
    if u >= 1:
        return b
    p, q = quaternions(np.stack([a, b]))
    if p @ q < 0:
        q = -q
    angle = 2 * np.arctan2(np.linalg.norm(p - q), np.linalg.norm(p + q))
    mixed = p if angle < 1e-12 else (np.sin((1 - u) * angle) * p + np.sin(u * angle) * q) / np.sin(angle)
    x, y, z, w = mixed / np.linalg.norm(mixed)
    return rotations.to_matrix(torch.tensor([w, x, y, z], dtype=torch.float64)).numpy()


@dataclass
class Part:
    """One concept in the composition; without a track it stands as it is."""

    key: str
    scene: Scene
    track: Track | None = None
    action: str = ""
    gain: tuple[float, float, float] | None = None
    """What red, green and blue are multiplied by; None leaves every bit as it is."""

    @property
    def blur(self) -> float | None:
        """Variance, world units squared, that the low-pass of its fit gave every Gaussian; None: no fit.

        Gaussians are fitted with `eps2d` px² added to what they cover. Seen from farther away as many px² are
        more of the object, which would look swollen.
        """
        seen = self.scene.cameras
        if not seen or self.track is None:
            return None
        at = [(np.linalg.norm(c.c2w[:3, 3]) / c.fl_x) ** 2 for c in seen]
        return float(self.scene.eps2d * np.median(at) * self.track.scale**2)

    @torch.no_grad()
    def at(self, seconds: float) -> Gaussians:
        """Its Gaussians in the world at a time of the film, on the CPU."""
        if self.track is None:
            return self.scene.at(0.0)
        posed = lit(self._posed(self.track.clip_seconds(seconds)), self.gain)
        point, turn = self.track.place(seconds)
        return placed(posed, self.track.scale, turn, point, self.track.ground)

    def _posed(self, clip_seconds: float) -> Gaussians:
        field = self.scene.field
        if not isinstance(field, RigField) or field.rig is None:
            return self.scene.at(min(max(clip_seconds, 0.0), 1.0))
        assert self.track is not None
        return field.posed(
            self.scene.gaussians, joint_maps(field, self.action, clip_seconds, self.track.loop)
        )


def joint_maps(field: RigField, action: str, clip_seconds: float, loop: str) -> Floats:
    """[J, 4, 4] of an action that continues: in a cycle, led back to its beginning, or held at its end."""
    rig = field._rig()
    motion = rig.motion(action) if action else None
    if motion is None or motion.seconds <= 0:
        return rig.maps(motion, 0.0 if motion is None else motion.start)
    if loop == "hold":
        return rig.maps(motion, motion.start + min(max(clip_seconds, 0.0), motion.seconds))
    inside = clip_seconds % motion.seconds
    maps = rig.maps(motion, motion.start + inside)
    left = motion.seconds - inside
    fade = min(CROSS_FADE, motion.seconds / 4)
    if loop == "fade" and left < fade:
        share = 1.0 - left / fade
        share = share * share * (3 - 2 * share)
        maps = (1 - share) * maps + share * rig.maps(motion, motion.start)
    return maps


def placed(gaussians: Gaussians, scale: float, turn: Floats, point: Floats, ground: float = 0.0) -> Gaussians:
    """R (S (G - ground)) + L: every centre, covariance and harmonic with it.

    scale S above 0, turn R [3, 3], point L [3], ground the concept's height that comes to stand on L.
    """
    g, way = gaussians, torch.as_tensor(turn, dtype=torch.float32)
    shift = torch.as_tensor(
        np.asarray(point) - turn @ (scale * np.array([0, 0, ground])), dtype=torch.float32
    )
    x, y, z, w = quaternions(np.asarray(turn, np.float64)[None])[0]
    own = torch.tensor([w, x, y, z], dtype=torch.float32)
    found = replace(
        g,
        means=scale * g.means @ way.T + shift,
        quats=rotations.multiply(own.expand_as(g.quats), g.quats),
        log_scales=g.log_scales + float(np.log(scale)),
    )
    if g.sh_degree:
        found.harmonics = turned_harmonics(g.harmonics, way.expand(len(g), 3, 3))
    return found


def lit(gaussians: Gaussians, gain: Sequence[float] | None) -> Gaussians:
    """Every colour, seen from anywhere, times a gain of each channel."""
    if gain is None:
        return gaussians
    rgb = torch.tensor(gain, dtype=torch.float32, device=gaussians.means.device)
    # Without harmonics a colour is clamped before it is drawn; so it is before it is multiplied.
    colors = gaussians.colors if gaussians.sh_degree else gaussians.colors.clamp(0, 1)
    return replace(gaussians, colors=colors * rgb, harmonics=gaussians.harmonics * rgb)


def union(parts: Sequence[Gaussians]) -> Gaussians:
    """All Gaussians in one set, in order; those without harmonics get zeros where others have them."""
    most = max(part.harmonics.shape[1] for part in parts)
    rows = []
    for part in parts:
        lacking = most - part.harmonics.shape[1]
        rows.append(replace(part, harmonics=torch.nn.functional.pad(part.harmonics, (0, 0, 0, lacking))))
    names = Gaussians.names()
    return Gaussians(**{name: torch.cat([getattr(row, name) for row in rows]) for name in names})


#: Least distance, world units, at which a low-pass is looked at.
_NEAREST = 1e-3


def _depth(gaussians: Gaussians, camera: Camera) -> Tensor:
    """[N] distances along the viewing axis, float32."""
    axis, origin = (torch.tensor(camera.c2w[:3, k], dtype=torch.float32) for k in (2, 3))
    return ((origin - gaussians.means.cpu()) @ axis).clamp(min=_NEAREST)


def _own_px2(part: Part, gaussians: Gaussians, camera: Camera) -> float | None:
    """Variance in px² that a part's own low-pass has at its distance from a camera."""
    if part.blur is None:
        return None
    middle = float(_depth(gaussians, camera).mean())
    return part.blur * (camera.fl_x / middle) ** 2


def blurred(gaussians: Gaussians, variance: Tensor) -> Gaussians:
    """Gaussians with a variance [] or [N], world units squared, added along every direction."""
    if not bool((variance > 0).any()):
        return gaussians
    more = variance.to(gaussians.means.device).reshape(-1, 1)
    logs = 0.5 * torch.log(torch.exp(2.0 * gaussians.log_scales) + more)
    return replace(gaussians, log_scales=logs)


def drawn_as(scene: Composition, gaussians: Gaussians, eps2d: float) -> Scene:
    """A scene of a set that stands still."""
    return Scene(gaussians.to(scene.gaussians.means.device), StillField(), eps2d=eps2d)


class PartsField(Deformation):
    """The motion of all parts: what it moves is known to the parts themselves."""

    def __init__(self, parts: Sequence[Part], seconds: float) -> None:
        super().__init__()
        self.config = {"kind": "composition"}
        self.parts, self.seconds = list(parts), seconds

    @torch.no_grad()
    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        moved = union([part.at(time * self.seconds) for part in self.parts])
        return moved.to(gaussians.means.device)


@dataclass
class Composition(Scene):
    """A film's world. A `Scene` in every way: `render`, `at`, film, view, export, eval."""

    parts: list[Part] = field(default_factory=list)
    shots: list[tuple[Camera, float]] = field(default_factory=list)
    """The director's camera and time, a frame each."""
    fps: float = 24.0

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        """Straight RGBA, float32 [H, W, 4] in [0, 1]; colour is 0 where alpha is below 1/255."""
        return drawn_as(self, *self.as_drawn(camera, time)).render(camera, time)

    @torch.no_grad()
    def as_drawn(self, camera: Camera, time: float) -> tuple[Gaussians, float]:
        """(the set, the variance in px² added to each) that one call of the rasteriser draws of a moment.

        Every fitted concept has the low-pass of its fit, in its own size, whatever its distance; what was not
        fitted has the usual one.
        """
        assert isinstance(self.field, PartsField)
        posed = [part.at(float(time) * self.field.seconds) for part in self.parts]
        if all(part.blur is None for part in self.parts):
            return union(posed), self.eps2d
        own = [_own_px2(part, g, camera) for part, g in zip(self.parts, posed, strict=True)]
        least = min([self.eps2d, *(px2 for px2 in own if px2 is not None)])
        rows = []
        for part, g, px2 in zip(self.parts, posed, own, strict=True):
            if px2 is None:
                depth = _depth(g, camera)
                rows.append(blurred(g, (self.eps2d - least) * (depth / camera.fl_x) ** 2))
            else:
                share = 0.0 if px2 == 0 else (px2 - least) / px2
                rows.append(blurred(g, torch.tensor((part.blur or 0.0) * share)))
        return union(rows), least

    @classmethod
    def of(cls, parts: Sequence[Part], seconds: float, **more: Any) -> Composition:
        """All parts over a film of some seconds."""
        first = union([part.at(0.0) for part in parts])
        return cls(first, PartsField(parts, seconds), parts=list(parts), **more)


def load_scene(folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> Scene:
    """Read a scene folder, or that of a composition, to be drawn on `device` whatever it was fitted on.

    Raises InputError when it is none, WorkError when a part of it is damaged.
    """
    root = local_path(folder)
    if not (root / FILE).is_file():
        return scenes.load_scene(folder, device)
    found = load_composition(root)
    return found.to(device) if torch.device(device).type != "cpu" else found


def load_composition(root: Path) -> Composition:
    """Read a composition. InputError where the folder holds none, WorkError where it is damaged."""
    if not (root / FILE).is_file():
        raise InputError(
            f"{root}: no composition (no {FILE}); make one with `orbit4d compose PROMPT --out DIR`"
        )
    try:
        record = json.loads((root / FILE).read_text(encoding="utf-8"))
        if record.get("format") != FORMAT:
            raise InputError(
                f"{root}: composition format {record.get('format')}, this orbit4d reads {FORMAT}"
            )
        held: dict[str, Scene] = {}
        parts = []
        for row in record["parts"]:
            key = row["concept"]
            if not key.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"concept key {key[:40]!r}")
            if key not in held:
                held[key] = scenes.load_scene(root / "concepts" / key)
            track = None if row["track"] is None else track_of(row["track"])
            gain = None if row.get("gain") is None else gain_of(row["gain"])
            parts.append(Part(key, held[key], track, row.get("action", ""), gain))
        shots = [(camera_of(row), float(row["time"])) for row in record["camera"]]
        seconds, fps = float(record["seconds"]), float(record["fps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkError(
            f"{root}: damaged composition ({type(error).__name__}: {error}); run the same compose "
            "command again"[:300]
        ) from None
    cameras, times = tuple(camera for camera, _ in shots), tuple(time for _, time in shots)
    info = {"format": 1, "composition": True, "source": record.get("prompt", "")}
    return Composition.of(
        parts, seconds, cameras=cameras, time=times, info=info, shots=shots, fps=fps,
        metrics=record.get("metrics", {}),
    )  # fmt: skip


def track_record(track: Track) -> dict[str, Any]:
    """JSON-able; inverse of `track_of`."""
    plain = {name: getattr(track, name) for name in _NUMBERS}
    times = [round(t, 6) for t in times_at_points(track)]
    return {"points": track.points.tolist(), "turns": track.turns.tolist(), "times": times, **plain}


_NUMBERS = ("scale", "ground", "begin", "end", "ease", "stride", "rate", "phase", "loop")


def track_of(record: dict[str, Any]) -> Track:
    """From composition.json."""
    points = np.array(record["points"], np.float64)
    turns = np.array(record["turns"], np.float64)
    if (
        points.shape != (len(points), 3)
        or turns.shape != (len(points), 3, 3)
        or not np.isfinite(points).all()
    ):
        raise ValueError("points or turns that are none")
    return Track(points, turns, **{name: record[name] for name in _NUMBERS})


def gain_of(values: Any) -> tuple[float, float, float]:
    """From composition.json. ValueError for what is no gain of three channels."""
    r, g, b = (float(v) for v in values)
    if not (np.isfinite([r, g, b]).all() and min(r, g, b) >= 0):
        raise ValueError(f"gain {values}")
    return r, g, b


def times_at_points(track: Track) -> list[float]:
    """Seconds at which each point of the path is reached."""
    marks = track._marks
    clock = np.linspace(track.begin, max(track.end, track.begin), 400)
    ways = np.array([track.travelled(t) for t in clock])
    return np.interp(marks, ways, clock).tolist() if track.end > track.begin else [track.begin] * len(marks)


def camera_record(camera: Camera, time: float) -> dict[str, Any]:
    """JSON-able; see `camera_of`."""
    return {
        "c2w": camera.c2w.tolist(), "fl_x": camera.fl_x, "fl_y": camera.fl_y, "cx": camera.cx,
        "cy": camera.cy, "w": camera.w, "h": camera.h, "time": time,
    }  # fmt: skip


def camera_of(record: dict[str, Any]) -> Camera:
    """From composition.json."""
    return Camera(
        **{k: v for k, v in record.items() if k not in ("time", "c2w")}, c2w=np.array(record["c2w"])
    )


def pinhole(c2w: Floats, size: int, fov_deg: float = 39.5978) -> Camera:
    """A square camera."""
    focal = focal_from_fov(fov_deg, size)
    return Camera(c2w, focal, focal, size / 2, size / 2, size, size)
