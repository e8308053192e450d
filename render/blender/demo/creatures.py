# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside Blender: imports bpy, which is GPL.
"""The demo's animals, all facing -Y: one smooth skin with a painted texture, carried by bones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from orbit4d.render.blender.demo import kit
from orbit4d.render.blender.demo.forms import (
    Array,
    blend,
    cone,
    ellipsoid,
    mirrored,
    paint,
    rgb,
    smoothstep,
    surface,
)

TAU = 2 * np.pi


def _near(p: Array, centre: tuple[float, float, float], radius: float, soft: float = 0.012) -> Array:
    """1 within `radius` of a point and of its mirror image, 0 outside."""
    away = np.linalg.norm(np.abs(p * [1, 0, 0]) + p * [0, 1, 1] - np.asarray(centre), axis=1)
    return smoothstep(radius + soft, radius - soft, away)


def painted_eye(skin: Array, p: Array, centre: tuple[float, float, float], radius: float) -> Array:
    """A dark eye with one catch light, painted on both sides of the head."""
    x, y, z = centre
    skin = paint(skin, "#f2efe6", _near(p, centre, radius))
    skin = paint(skin, "#22252e", _near(p, (x - 0.12 * radius, y - 0.1 * radius, z), 0.72 * radius))
    return paint(skin, "#ffffff", _near(p, (x, y - 0.3 * radius, z + 0.42 * radius), 0.24 * radius, 0.006))


def dino() -> None:
    """A baby long-neck that walks on the spot: one skin, 14 bones, a painted texture."""
    leg = {"front": -0.22, "back": 0.30}
    limbs = [
        blend(
            [
                cone((0.17, y, 0.55), (0.19, y, 0.10), 0.125, 0.095),
                ellipsoid((0.19, y - 0.03, 0.06), (0.105, 0.13, 0.065)),
            ],
            0.06,
        )
        for y in leg.values()
    ]
    body = blend(
        [
            ellipsoid((0, 0.05, 0.66), (0.285, 0.44, 0.27)),
            cone((0, -0.27, 0.78), (0, -0.52, 1.17), 0.165, 0.105),
            ellipsoid((0, -0.61, 1.25), (0.155, 0.20, 0.145)),
            ellipsoid((0, -0.76, 1.20), (0.115, 0.11, 0.085)),
            cone((0, 0.38, 0.66), (0, 0.72, 0.52), 0.19, 0.10),
            cone((0, 0.72, 0.52), (0, 1.04, 0.60), 0.10, 0.028),
            *[mirrored(limb) for limb in limbs],
        ],
        0.13,
    )
    crest = [
        ellipsoid((0, y, z), (0.028, 0.062, 0.075))
        for y, z in ((-0.36, 1.11), (-0.22, 0.98), (-0.06, 0.945), (0.11, 0.945), (0.28, 0.92), (0.44, 0.83))
    ]
    mesh = surface(blend([body, *crest], 0.05), (-0.48, -1.0, -0.12), (0.48, 1.22, 1.55), 0.043)
    rng = np.random.default_rng(7)
    spots = np.column_stack(
        [rng.uniform(0.02, 0.3, 44), rng.uniform(-0.35, 0.9, 44), rng.uniform(0.62, 1.02, 44)]
    )
    radii = rng.uniform(0.025, 0.062, 44)

    def colour(p: Array) -> Array:
        skin = rgb("#4fa08b") + 0.0 * p
        skin = paint(skin, "#3c8790", smoothstep(0.6, 1.0, p[:, 2]) * smoothstep(-0.4, 0.2, p[:, 1]))
        for centre, radius in zip(spots, radii):
            skin = paint(skin, "#2f6f7d", 0.85 * _near(p, tuple(centre), radius, 0.008))
        under = (
            smoothstep(0.49, 0.43, p[:, 2])
            * smoothstep(0.34, 0.36, p[:, 2])
            * smoothstep(0.11, 0.085, np.abs(p[:, 0]))
        )
        ahead = -0.27 - 0.64 * (p[:, 2] - 0.78) - 0.05 - p[:, 1]
        throat = (
            smoothstep(0.0, 0.03, ahead) * smoothstep(0.42, 0.46, p[:, 2]) * smoothstep(1.17, 1.11, p[:, 2])
        )
        throat *= smoothstep(0.10, 0.08, np.abs(p[:, 0])) * (p[:, 1] < 0)
        skin = paint(skin, "#e3c68d", np.maximum(under, throat))
        skin = paint(
            skin,
            "#e58d5a",
            smoothstep(0.036, 0.03, np.abs(p[:, 0])) * smoothstep(0.0, 0.015, _crest_height(p)),
        )
        skin = paint(
            skin,
            "#2a5560",
            smoothstep(0.055, 0.045, p[:, 2])
            * smoothstep(-0.01, -0.03, np.abs((p[:, 1] - 0.04) % 0.52 - 0.26) - 0.12)
            * 0.8,
        )
        skin = paint(skin, "#d98476", 0.6 * _near(p, (0.125, -0.70, 1.195), 0.03, 0.02))
        skin = paint(skin, "#28404a", _near(p, (0.038, -0.865, 1.235), 0.012, 0.004))
        return painted_eye(skin, p, (0.142, -0.655, 1.285), 0.048)

    body_mesh = kit.painted("dino", mesh, colour, 512)
    bones: dict[str, tuple] = {
        "body": ((0, 0.30, 0.68), (0, -0.16, 0.68), 0.20, None),
        "neck": ((0, -0.24, 0.80), (0, -0.40, 1.00), 0.10, "body"),
        "neck2": ((0, -0.40, 1.00), (0, -0.54, 1.20), 0.09, "neck"),
        "head": ((0, -0.54, 1.22), (0, -0.78, 1.22), 0.10, "neck2"),
        "tail": ((0, 0.42, 0.64), (0, 0.66, 0.54), 0.10, "body"),
        "tail2": ((0, 0.66, 0.54), (0, 0.86, 0.54), 0.05, "tail"),
        "tail3": ((0, 0.86, 0.54), (0, 1.04, 0.60), 0.02, "tail2"),
    }
    for end, y in leg.items():
        for side, x in (("L", 0.18), ("R", -0.18)):
            bones[f"{end}{side}"] = ((x, y, 0.50), (x, y, 0.27), 0.07, "body")
            bones[f"{end}{side}2"] = ((x, y, 0.27), (x, y, 0.05), 0.07, f"{end}{side}")
    rig = kit.armature("dino_rig", bones)
    kit.skin(body_mesh, rig, bones, 0.075)

    def walk(t: float) -> kit.Pose:
        pose: dict = {
            "body": {
                "turn": (2 * np.sin(2 * TAU * t), 4 * np.sin(TAU * t), 3 * np.sin(TAU * t)),
                "shift": (0.02 * np.sin(TAU * t), 0, 0.028 * np.cos(2 * TAU * t)),
            },
            "neck": {"turn": (5 * np.sin(2 * TAU * t + 0.6), 0, -5 * np.sin(TAU * t))},
            "neck2": {"turn": (4 * np.sin(2 * TAU * t + 1.2), 0, -5 * np.sin(TAU * t - 0.4))},
            "head": {"turn": (-8 * np.sin(2 * TAU * t + 1.0), 6 * np.sin(TAU * t), 6 * np.sin(TAU * t))},
        }
        for i, name in enumerate(("tail", "tail2", "tail3")):
            pose[name] = {"turn": (4 * np.sin(2 * TAU * t - 0.7 * i), 0, 16 * np.sin(TAU * t - 0.8 * i))}
        for name, phase in (("frontL", 0.0), ("backR", 0.08), ("frontR", 0.5), ("backL", 0.58)):
            a = TAU * (t + phase)
            lift = max(0.0, np.cos(a)) ** 1.5
            pose[name] = {"turn": (-27 * np.sin(a) - 8 * lift, 0, 0)}
            pose[f"{name}2"] = {"turn": ((34 if "front" in name else 28) * lift, 0, 0)}
        return pose

    kit.animate(rig, "Walk", range(33), walk)


def _crest_height(p: Array) -> Array:
    """How far a point stands above the dino's back line."""
    line = np.interp(
        p[:, 1], [-0.45, -0.33, -0.2, -0.02, 0.3, 0.42, 0.5], [1.2, 1.08, 0.965, 0.925, 0.91, 0.85, 0.79]
    )
    return np.where((p[:, 1] > -0.45) & (p[:, 1] < 0.52), p[:, 2] - line, -1.0)


def fish() -> None:
    """A clown fish: a spine of five bones carries a wave to the tail; the side fins row."""
    body = blend(
        [
            ellipsoid((0, -0.05, 0), (0.17, 0.46, 0.27)),
            cone((0, 0.25, 0), (0, 0.52, 0), 0.12, 0.065),
            ellipsoid((0, 0.67, 0.10), (0.036, 0.19, 0.13)),
            ellipsoid((0, 0.67, -0.10), (0.036, 0.19, 0.13)),
            ellipsoid((0, 0.0, 0.27), (0.035, 0.27, 0.13)),
            ellipsoid((0, 0.22, -0.22), (0.033, 0.13, 0.11)),
            mirrored(ellipsoid((0.25, -0.05, -0.11), (0.15, 0.085, 0.035))),
        ],
        0.06,
    )
    mesh = surface(body, (-0.5, -0.62, -0.48), (0.5, 0.98, 0.52), 0.034)

    def colour(p: Array) -> Array:
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        skin = rgb("#e8772e") + 0.0 * p
        skin = paint(skin, "#f0a04b", smoothstep(-0.05, -0.25, z))
        for centre, width in ((-0.22, 0.05), (0.10, 0.062), (0.42, 0.036)):
            band = np.abs(y - centre + 0.35 * z * z - 0.05 * np.cos(9 * z))
            skin = paint(skin, "#2b2a35", smoothstep(width + 0.032, width + 0.018, band) * (x < 0.19))
            skin = paint(skin, "#f4efe4", smoothstep(width + 0.004, width - 0.008, band) * (x < 0.19))
        edge = np.maximum(smoothstep(0.80, 0.83, y), smoothstep(0.345, 0.365, z) * (np.abs(y) < 0.3))
        edge = np.maximum(edge, smoothstep(0.355, 0.375, x))
        skin = paint(skin, "#2b2a35", edge)
        skin = paint(skin, "#8f3b1d", smoothstep(0.012, 0.004, np.abs(z + 0.10 + 0.1 * x)) * (y < -0.455))
        return painted_eye(skin, p, (0.118, -0.355, 0.075), 0.058)

    body_mesh = kit.painted("fish", mesh, colour, 512)
    knots = [-0.40, -0.08, 0.14, 0.34, 0.52, 0.80]
    bones: dict[str, tuple] = {}
    for i, (a, b) in enumerate(pairwise(knots)):
        bones[f"spine{i}"] = ((0, a, 0), (0, b, 0), 0.06, f"spine{i - 1}" if i else None)
    for side, x in (("L", 1), ("R", -1)):
        bones[f"fin{side}"] = ((0.16 * x, -0.07, -0.10), (0.38 * x, -0.05, -0.12), 0.03, "spine0")
    rig = kit.armature("fish_rig", bones)
    kit.skin(body_mesh, rig, bones, 0.07)

    def swim(t: float) -> kit.Pose:
        pose: dict = {
            f"spine{i}": {"turn": (0, 0, a * np.sin(2 * TAU * t - 0.95 * i))}
            for i, a in enumerate((9, 9, 13, 17, 24))
        }
        pose["spine0"] |= {"shift": (0.03 * np.sin(2 * TAU * t + 2.4), 0, 0.035 * np.sin(TAU * t))}
        for side, x in (("L", 1), ("R", -1)):
            pose[f"fin{side}"] = {
                "turn": (0, x * (20 + 30 * np.sin(2 * TAU * t)), x * 14 * np.cos(2 * TAU * t))
            }
        return pose

    kit.animate(rig, "Swim", range(49), swim)


def bird() -> None:
    """A round little bird that flaps in the air: two bones a wing, tail and body answer the beat."""
    wing = blend(
        [
            cone((0.2, 0.0, 0.06), (0.52, 0.02, 0.08), 0.075, 0.06),
            ellipsoid((0.44, 0.10, 0.07), (0.34, 0.17, 0.036)),
            ellipsoid((0.70, 0.10, 0.08), (0.22, 0.11, 0.032)),
        ],
        0.05,
    )
    body = blend(
        [
            ellipsoid((0, 0.04, 0.0), (0.23, 0.34, 0.23)),
            ellipsoid((0, -0.24, 0.17), (0.185, 0.18, 0.175)),
            ellipsoid((0, 0.44, 0.03), (0.12, 0.22, 0.04)),
            mirrored(wing),
        ],
        0.07,
    )
    beak = cone((0, -0.39, 0.155), (0, -0.51, 0.135), 0.05, 0.012)
    feet = mirrored(cone((0.08, 0.08, -0.20), (0.085, 0.16, -0.27), 0.03, 0.022))
    mesh = surface(blend([body, beak, feet], 0.02), (-1.04, -0.64, -0.42), (1.04, 0.78, 0.46), 0.036)

    def colour(p: Array) -> Array:
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        skin = rgb("#3f7fc4") + 0.0 * p
        skin = paint(skin, "#2c5a9e", smoothstep(0.30, 0.42, x))
        skin = paint(skin, "#7fb6de", smoothstep(0.10, 0.13, y + 0.25 * (x - 0.3)) * (x > 0.24))
        feather = smoothstep(0.35, 0.45, np.abs(((x * 11.0) % 1.0) - 0.5)) * smoothstep(0.12, 0.16, y)
        skin = paint(skin, "#234a86", 0.8 * feather * (x > 0.28))
        skin = paint(skin, "#234a86", smoothstep(0.50, 0.56, y))
        front = (
            smoothstep(0.06, -0.02, z + 0.35 * y + 0.9 * np.maximum(x - 0.1, 0))
            * (x < 0.26)
            * smoothstep(0.36, 0.26, y)
        )
        skin = paint(skin, "#f1ead8", front)
        skin = paint(
            skin, "#e77b57", front * smoothstep(0.15, 0.05, np.abs(z + 0.02)) * smoothstep(-0.05, -0.15, y)
        )
        skin = paint(
            skin,
            "#e9a93c",
            np.maximum(smoothstep(-0.405, -0.425, y), (z < -0.215) * smoothstep(0.0, 0.03, y)),
        )
        return painted_eye(skin, p, (0.118, -0.365, 0.225), 0.046)

    body_mesh = kit.painted("bird", mesh, colour, 512)
    bones: dict[str, tuple] = {
        "body": ((0, 0.20, 0), (0, -0.16, 0.04), 0.17, None),
        "head": ((0, -0.18, 0.12), (0, -0.42, 0.17), 0.12, "body"),
        "tail": ((0, 0.33, 0.02), (0, 0.64, 0.03), 0.05, "body"),
    }
    for side, x in (("L", 1), ("R", -1)):
        bones[f"wing{side}"] = ((0.19 * x, 0.05, 0.06), (0.48 * x, 0.06, 0.07), 0.04, "body")
        bones[f"wing{side}2"] = ((0.48 * x, 0.06, 0.07), (0.88 * x, 0.09, 0.08), 0.04, f"wing{side}")
    rig = kit.armature("bird_rig", bones)
    kit.skin(body_mesh, rig, bones, 0.06)

    def flap(t: float) -> kit.Pose:
        beat = 2 * TAU * t
        pose: dict = {
            "body": {
                "turn": (3 * np.sin(beat + 0.5), 0, 3 * np.sin(TAU * t)),
                "shift": (0, 0, -0.075 * np.sin(beat - 0.35)),
            },
            "head": {"turn": (-4 * np.sin(beat), 0, 9 * np.sin(TAU * t))},
            "tail": {"turn": (12 * np.sin(beat - 1.2), 0, 0)},
        }
        for side, x in (("L", 1), ("R", -1)):
            pose[f"wing{side}"] = {"turn": (0, -x * (38 * np.sin(beat) + 6), 0)}
            pose[f"wing{side}2"] = {"turn": (0, -x * 34 * np.sin(beat - 0.9), 0)}
        return pose

    kit.animate(rig, "Flap", range(37), flap)
