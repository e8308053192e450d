"""How fast a clip that walks in place would go: read from the feet while they stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Times of a clip at which a gait is measured.
MOMENTS = 97
#: Share of height by which a foot vertex lifts, and within which of the ground it comes.
LIFT, NEAR = 0.03, 0.08
#: Least share of contacts, most own slide, and least speed in heights per second of a usable gait.
SHARE, SLIDE, SPEED = 0.25, 0.7, 0.05


def gait(seconds: Any, vertices: Any) -> dict[str, Any]:
    """Speed and direction that the feet of a clip imply.

    seconds [T], ascending; vertices [T, V, 3] posed, +Z up, any unit. Returns `speed` in heights per second,
    `share` of contact samples that agree, `slide` (the clip's own, relative to speed), `forward` [3] unit,
    `height` (z extent over the clip) and `usable`. Without feet speed is None and usable False.
    """
    t, x = np.asarray(seconds, np.float64), np.asarray(vertices, np.float64)
    height = float(x[..., 2].max() - x[..., 2].min())
    none = {"speed": None, "share": 0.0, "slide": None, "forward": None, "height": height, "usable": False}
    if len(t) < 3 or not height > 0:
        return none
    ground = float(x[..., 2].min())
    low, high = x[..., 2].min(axis=0), x[..., 2].max(axis=0)
    feet = (high - low > LIFT * height) & (low < ground + NEAR * height)
    if not feet.any():
        return none
    x, low, high = x[:, feet], low[feet], high[feet]
    contact = x[..., 2] <= low + 0.1 * (high - low)
    speed = np.gradient(x[..., :2], t, axis=0, edge_order=1)
    contact[0] = contact[-1] = False  # one-sided differences there
    u = speed[contact]
    if len(u) < 3:
        return none
    mode = np.array([half_sample_mode(u[:, 0]), half_sample_mode(u[:, 1])])
    size = float(np.linalg.norm(mode))
    near = np.linalg.norm(u - mode, axis=1) <= 0.25 * size
    if not near.any() or size == 0:
        return none
    v = -np.median(u[near], axis=0)
    pace = float(np.linalg.norm(v))
    share = float((np.linalg.norm(u + v, axis=1) <= 0.25 * pace).mean())
    slide = float(np.median(np.linalg.norm(u + v, axis=1)) / max(pace, 1e-12))
    forward = [float(v[0] / pace), float(v[1] / pace), 0.0] if pace > 0 else None
    usable = share >= SHARE and slide <= SLIDE and pace > SPEED * height
    return {
        "speed": pace / height, "share": share, "slide": slide, "forward": forward, "height": height,
        "usable": bool(usable),
    }  # fmt: skip


def half_sample_mode(values: Floats) -> float:
    """Mode of a sample: the densest half, of that the densest half, and so on (Bickel and Frühwirth 2006)."""
    x = np.sort(values)
    while len(x) > 3:
        n = (len(x) + 1) // 2
        widths = x[n - 1 :] - x[: len(x) - n + 1]
        first = int(widths.argmin())
        x = x[first : first + n]
    if len(x) == 3:
        a, b = x[1] - x[0], x[2] - x[1]
        x = x[:2] if a < b else x[1:] if b < a else x[1:2]
    return float(x.mean())


def gait_of(character: Any, action: str | int, moments: int = MOMENTS) -> dict[str, Any]:
    """`gait` of a `Character`'s action."""
    return gait(*posed_clip(character, action, moments))


def posed_clip(character: Any, action: str | int, moments: int = MOMENTS) -> tuple[Floats, Floats]:
    """(seconds [T], vertices [T, V, 3]) of a `Character`'s action."""
    motion = character.rig.motion(action)
    seconds = np.linspace(motion.start, motion.end, moments)
    posed = np.stack([character.surface.posed(character.rig.maps(motion, float(t))) for t in seconds])
    return seconds, posed


def own_slides(seconds: Floats, vertices: Floats, found: dict[str, Any]) -> tuple[float, ...]:
    """What the feet of a clip slide at each of its times, as a share of the speed in `found`, its gait.

    The median over contact vertices; NaN where none touches. Empty for a gait that is not usable.
    """
    if not found["usable"]:
        return ()
    x, pace = vertices, found["speed"] * found["height"]
    low, high = x[..., 2].min(axis=0), x[..., 2].max(axis=0)
    feet = (high - low > LIFT * found["height"]) & (low < x[..., 2].min() + NEAR * found["height"])
    x, low, high = x[:, feet], low[feet], high[feet]
    contact = x[..., 2] <= low + 0.1 * (high - low)
    speed = np.gradient(x[..., :2], seconds, axis=0) + pace * np.array(found["forward"][:2])
    slide = np.linalg.norm(speed, axis=-1) / pace
    return tuple(float(np.median(row[on])) if on.any() else float("nan") for row, on in zip(slide, contact))
